"""Fit the parameters of the annotation to labelled cells, holding out studies and types in turn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._logging import logger
from sccello_tools.errors import LabelError

from .confidence import KnownNovelty, known_confidence, novelty_calibration, open_temperature
from .coverage import assigned_types, utilities
from .evidence import EvidenceModel, EvidenceWeights
from .evidence_fit import EvidenceFit
from .evidence_weights import fit_weights, row_weights, scored
from .head import softmax
from .held_out import (
    HeldOut,
    HeldOutCells,
    cells_of_same_type,
    fold_features,
    joined,
    rows_of,
)
from .known_types import KnownTypes, pair_index
from .marker_scores import MarkerScorer
from .term_space import TermSpace, human_terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .held_out import (
        FoldFeatures,
    )
    from .known_types import LabelledCells
    from .markers import CellMarkers
    from .tissues import TissueWeights


def fit_evidence(
    cells: LabelledCells,
    ontology: CellOntology,
    markers: CellMarkers,
    *,
    folds: Sequence[Sequence[str]] | None = None,
    weights: EvidenceWeights | None = None,
    tissues: TissueWeights | None = None,
    n_each: int = 15,
    n_classifier: int = 100,
    seed: int = 0,
) -> EvidenceFit:
    """Fit classifier, evidence weights, novelty and confidence.

    For each fold of studies, a classifier is fitted to the other studies. Cells of the fold are then scored twice: with all types
    of the other studies known, and with the cell's own type and its descendants masked, as if it were novel. The
    weights maximise the likelihood of the true term in both cases. They are refitted without each quarter of the studies to calibrate
    novelty and confidence on cells that neither the classifier nor the weights have seen.

    Parameters
    ----------
    cells
        Labelled cells of several studies. Rows with NaN are left out.
    ontology
        Cell Ontology that the types are current terms of.
    markers
        Marker genes.
    folds
        Studies that are held out together; each separately if not given.
    weights
        Evidence weights to use instead of fitting them, such as those of another model if there are few types.
    tissues
        Stored with the fit.
    n_each
        Maximum number of cells per study and type for evidence weights and calibration.
    n_classifier
        Maximum number of cells per study and type for classifiers.
    seed
        Seed of the samples.

    Raises
    ------
    LabelError
        If there are fewer than two types, or no type occurs in two folds.
    """
    rng = np.random.default_rng(seed)
    cells = cells.take(np.flatnonzero(np.isfinite(cells.hidden).all(axis=1)))
    if len(names := np.unique(cells.types)) < 2:
        msg = f"Annotation needs cells of at least two cell types, found {names.tolist()}. Pass more cells, or check label_key."
        raise LabelError(msg)
    natural = cells.frequency if len(cells.frequency) else cells_of_same_type(cells)
    kept = _sample(cells, n_classifier, rng)
    cells, natural = cells.take(kept), natural[kept]
    asked = _sample(cells, n_each, rng)
    groups = (
        [[s] for s in np.unique(cells.studies).tolist()]
        if folds is None
        else [list(f) for f in folds]
    )
    known = KnownTypes.fit(cells, ontology)
    held_out = []
    for number, group in enumerate(groups):
        out = np.isin(cells.studies, group)
        rows = asked[out[asked]]
        if not len(rows) or len(np.unique(cells.types[~out])) < 2:
            continue
        fitted = KnownTypes.fit(cells.take(np.flatnonzero(~out)), ontology)
        held_out.append(HeldOut(replace(cells.take(rows), frequency=natural[rows]), fitted))
        logger.info(
            "fold %d of %d: %d types known, %d cells",
            number + 1,
            len(groups),
            len(fitted.types),
            len(rows),
        )
    measured = asked[~cells.synthetic[asked]]
    fit = calibrate_evidence(
        known, held_out, ontology, markers, seen=cells.take(measured), weights=weights
    )
    place = {t: i for i, t in enumerate(known.types)}
    index = [place[t] for t in cells.types]
    lengths = np.diff(cells.counts[~cells.synthetic].indptr) + 1
    low, high = 0.0, float("inf")
    if len(lengths):  # with few cells, these are the shortest and the longest
        low = float(np.quantile(lengths, 0.01, method="lower"))
        high = float(np.quantile(lengths, 0.99, method="higher"))
    return replace(
        fit,
        counts=np.bincount(index, minlength=len(known.types)).astype(np.int64),
        token_range=(low, high),
        tissues=tissues,
    )


def calibrate_evidence(
    known: KnownTypes,
    held_out: Sequence[HeldOut],
    ontology: CellOntology,
    markers: CellMarkers,
    *,
    seen: LabelledCells | None = None,
    weights: EvidenceWeights | None = None,
    prefers_subtypes: bool = False,
) -> EvidenceFit:
    """Fit evidence weights, and calibrate novelty and confidence, on held-out studies.

    Parameters
    ----------
    known
        Types of the final classifier.
    held_out
        Held-out studies with the types known without them. Their embedding may be that of another model of the same architecture.
    ontology
        Cell Ontology.
    markers
        Marker genes.
    seen
        Cells in the embedding of ``known``, to which it was fitted: the typical novelty of types of a single study, which cannot be
        held out, is estimated from them.
    weights
        Evidence weights to use instead of fitting them.
    prefers_subtypes
        Whether a subtype of the true type counts as correct.

    Raises
    ------
    LabelError
        If no type occurs in two groups, or there are too few types to learn weights.
    """
    scorer = MarkerScorer.of(markers, ontology)
    usable = human_terms(ontology)
    space = TermSpace.of(
        known.types, ontology, markers, candidates=[t for t in markers.terms if t in usable]
    )
    model = EvidenceModel.of(space, scorer, EvidenceWeights.of([0] * 13), ontology)
    utility = utilities(known.types, ontology) if prefers_subtypes else None
    blocks: list[FoldFeatures] = []
    start = 0
    for fold in held_out:
        found = fold_features(fold, model, scorer)
        blocks += [block._replace(rows=block.rows + start) for block in found]
        start += len(fold.cells)
    if not blocks or all(block.novel.any() for block in blocks):
        msg = "No cell type occurs in two groups, so nothing can be held out. Pass a batch_key (studies or donors) whose groups share cell types, or omit it."
        raise LabelError(msg)
    cells = HeldOutCells.of([fold.cells for fold in held_out], known.types)
    data = joined(blocks)
    quarter = _quarters(cells, data.rows)
    is_learnt = weights is None
    weight = row_weights(data, cells)
    if weights is None:
        if not data.novel.any():
            msg = f"{len(known.types)} cell types are too few to learn evidence weights by leaving types out. Pass weights=, such as those of another fit."
            raise LabelError(msg)
        weights = EvidenceWeights.of(fit_weights(data, model, cells.truth, weight))
    novelty = np.zeros(len(data.rows), np.float32)
    known_scores = np.zeros((len(data.rows), len(known.types)), np.float32)
    open_scores = np.zeros((len(data.rows), len(space)), np.float16)
    for number in range(quarter.max() + 1):
        rest, held = np.flatnonzero(quarter != number), np.flatnonzero(quarter == number)
        part = weights
        if is_learnt and len(rest):
            values = fit_weights(rows_of(data, rest), model, cells.truth, weight[rest])
            part = EvidenceWeights.of(values)
        n, ks, os = scored(rows_of(data, held), model, part)
        novelty[held], known_scores[held], open_scores[held] = n, ks, np.maximum(os, -1e4)
    use = np.flatnonzero(~cells.synthetic[data.rows] & ~data.novel)
    rows = data.rows[use]
    usual = KnownNovelty(
        novelty[use],
        assigned_types(softmax(known_scores[use]), utility),
        cells.studies[rows],
        cells.types[rows],
        cells.natural_weights(rows),
    )
    if seen is not None:
        inside = joined(fold_features(HeldOut(seen, known), model, scorer, modes=("known",)))
        n, ks, _ = scored(inside, model, weights)
        own = assigned_types(softmax(ks), utility)
        usual = usual.completed(n, own, seen.studies[inside.rows], seen.types[inside.rows])
    temperature, fallback = known_confidence(
        known_scores[use], cells, rows, known, ontology, utility
    )
    novel = np.flatnonzero(data.novel & ~cells.synthetic[data.rows])
    return EvidenceFit(
        known,
        weights,
        novelty_calibration(usual, space),
        temperature,
        open_temperature(open_scores[novel], cells.truth[data.rows[novel]]),
        fallback,
        prefers_subtypes=prefers_subtypes,
    )


def _sample(cells: LabelledCells, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    group = pair_index(cells.studies, cells.types)
    kept = [rng.permutation(np.flatnonzero(group == g))[:n] for g in range(group.max() + 1)]
    return np.sort(np.concatenate(kept))


def _quarters(cells: HeldOutCells, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    names, member = np.unique(cells.studies[rows], return_inverse=True)
    return (np.arange(len(names)) % 4)[member]
