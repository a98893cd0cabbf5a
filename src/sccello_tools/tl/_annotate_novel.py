"""Cell Ontology terms for cells, also of types that no training cell had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.groups import group_labels
from sccello_tools._anndata.writing import check_writable, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools.ontology import CellOntology

from ._annotation_slots import AnnotationSlots, name_of, write_annotation
from ._hidden_states import chunks, hidden_states

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Literal

    from anndata import AnnData

    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def annotate_novel(
    adata: AnnData,
    *,
    model: str | Path | LoadedModel = "sccello-small",
    use_rep: str | None = None,
    candidates: Sequence[str] | str | None = None,
    tissue: str | Sequence[str] | None = None,
    organism: Literal["human", "any"] = "human",
    level: Literal["auto", "type"] = "auto",
    alpha: float = 0.1,
    groupby: str | None = None,
    return_scores: bool = False,
    method: Literal["combined", "published"] = "combined",
    key_added: str = _keys.CELL_TYPE,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    ontology: CellOntology | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Give each cell a Cell Ontology term, a confidence, and a measure of how new it is.

    Without ``candidates``, probabilities of the types that the model knows are summed up the ontology, and a cell gets the
    most specific term that is sure enough: a CD4 T cell where that is clear, a T cell where it is not. With
    ``candidates``, it gets the one whose place in the ontology fits best the types that the cell is and is not like; these may be
    terms that no training cell had.

    Parameters
    ----------
    adata
        %(adata)s
    model
        %(model)s It needs annotation statistics, which the bundled model has and :func:`calibrate` makes.
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` made with this model. If not given, ``"X_sccello"`` is taken
        where it fits, else computed and written.
    candidates
        Terms to choose from: ids or names, or one that stands for everything below it. If not given, the known types and
        what they are kinds of.
    tissue
        Where the cells are from, such as ``"pancreas"`` or ``["lung", "heart"]``: known types that are bound to other organs
        are ruled out; see :func:`sccello_tools.annotation.allowed_types`. The thresholds of ``alpha`` and novelty were set without it.
    organism
        Where ``candidates`` is an ancestor: ``"human"`` leaves out terms that the ontology keeps for other creatures.
    level
        ``"auto"`` backs off to a broader term; ``"type"`` names the most probable known type however unsure it is. Without effect on
        ``candidates``.
    alpha
        Share of wrong terms that is allowed. The threshold was set on held-out cells by split-conformal prediction, so the
        promise holds for cells like those: for a new tissue or a new technique it may not.
    groupby
        Column of ``adata.obs`` with clusters; the most frequent term of each is written beside the cells' own.
    return_scores
        Also write the probabilities of the known types, or the scores of the candidates.
    method
        How candidates are scored: ``"published"`` is the paper's rank correlation; ``"combined"`` also counts how near a
        candidate is to the cell's most probable types.
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
    ontology
        The Cell Ontology; the shipped release if not given.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the changed copy with ``copy=True``. Fields written:

    `adata.obs[key_added]`, `adata.obs[key_added + "_ontology_term_id"]` : category
        Name and id of the term; missing for cells without counts.
    `adata.obs[key_added + "_confidence"]` : float32
        Calibrated probability that the cell is of that term or one below it.
    `adata.obs["sccello_novelty"]` : float32
        Log2 of the cell's distance to its nearest known cells over the distance usual among cells of their type: 0 is usual, 1 is
        twice as far.
    `adata.obs[key_added + "_status"]` : category
        "known"; "novel_subtype": farther from known cells than 95 % of held-out cells, but a specific term is supported;
        "unknown": no specific term is supported. Missing for cells without counts.
    `adata.obs[key_added + "_cluster"]` : category
        With ``groupby``: the most frequent term of the cell's cluster.
    `adata.obsm[key_added + "_scores"]` : DataFrame of float32
        With ``return_scores``: one column a known type or candidate.
    `adata.uns[key_added]` : dict
        Model, hash of its weights, parameters, versions.

    Raises
    ------
    LabelError
        If a candidate is unknown, obsolete without a successor, ambiguous, or unrelated to the known types, or nothing is recorded of the
        tissue.
    WeightsError
        If the model has no annotation statistics.
    ConfigError
        If ``use_rep`` is not an embedding of this model, or ``alpha`` is no share.
    GroupError
        If ``groupby`` is no column of clusters.
    NotCountsError, GeneMatchError
        As :func:`embed`, where the embedding has yet to be computed.

    Notes
    -----
    arXiv 2408.12373, section 4.3 (novel cell types); back-off, novelty and calibration are this project's.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> adata.obs["sccello_cell_type_status"].cat.categories.tolist()
    ['known', 'novel_subtype', 'unknown']
    >>> sccello.tl.annotate_novel(adata, candidates="pancreatic endocrine cell", key_added="endocrine")
    """
    from sccello_tools.annotation import Annotator, check_tissues, resolve_candidates, statistics_of

    check_writable(adata, copy=copy)
    check_alpha(alpha)
    if tissue is not None:
        check_tissues(tissue)
    ontology = ontology or CellOntology.load()
    terms = (
        None if candidates is None else resolve_candidates(candidates, ontology, organism=organism)
    )
    clusters = None if groupby is None else group_labels(adata, groupby)
    # the embedding is a result of its own: it is written to the copy, too
    target = adata.copy() if copy else adata
    source = CountsSource(layer, gene_ids, counts, min_matched)
    states = hidden_states(target, model, source, use_rep=use_rep, device=device)
    annotator = Annotator.of(
        statistics_of(states.model),
        ontology,
        candidates=terms,
        level=level,
        alpha=alpha,
        method=method,
        tissue=tissue,
    )
    parts = (annotator(states.hidden[rows], states.cells(rows)) for rows in chunks(target.n_obs))
    slots = AnnotationSlots.of(parts, annotator.columns, keep_scores=return_scores)
    with writing(target, copy=False) as writable:
        written = write_annotation(
            writable, slots, key_added, ontology, parents=annotator.statistics.parents
        )
        if clusters is not None:
            winner = _majority(slots.terms, clusters)
            column = key_added + _keys.CLUSTER_SUFFIX
            writable.obs[column] = pd.Categorical(
                [name_of(term, ontology) if term else None for term in winner]
            )
            written.append(f".obs[{column!r}]")
        writable.uns[key_added] = {
            "model": states.model.name,
            "weights_sha256": states.model.sha256,
            "use_rep": states.key,
            "level": level,
            "alpha": alpha,
            "method": method if terms is not None else "known types",
            "n_candidates": len(annotator.columns),
            "tissue": "" if tissue is None else tissue if isinstance(tissue, str) else list(tissue),
            "ontology_release": ontology.release,
        }
    log_written("annotate_novel", *written, f".uns[{key_added!r}]")
    return target if copy else None


def _majority(terms: np.ndarray, clusters: pd.Categorical[object]) -> list[str]:
    """Most frequent term of each cell's cluster; ties go to the term that sorts first."""
    codes = np.asarray(clusters.codes)
    winners = {}
    for code in np.unique(codes):
        found, counts = np.unique(terms[(codes == code) & (terms != "")], return_counts=True)
        winners[code] = str(found[counts.argmax()]) if len(found) else ""
    return [winners[code] for code in codes]


def check_alpha(alpha: float) -> None:
    """Refuse what is no share of wrong answers."""
    if not 0 < alpha < 1:
        from sccello_tools.errors import ConfigError

        msg = f"alpha is {alpha}; expected is a share between 0 and 1, such as 0.1 for at most one wrong term in ten."
        raise ConfigError(msg)
