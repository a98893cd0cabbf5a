"""Predict labels with a fine-tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.writing import check_writable, storable_names, write_slots, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools.models import LoadedModel, load

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
    """Predict the labels that a model was fine-tuned to.

    Parameters
    ----------
    adata
        %(adata)s
    model
        Model returned by :func:`finetune`, or its folder.
    use_rep
        Key of ``adata.obsm`` with an embedding computed by :func:`embed` with this model. By default ``"X_sccello"`` is used if it was
        computed by this model from the same counts, otherwise it is computed. The embedding of another model is kept; the new one is then
        written to ``"X_" + key_added``.
    return_scores
        Also write the probabilities of all labels.
    key_added
        Column of ``adata.obs`` for the labels; prefix of the other fields.
    %(counts_source)s
    device
        %(device)s
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the changed copy with ``copy=True``. Fields written:

    `adata.obs[key_added]` : category
        Label, with all labels of the model as categories; missing for cells without counts in any gene of the vocabulary.
    `adata.obs[key_added + "_confidence"]` : float32
        Probability of the label, calibrated on the validation cells; valid for cells similar to those.
    `adata.obsm[key_added + "_scores"]` : DataFrame of float32
        With ``return_scores``: probabilities, one column per label.
    `adata.uns[key_added]` : dict
        Parameters, name of the model, hash of its weights, version of this package.

    Raises
    ------
    WeightsError
        If the model was not fine-tuned to labels.
    ConfigError
        If ``use_rep`` is not an embedding computed by this model.
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

    check_writable(adata, copy=copy, key_added=key_added)
    loaded = model if isinstance(model, LoadedModel) else load(model, device=device)
    classifier = classifier_of(loaded)
    columns = storable_names(classifier.labels, what="labels") if return_scores else []
    target = adata.copy() if copy else adata
    source = CountsSource(layer, gene_ids, counts, min_matched)
    # the embedding of another model is kept
    key = _keys.EMBEDDING
    if _is_of_another_model(target, key, loaded):
        key = f"X_{key_added}"
    states = hidden_states(target, loaded, source, use_rep=use_rep, key=key)
    probs = classifier.probabilities(states.hidden)
    usable = np.isfinite(probs).all(axis=1)
    codes = np.where(usable, np.nan_to_num(probs).argmax(axis=1), -1)
    confidence = np.where(usable, probs.max(axis=1), np.nan).astype(np.float32)
    # categories of object dtype can be written by every version of anndata
    predicted = pd.Categorical.from_codes(codes, pd.Index(classifier.labels, dtype=object))
    obs = {key_added: predicted, key_added + _keys.CONFIDENCE_SUFFIX: confidence}
    obsm = {}
    if return_scores:
        obsm[key_added + _keys.SCORES_SUFFIX] = pd.DataFrame(
            probs, index=target.obs_names, columns=columns
        )
    record = {
        "model": loaded.name,
        "weights_sha256": loaded.sha256,
        "use_rep": states.key,
        "label_key": classifier.label_key,
        "mode": classifier.mode,
    }
    with writing(target, copy=False) as writable:
        slots = write_slots(writable, key_added, record, obs=obs, obsm=obsm)
    log_written("predict", *slots)
    return target if copy else None


def _is_of_another_model(adata: AnnData, key: str, model: LoadedModel) -> bool:
    made = provenance_of(adata, key)
    found = (made.get("weights_sha256"), made.get("representation"))
    return key in adata.obsm and found != (model.sha256, "cls")
