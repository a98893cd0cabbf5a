"""Label transfer from reference cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.writing import (
    check_writable,
    clear_slots,
    storable_names,
    write_slots,
    writing,
)
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools._validation import check_alpha
from sccello_tools.errors import (
    ConfigError,
    GeneMatchError,
    GroupError,
    LabelError,
    NotCountsError,
)
from sccello_tools.ontology import CellOntology

from ._build_reference import build_reference
from ._hidden_states import chunks, hidden_states
from ._search import check_obs_keys, check_same_model, model_of, write_neighbors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from anndata import AnnData

    from sccello_tools.annotation import Reference
    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def annotate(
    adata: AnnData,
    reference: AnnData | Reference | str | Path,
    *,
    label_key: str | None = None,
    batch_key: str | None = None,
    model: str | Path | LoadedModel | None = None,
    use_rep: str | None = None,
    level: Literal["auto", "type"] = "type",
    alpha: float = 0.1,
    return_scores: bool = False,
    return_neighbors: bool = False,
    obs_keys: Sequence[str] | None = None,
    key_added: str = _keys.CELL_TYPE,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    ontology: CellOntology | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Transfer labels from reference cells by nearest neighbours in the embedding.

    The nearest reference cells by cosine distance vote with weights :math:`2^{-2 d / d_k}`, where :math:`d_k` is the distance of the
    farthest one. Temperature and back-off threshold are calibrated on held-out reference cells (the latter by split-conformal
    prediction). They are valid for cells like those of the reference, and may not be for other tissues or technologies.

    Parameters
    ----------
    adata
        %(adata)s
    reference
        Labelled cells: an AnnData, the result of :func:`build_reference`, or the folder it was saved to.
    label_key
        Column of ``reference.obs`` with the labels; required if ``reference`` is an AnnData.
    batch_key
        Column of ``reference.obs`` with donors; see :func:`build_reference`.
    model
        %(model)s By default ``"sccello-small"``, or the model that the reference was built with.
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` computed with this model. By default ``"X_sccello"`` is used if it
        matches, else computed and written.
    level
        ``"type"`` assigns a label to every cell; ``"auto"`` assigns a broader Cell Ontology term where confidence in the label is low.
    alpha
        Fraction of wrong terms that ``level="auto"`` allows, for cells like those of the reference.
    return_scores
        Also write the probabilities of all labels.
    return_neighbors
        Also write the nearest reference cells, as :func:`search` does.
    obs_keys
        Columns of ``reference.obs`` to report with the neighbours, such as donor and study; by default, those stored in a built reference.
    key_added
        Column of ``adata.obs``, and prefix of the other fields.
    %(counts_source)s
    device
        %(device)s
    ontology
        Cell Ontology; the bundled release by default.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the changed copy with ``copy=True``. Fields written:

    `adata.obs[key_added]`, `adata.obs[key_added + "_ontology_term_id"]` : category
        Label, or name of a broader term, and its id if it has one; missing for cells without counts.
    `adata.obs[key_added + "_confidence"]` : float32
        Calibrated probability that the label is correct.
    `adata.obsm[key_added + "_scores"]` : DataFrame of float32, shape (n_obs, n_labels)
        With ``return_scores``: probabilities of the labels.
    `adata.obsm[key_added + "_neighbors_indices"]`, `adata.obsm[key_added + "_neighbors_distances"]`, \
    `adata.uns[key_added + "_neighbors"]`
        With ``return_neighbors``: see :func:`search`. :func:`sccello_tools.get.neighbor_fractions` returns the fraction of the
        neighbours per donor or study.
    `adata.uns[key_added]` : dict
        Model, hash of its weights, parameters.

    Raises
    ------
    ConfigError
        If ``label_key`` is missing for an AnnData, or the model is not the one that the reference was built with.
    LabelError, GroupError, NotCountsError, GeneMatchError
        As :func:`build_reference` and :func:`embed`; messages about the reference start with "reference:".
    WeightsError
        If a folder does not contain a reference.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> cells = sccello.datasets.pancreas_tritschler()
    >>> adata, reference = cells[:60].copy(), cells[60:240].copy()
    >>> sccello.tl.annotate(adata, reference=reference, label_key="cell_type")
    >>> bool((adata.obs["sccello_cell_type"].astype(str) == adata.obs["cell_type"].astype(str)).mean() > 0.8)
    True
    """
    from sccello_tools.annotation import (
        Annotation,
        Neighbors,
        Reference,
        TermNames,
        conformal_threshold,
    )
    from sccello_tools.annotation.reference_parts import NAME

    neighbors_key = key_added + _keys.NEIGHBORS_SUFFIX
    check_writable(adata, copy=copy, key_added=key_added)
    check_alpha(alpha)
    ontology = ontology or CellOntology.load()
    if isinstance(reference, (str, Path)):
        reference = Reference.load(reference)
    if not isinstance(reference, Reference):
        if label_key is None:
            msg = f"reference is an AnnData, so label_key= must name its column of labels (columns: {list(reference.obs.columns)})."
            raise ConfigError(msg)
        try:
            reference = build_reference(
                reference,
                label_key,
                model="sccello-small" if model is None else model,
                batch_key=batch_key,
                layer=layer,
                gene_ids=gene_ids,
                counts=counts,
                min_matched=min_matched,
                device=device,
                ontology=ontology,
                obs_keys=obs_keys or (),
            )
        except (NotCountsError, GeneMatchError) as error:
            msg = (
                f"reference: {error} layer and gene_ids apply to adata and reference. To read the reference differently, pass the result of "
                f"tl.build_reference(reference, {label_key!r}, layer=...)."
            )
            raise type(error)(msg) from error
        except (GroupError, LabelError) as error:
            msg = f"reference: {error}"
            raise type(error)(msg) from error
    labels = reference.labels
    if return_scores:
        labels = tuple(storable_names(labels, what="labels"))
    source = CountsSource(layer, gene_ids, counts, min_matched)
    target = adata.copy() if copy else adata
    states = hidden_states(
        target,
        model_of(reference, model),
        source,
        use_rep=use_rep,
        device=device,
    )
    check_same_model(states.model, reference)
    at_least = conformal_threshold(reference.conformal_scores, alpha) if level == "auto" else 0.0
    lineages = reference.lineages(ontology)
    parts, scores, found = [], [], []
    for rows in chunks(target.n_obs):
        neighbors = reference.search(states.hidden[rows])
        chances = reference.vote(neighbors)
        answer = lineages.back_off(chances, threshold=at_least)
        parts.append((answer.terms, answer.probability))
        if return_scores:
            scores.append(chances)
        if return_neighbors:
            found.append(neighbors)
    terms, confidence = (np.concatenate(column) for column in zip(*parts))
    present, codes = np.unique(terms, return_inverse=True)
    shown = TermNames(ontology, dict(zip(reference.types, reference.labels)), reference.parents)
    annotation = Annotation(
        tuple(present.tolist()), np.where(present[codes] == "", -1, codes), confidence
    )
    obsm = {}
    if scores:
        obsm[key_added + _keys.SCORES_SUFFIX] = pd.DataFrame(
            np.concatenate(scores), index=target.obs_names, columns=list(labels)
        )
    record = {
        "model": states.model.name,
        "weights_sha256": states.model.sha256,
        "use_rep": states.key,
        "n_reference": len(reference),
    }
    voted = {
        **record,
        "level": level,
        "alpha": alpha,
        "method": "nearest reference cells",
        "n_neighbors": reference.n_neighbors,
        "ontology_release": ontology.release,
    }
    with writing(target, copy=False) as writable:
        obs = annotation.columns(key_added, shown)
        written = write_slots(writable, key_added, voted, obs=obs, obsm=obsm)
        clear_slots(writable, neighbors_key)
        if return_neighbors:
            voting = Neighbors(*map(np.concatenate, zip(*found)))
            cells = reference.annotation(voting.indices)
            if obs_keys is not None:
                cells = cells[[NAME, *check_obs_keys(cells.columns.drop(NAME), obs_keys)]]
            written += write_neighbors(writable, voting, cells, record, neighbors_key)
    log_written("annotate", *written)
    return target if copy else None
