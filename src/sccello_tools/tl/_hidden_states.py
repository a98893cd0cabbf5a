"""The embedding that annotation starts from: reused from ``obsm`` if it matches the request, else computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._logging import logger
from sccello_tools.errors import ConfigError
from sccello_tools.models import LoadedModel, load
from sccello_tools.tokens import looks_like_counts

from ._embed import embed

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

_CHUNK = 16_384


class HiddenStates(NamedTuple):
    """Cells embedded by a model, in both representations."""

    model: LoadedModel
    hidden: NDArray[np.float32]
    """(n_obs, d), ``representation="cls"``."""
    key: str
    """Key of ``obsm`` that holds ``hidden``."""

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
    model: str | Path | LoadedModel,
    source: CountsSource,
    *,
    use_rep: str | None,
    device: str = "auto",
) -> HiddenStates:
    """Return the ``cls`` embedding of all cells, computing it if there is none that fits.

    Without ``use_rep``, ``obsm["X_sccello"]`` is reused only if it was computed by this model, from the matrix and the genes that
    ``source`` selects, with all of the model's positions; otherwise it is computed again. With ``use_rep``, the embedding must be of
    this model; other differences are logged.

    Raises
    ------
    ConfigError
        If ``use_rep`` does not exist, is not a ``cls`` embedding, or is of another model.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model, device=device)
    key = use_rep or _keys.EMBEDDING
    if use_rep is None:
        difference = _difference(adata, key, loaded, source) if _fits(adata, key, loaded) else None
        if difference or not _fits(adata, key, loaded):
            if difference:
                logger.info("adata.obsm[%r] %s; it is computed again", key, difference)
            embed(
                adata,
                model=loaded,
                key_added=key,
                layer=source.layer,
                gene_ids=source.gene_ids,
                counts=source.counts,
                min_matched=source.min_matched,
            )
    elif not _fits(adata, key, loaded):
        raise ConfigError(_not_an_embedding(adata, key, loaded))
    hidden = np.asarray(adata.obsm[key], dtype=np.float32)
    return HiddenStates(loaded, hidden, key)


def chunks(n_obs: int) -> list[slice]:
    """Return the row ranges that are annotated at a time; at least one, so that no cells give empty columns of the right type."""
    starts = range(0, max(n_obs, 1), _CHUNK)
    return [slice(start, min(start + _CHUNK, n_obs)) for start in starts]


def provenance_of(adata: AnnData, key: str) -> Mapping[str, object]:
    """Return ``adata.uns[key]`` if :func:`embed` could have written it, else an empty mapping."""
    found = adata.uns.get(key)
    return found if isinstance(found, Mapping) else {}


def _fits(adata: AnnData, key: str, model: LoadedModel) -> bool:
    made = provenance_of(adata, key)
    return (
        key in adata.obsm
        and made.get("weights_sha256") == model.sha256
        and made.get("representation") == "cls"
        and adata.obsm[key].shape[1] == model.config.hidden_size
    )


def _difference(adata: AnnData, key: str, model: LoadedModel, source: CountsSource) -> str | None:
    """Say in which respect an embedding differs from the one that was asked for; None if in none."""
    made = provenance_of(adata, key)
    if (length := made.get("max_length")) != model.config.max_positions:
        return f"was computed with max_length={length}"
    stored = str(made.get("layer", "X"))
    if source.layer is None and stored != "X":
        # no matrix was asked for: the stored embedding is meant, unless X holds counts that it could mean instead
        if adata.X is None or not looks_like_counts(adata.X):
            source = CountsSource(stored, source.gene_ids, source.counts, source.min_matched)
    elif source.layer is None and (adata.X is None or not looks_like_counts(adata.X)):
        return None  # X was normalised after embedding
    wanted = "X" if source.layer is None else source.layer
    if stored != wanted:
        return f"was computed from {stored!r}, not from {wanted!r}"
    if wanted not in {"X", "raw.X", *adata.layers}:
        return None  # the layer was removed after embedding
    genes = source.provenance(source.gene_match(adata))["genes_sha256"]
    if "genes_sha256" in made and made["genes_sha256"] != genes:
        return "was computed from other genes"
    return None


def _not_an_embedding(adata: AnnData, key: str, model: LoadedModel) -> str:
    if key not in adata.obsm:
        return f"adata.obsm has no {key!r} (keys: {list(adata.obsm)}). Call tl.embed(adata, key_added={key!r}) first, or omit use_rep."
    made = provenance_of(adata, key)
    if not made:
        what = f"adata.uns[{key!r}] does not record which model computed it"
    elif made.get("representation") != "cls":
        what = f"it has representation={made.get('representation')!r}, and annotation needs 'cls'"
    else:
        what = f"it was computed by {made.get('model')!r} (weights {str(made.get('weights_sha256'))[:12]}…)"
    return (
        f"adata.obsm[{key!r}] is not an embedding of model {model.name!r} (weights {model.sha256[:12]}…): {what}. "
        f"Call tl.embed(adata, model={model.name!r}) first, pass the model that computed it, or omit use_rep."
    )
