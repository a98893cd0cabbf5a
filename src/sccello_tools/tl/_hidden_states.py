"""Embedding for annotation: reused from ``obsm`` if it matches the request, else computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools import _keys
from sccello_tools._anndata.columns import check_anndata
from sccello_tools._anndata.counts import RAW
from sccello_tools._logging import logger
from sccello_tools.errors import ConfigError, GeneMatchError, NotCountsError
from sccello_tools.tokens import looks_like_counts

from ._embed import embed, loaded_model

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools._anndata.counts import CountsSource
    from sccello_tools.models import LoadedModel

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
        from sccello_tools.engine import cell_representation

        return cell_representation(self.model.network, self.hidden[rows])


def hidden_states(
    adata: AnnData,
    model: str | Path | LoadedModel,
    source: CountsSource,
    *,
    use_rep: str | None,
    device: str = "auto",
    key: str = _keys.EMBEDDING,
) -> HiddenStates:
    """Return the ``cls`` embedding of all cells; compute it if ``adata`` has none that matches the request.

    Without ``use_rep``, ``obsm[key]`` is reused only if it was computed by this model with all of its positions, from the
    matrix and genes that ``source`` selects; otherwise it is recomputed with a warning. If that is not possible, because the matrix no
    longer holds raw counts or too few genes are left, it is reused with a warning. With ``use_rep``, the embedding must be of this
    model.

    Raises
    ------
    ConfigError
        If ``use_rep`` does not exist, is not a ``cls`` embedding, or is of another model.
    """
    check_anndata(adata)
    loaded = loaded_model(model, device)
    key = use_rep or key
    if use_rep is not None:
        if not _is_of_model(adata, key, loaded):
            raise ConfigError(_not_an_embedding(adata, key, loaded))
    elif not _is_of_model(adata, key, loaded) or _is_outdated(adata, key, loaded, source):
        embed(
            adata,
            model=loaded,
            key_added=key,
            layer=source.layer,
            gene_ids=source.gene_ids,
            counts=source.counts,
            min_matched=source.min_matched,
        )
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


def _is_of_model(adata: AnnData, key: str, model: LoadedModel) -> bool:
    made = provenance_of(adata, key)
    return (
        key in adata.obsm
        and made.get("weights_sha256") == model.sha256
        and made.get("representation") == "cls"
        and adata.obsm[key].shape[1] == model.config.hidden_size
    )


def _is_outdated(adata: AnnData, key: str, model: LoadedModel, source: CountsSource) -> bool:
    """Whether the embedding differs from the requested one and can be recomputed; a warning states the difference."""
    made = provenance_of(adata, key)
    stored = str(made.get("layer", "X"))
    wanted = source
    if source.layer is None and stored != "X" and not _holds_counts(adata, source):
        # no matrix was requested and X has no counts: the layer that the embedding was computed from is meant
        wanted = replace(source, layer=stored)
    difference, n_genes = _difference(adata, made, model, wanted)
    if not difference:
        return False
    if n_genes and _holds_counts(adata, wanted):
        logger.warning(
            "adata.obsm[%r] was computed %s; it is recomputed. Pass use_rep=%r to keep it.",
            key,
            difference,
            key,
        )
        return True
    logger.warning(
        "adata.obsm[%r] was computed %s, and is reused because %s does not hold raw counts of enough genes to recompute it",
        key,
        difference,
        wanted.name,
    )
    return False


def _difference(
    adata: AnnData, made: Mapping[str, object], model: LoadedModel, source: CountsSource
) -> tuple[str, int]:
    """Return how the embedding differs from the requested one ("" if it does not), and the number of genes to recompute it from."""
    stored, wanted = str(made.get("layer", "X")), "X" if source.layer is None else source.layer
    if wanted not in {"X", RAW, *adata.layers} and wanted == stored:
        return "", 0  # the layer was removed after embedding
    try:
        match = source.gene_match(adata, report=False)
    except GeneMatchError:
        return "from other genes", 0
    n_genes = match.n_genes
    if (length := made.get("max_length")) != model.config.max_positions:
        return f"with max_length={length}", n_genes
    if stored != wanted:
        return f"from {stored!r}, not from {wanted!r}", n_genes
    if made.get("genes_sha256") != source.provenance(match)["genes_sha256"]:
        return "from other genes", n_genes
    return "", n_genes


def _holds_counts(adata: AnnData, source: CountsSource) -> bool:
    if source.counts == "trust":  # embedding checks them
        return True
    try:
        return looks_like_counts(source.matrix(adata))
    except NotCountsError:  # the matrix does not exist; embedding from it would say so
        return source.layer is not None


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
        f"Call tl.embed(adata, model={model.address!r}) first, pass the model that computed it, or omit use_rep."
    )
