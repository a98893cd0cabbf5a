"""Label cells with a fine-tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import __version__, _keys
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.writing import check_writable, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools.models import LoadedModel, load

from ._embed import embed
from ._hidden_states import hidden_states, provenance_of

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def predict(
    adata: AnnData,
    model: str | Path | LoadedModel,
    *,
    use_rep: str | None = None,
    return_scores: bool = False,
    key_added: str = _keys.PREDICTION,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    """Give each cell one of the labels that a model was fine-tuned to.

    Parameters
    ----------
    adata
        %(adata)s
    model
        What :func:`finetune` returned, or the folder it wrote.
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` made with this model. If not given, ``"X_sccello"`` is taken
        where it fits, else computed and written; where another model's embedding is in its place, to ``"X_" + key_added``.
    return_scores
        Also write the probabilities of all labels.
    key_added
        Column of ``adata.obs``, and start of the names of the others.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    device
        %(device)s
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the changed copy with ``copy=True``. Fields written:

    `adata.obs[key_added]` : category
        Label, with all labels of the model as categories; missing for cells without any gene of the vocabulary.
    `adata.obs[key_added + "_confidence"]` : float32
        Its probability, by the temperature that was measured on the held-out cells; true of cells like those.
    `adata.obsm[key_added + "_scores"]` : DataFrame of float32
        With ``return_scores``: one column a label.
    `adata.uns[key_added]` : dict
        Model, hash of its weights, parameters.

    Raises
    ------
    WeightsError
        If the model was not fine-tuned to labels.
    ConfigError
        If ``use_rep`` is not an embedding of this model.
    NotCountsError, GeneMatchError
        If the matrix does not hold raw counts of human genes.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:120].copy()
    >>> model = sccello.tl.finetune(adata, "cell_type", out=tempfile.mkdtemp())
    >>> sccello.tl.predict(adata, model, return_scores=True)
    >>> adata.obsm["sccello_prediction_scores"].shape
    (120, 5)
    """
    from sccello_tools.training.finetune import classifier_of

    check_writable(adata, copy=copy)
    loaded = model if isinstance(model, LoadedModel) else load(model, device=device)
    classifier = classifier_of(loaded)
    target = adata.copy() if copy else adata
    spare = f"X_{key_added}"
    if use_rep is None and _is_of_another_model(target, _keys.EMBEDDING, loaded):
        if spare not in target.obsm or _is_of_another_model(target, spare, loaded):
            embed(
                target,
                model=loaded,
                key_added=spare,
                layer=layer,
                gene_ids=gene_ids,
                counts=counts,
                min_matched=min_matched,
            )
        use_rep = spare
    source = CountsSource(layer, gene_ids, counts, min_matched)
    states = hidden_states(target, loaded, source, use_rep=use_rep)
    chances = classifier.probabilities(states.hidden)
    usable = np.isfinite(chances).all(axis=1)
    codes = np.where(usable, np.nan_to_num(chances).argmax(axis=1), -1)
    confidence = np.where(usable, chances.max(axis=1), np.nan).astype(np.float32)
    # categories of object dtype, which every version of anndata writes
    column = pd.Categorical.from_codes(codes, pd.Index(classifier.labels, dtype=object))
    written = [f".obs[{key_added!r}]", f".obs[{key_added + _keys.CONFIDENCE_SUFFIX!r}]"]
    with writing(target, copy=False) as writable:
        writable.obs[key_added] = column
        writable.obs[key_added + _keys.CONFIDENCE_SUFFIX] = confidence
        if return_scores:
            scores = key_added + _keys.SCORES_SUFFIX
            writable.obsm[scores] = pd.DataFrame(
                chances, index=writable.obs_names, columns=list(classifier.labels)
            )
            written.append(f".obsm[{scores!r}]")
        writable.uns[key_added] = {
            "model": loaded.name,
            "weights_sha256": loaded.sha256,
            "use_rep": states.key,
            "label_key": classifier.label_key,
            "mode": classifier.mode,
            "sccello_tools_version": __version__,
        }
    log_written("predict", *written, f".uns[{key_added!r}]")
    return target if copy else None


def _is_of_another_model(adata: AnnData, key: str, model: LoadedModel) -> bool:
    made = provenance_of(adata, key)
    told = (made.get("weights_sha256"), made.get("representation"))
    return key in adata.obsm and told != (model.sha256, "cls")
