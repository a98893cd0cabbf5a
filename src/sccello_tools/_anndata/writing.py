"""Write results to an AnnData, to a view of one, or to a copy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import __version__, _keys
from sccello_tools._logging import logger
from sccello_tools._messages import listed
from sccello_tools.errors import ArgumentError, BackedDataError, LabelError

from .columns import check_anndata
from .counts import warn_user

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from anndata import AnnData

    from sccello_tools.errors import ScCelloError

_RESERVED = frozenset({"", ".", "..", "_index"})
_REPLACEMENTS = {"": "unnamed", ".": "dot", "..": "dot dot", "_index": "index"}


def check_writable(adata: AnnData, *, copy: bool, **keys: str) -> None:
    """Check before any computation that results can be written to ``adata``.

    Parameters
    ----------
    adata
        Annotated data.
    copy
        Whether the results go to a copy.
    **keys
        Names of the slots to write by the argument that chose them, such as ``key_added="X_sccello"``; see :func:`check_key`.

    Raises
    ------
    BackedDataError
        If a copy of a backed AnnData is requested, or ``adata`` is a view of one.
    ArgumentError
        If ``adata`` is not an AnnData or a key cannot be stored.
    """
    check_anndata(adata)
    for argument, key in keys.items():
        check_key(key, argument=argument)
    if adata.isbacked and (copy or adata.is_view):
        what = (
            "copy=True would read all of it into memory"
            if copy
            else "a view of it cannot be written to"
        )
        msg = (
            f"adata is backed by {str(adata.filename)!r}, and {what}. Pass adata.to_memory() or adata.copy(filename=...), or the "
            "whole backed AnnData with copy=False."
        )
        raise BackedDataError(msg)


def check_key(key: str, *, argument: str = "key_added") -> None:
    """Refuse the name of a slot that h5ad or zarr cannot store.

    Raises
    ------
    ArgumentError
        If the key is empty, contains "/", is "." or "..", or is the reserved name ``_index``.
    """
    if not isinstance(key, str) or key in _RESERVED or "/" in key or "\x00" in key:
        msg = (
            f"{argument} must be a non-empty string that h5ad and zarr can store, without '/' and not '_index', '.' or '..'; got {key!r}. "
            f"Pass another {argument}."
        )
        raise ArgumentError(msg)


def storable_names(
    names: Sequence[str], *, what: str, error: type[ScCelloError] = LabelError
) -> list[str]:
    """Replace in labels what h5ad and zarr cannot store in the name of a column or dictionary key.

    "/" becomes "|", "." and ".." become "dot" and "dot dot", "_index" becomes "index" and "" becomes "unnamed". A warning lists
    the changed names. Call it before the computation, and write the returned names.

    Parameters
    ----------
    names
        Labels, drugs or groups that become columns of a table in ``obsm`` or keys in ``uns``.
    what
        What the names are, for the message: "labels", "drugs", "groups".
    error
        Exception type to raise.

    Returns
    -------
    The names to write, in the same order.

    Raises
    ------
    ScCelloError
        Of type ``error``, if two names become equal.
    """
    given = [str(name) for name in names]
    stored = [_REPLACEMENTS.get(name, name.replace("/", "|").replace("\x00", "")) for name in given]
    changed = {old: new for old, new in zip(given, stored) if old != new}
    if not changed:
        return stored
    for old, new in changed.items():
        if stored.count(new) > given.count(old):
            msg = f"The {what} {old!r} and another one would both be stored as {new!r}, because h5ad and zarr cannot store {old!r} as a name. Rename one of them."
            raise error(msg)
    shown = listed(f"{old!r} as {new!r}" for old, new in changed.items())
    warn_user(
        f"h5ad and zarr cannot store '/' and some reserved words in names; {len(changed):,} {what} are written differently: {shown}."
    )
    return stored


def clear_slots(adata: AnnData, key: str) -> None:
    """Remove ``key`` and its companion slots that an earlier call wrote, so that none remains next to a new result.

    Companions are ``key`` followed by one of the suffixes in ``_keys.SUFFIXES``, in ``obs`` and ``obsm``. Slots that this package did
    not write are kept: unless the key starts with "sccello_" or "X_sccello", ``uns[key]`` must record the version of this package.
    Call it inside :func:`writing`.
    """
    record = adata.uns.get(key)
    ours = isinstance(record, Mapping) and _keys.VERSION in record
    if not ours and not key.startswith(_keys.PREFIXES):
        return
    names = [key, *(key + suffix for suffix in _keys.SUFFIXES)]
    if key == _keys.CELL_TYPE:
        names.append(_keys.NOVELTY)
    if stale := [name for name in names if name in adata.obs]:
        table: Any = adata.obs
        if hasattr(table, "ds"):  # xarray, of anndata.experimental.read_lazy
            adata.obs = type(table)(table.ds.drop_vars(stale))
        else:
            adata.obs = table.drop(columns=stale)
    for name in names:
        adata.obsm.pop(name, None)
    adata.uns.pop(key, None)


def write_slots(
    adata: AnnData,
    key: str,
    record: Mapping[str, Any],
    *,
    obs: Mapping[str, Any] | None = None,
    obsm: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write results in place of those that an earlier call wrote to ``key``. Call it inside :func:`writing`.

    Parameters
    ----------
    adata
        AnnData to write to.
    key
        Key of ``uns``; see :func:`clear_slots`.
    record
        Parameters and provenance, to which the version of this package is added.
    obs, obsm
        Columns and arrays by name.

    Returns
    -------
    The slots, as they are logged.
    """
    clear_slots(adata, key)
    for name, values in (obs or {}).items():
        adata.obs[name] = values
    for name, values in (obsm or {}).items():
        adata.obsm[name] = values
    adata.uns[key] = {**record, _keys.VERSION: __version__}
    return [
        *(f".obs[{name!r}]" for name in obs or ()),
        *(f".obsm[{name!r}]" for name in obsm or ()),
        f".uns[{key!r}]",
    ]


@contextmanager
def writing(adata: AnnData, *, copy: bool) -> Iterator[AnnData]:
    """Yield the AnnData to write to: a copy, or ``adata`` itself. Enter it once the results are computed.

    Writing to a view makes it an actual AnnData; anndata's warning about this is suppressed, because it was requested.
    """
    with warnings.catch_warnings():
        if adata.is_view and not copy:
            from anndata import ImplicitModificationWarning

            warnings.simplefilter("ignore", ImplicitModificationWarning)
            logger.info("adata was a view of another AnnData and is now a copy of that part")
        yield adata.copy() if copy else adata


def write_token_counts(adata: AnnData, lengths: np.ndarray, truncated: np.ndarray) -> list[str]:
    """Write the number of tokens of each cell and whether it was truncated; return the slots, as they are logged."""
    adata.obs[_keys.N_TOKENS] = np.asarray(lengths, dtype=np.int32)
    adata.obs[_keys.TRUNCATED] = np.asarray(truncated, dtype=bool)
    return [f".obs[{_keys.N_TOKENS!r}]", f".obs[{_keys.TRUNCATED!r}]"]
