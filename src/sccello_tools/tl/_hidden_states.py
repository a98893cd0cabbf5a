"""The embedding that annotation starts from: taken from ``obsm`` where it is there, else computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools import _keys
from sccello_tools.errors import ConfigError
from sccello_tools.models import LoadedModel, load

from ._embed import embed

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

_CHUNK = 16_384


class HiddenStates(NamedTuple):
    """Cells under a model, in both representations."""

    model: LoadedModel
    hidden: NDArray[np.float32]
    """(n_obs, d) of ``representation="cls"``."""
    key: str
    """Where they came from, or were written to."""

    def cells(self, rows: slice) -> NDArray[np.float32]:
        """Return the ``cell`` representation of some rows."""
        import torch

        network = self.model.network
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(self.hidden[rows])).to(self.model.device)
            found: NDArray[np.float32] = network.cell_representation(given).cpu().numpy()
        return found


def hidden_states(
    adata: AnnData,
    model: str | Path | LoadedModel | None,
    *,
    use_rep: str | None,
    device: str = "auto",
    **embed_options: object,
) -> HiddenStates:
    """Find or compute the ``cls`` rows of all cells.

    Raises
    ------
    ConfigError
        If ``use_rep`` is not there, is no ``cls`` embedding, or was made by another model.
    """
    loaded = (
        model
        if isinstance(model, LoadedModel)
        else load("sccello-small" if model is None else model, device=device)
    )
    key = use_rep or _keys.EMBEDDING
    if use_rep is None and not _fits(adata, key, loaded):
        embed(adata, loaded, key_added=key, **embed_options)  # type: ignore[arg-type]
    elif not _fits(adata, key, loaded):
        raise ConfigError(_complaint(adata, key, loaded))
    hidden = np.asarray(adata.obsm[key], dtype=np.float32)
    return HiddenStates(loaded, hidden, key)


def chunks(n_obs: int) -> list[slice]:
    """Rows to annotate at a time, which bounds the memory beyond the results."""
    starts = range(
        0, max(n_obs, 1), _CHUNK
    )  # of no cells one piece of none, so that results have their form
    return [slice(start, min(start + _CHUNK, n_obs)) for start in starts]


def _fits(adata: AnnData, key: str, model: LoadedModel) -> bool:
    made = made_by(adata, key)
    return (
        key in adata.obsm
        and made.get("weights_sha256") == model.sha256
        and made.get("representation") == "cls"
        and adata.obsm[key].shape[1] == model.config.hidden_size
    )


def made_by(adata: AnnData, key: str) -> Mapping[str, object]:
    """Return what is noted of an embedding; a note of somebody else's is none."""
    note = adata.uns.get(key)
    return note if isinstance(note, Mapping) else {}


def _complaint(adata: AnnData, key: str, model: LoadedModel) -> str:
    if key not in adata.obsm:
        return f"adata.obsm has no {key!r} (there are: {list(adata.obsm)}). Call tl.embed(adata, key_added={key!r}), or leave use_rep out."
    made = made_by(adata, key)
    if not made:
        what = "nothing in adata.uns says which model made it"
    elif made.get("representation") != "cls":
        what = f"it is representation {made.get('representation')!r}, and annotation needs 'cls'"
    else:
        what = f"it was made by {made.get('model')!r} (weights {str(made.get('weights_sha256'))[:12]}…)"
    return (
        f"adata.obsm[{key!r}] is no embedding of model {model.name!r} (weights {model.sha256[:12]}…) to annotate from: {what}. "
        f"Call tl.embed(adata, {model.name!r}) first, pass the model that made it, or leave use_rep out."
    )
