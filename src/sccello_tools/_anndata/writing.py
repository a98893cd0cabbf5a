"""Write results to an AnnData, to a view of one, or to a copy."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import _keys
from sccello_tools._logging import logger
from sccello_tools.errors import BackedDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData


def check_writable(adata: AnnData, *, copy: bool) -> None:
    """Refuse, before any work is done, what could not be written to in the end.

    Raises
    ------
    BackedDataError
        If a copy of a backed AnnData is asked for, or ``adata`` is a view of one.
    """
    if adata.isbacked and (copy or adata.is_view):
        what = (
            "copy=True would read all of it into memory"
            if copy
            else "nothing can be written to a view of it"
        )
        msg = (
            f"adata is backed by {str(adata.filename)!r}, and {what}. Call it with adata.to_memory() "
            "or adata.copy(filename=...), or with the whole backed AnnData and copy=False."
        )
        raise BackedDataError(msg)


@contextmanager
def writing(adata: AnnData, *, copy: bool) -> Iterator[AnnData]:
    """Give the AnnData to write to: a copy, or ``adata`` itself. Enter it when the results are there.

    A view becomes an AnnData of its own by being written to; anndata warns of that, but here it was asked for.
    """
    with warnings.catch_warnings():
        if adata.is_view and not copy:
            from anndata import ImplicitModificationWarning

            warnings.simplefilter("ignore", ImplicitModificationWarning)
            logger.info("adata was a view of another AnnData; it now has data of its own")
        yield adata.copy() if copy else adata


def write_token_counts(adata: AnnData, lengths: np.ndarray, truncated: np.ndarray) -> None:
    """Write the number of tokens of each cell and whether it was truncated."""
    adata.obs[_keys.N_TOKENS] = np.asarray(lengths, dtype=np.int32)
    adata.obs[_keys.TRUNCATED] = np.asarray(truncated, dtype=bool)
