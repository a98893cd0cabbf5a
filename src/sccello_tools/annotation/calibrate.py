"""Measure what annotation needs to know of a model, from embedded cells of known type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import LabelError

from .backoff import Lineages
from .features import FeatureScale
from .folds import assign_folds
from .head import LinearHead, fit_head, fit_temperature, softmax
from .novelty import ReferenceCells
from .statistics import AnnotationStatistics
from .zero_shot import Candidates, resolve_candidates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

N_KEPT = 2_000
"""Calibration scores that are kept: quantiles beyond that differ in the fourth digit."""
_N_OTHERS = 100  # candidates beside the true one, when zero-shot scores are calibrated


@dataclass(frozen=True, eq=False)
class KnownCells:
    """Cells of known type under one model."""

    hidden: NDArray[np.float32]
    """(n_cells, d) of ``representation="cls"``."""
    cells: NDArray[np.float32]
    """(n_cells, d) of ``representation="cell"``."""
    types: NDArray[np.str_]
    """(n_cells,) Cell Ontology ids."""
    groups: NDArray[np.str_]
    """(n_cells,) donor, or study: what stays together when cells are held out."""

    def take(self, rows: NDArray[Any]) -> KnownCells:
        """Return some of the cells."""
        return KnownCells(self.hidden[rows], self.cells[rows], self.types[rows], self.groups[rows])


def calibrate(
    known: KnownCells,
    ontology: CellOntology,
    *,
    weights_sha256: str,
    held_out: KnownCells | None = None,
    measured: NDArray[np.bool_] | None = None,
    n_reference: int = 60,
    seed: int = 0,
) -> AnnotationStatistics:
    """Fit the head, sample the reference, and calibrate both on groups that were left out in turn.

    The groups are dealt into three folds. For each, a head and a reference are made of the other two, and what they say of the
    cells left out becomes the calibration: the temperature, the conformal scores and the usual novelty. What is returned is
    then made of all cells.

    Parameters
    ----------
    known
        Cells to learn from. Rows with NaN are left aside.
    ontology
        Cell Ontology that the types are current terms of.
    weights_sha256
        Of the model that embedded them.
    held_out
        The same cells in the same order as they look when measured less well (with counts thinned, say); calibration then asks
        about these. An encoder that was trained on ``known`` is surer of them than of new cells, and this makes up for some of it.
    measured
        (n_cells,) whether each is a measurement. Synthetic cells teach the head, but say nothing of how sure to be of real
        ones, nor where real cells lie: they are neither asked about nor kept as reference.
    n_reference
        Most cells of a type that are kept as reference.
    seed
        Of the folds and the samples.

    Raises
    ------
    LabelError
        If there are fewer than two types.
    """
    asked = known if held_out is None else held_out
    usable = np.flatnonzero(
        np.isfinite(known.hidden).all(axis=1) & np.isfinite(asked.hidden).all(axis=1)
    )
    known, asked = known.take(usable), asked.take(usable)
    real = np.ones(len(usable), dtype=bool) if measured is None else np.asarray(measured)[usable]
    types = tuple(sorted(set(known.types.tolist())))
    if len(types) < 2:
        msg = f"Annotation needs cells of at least two cell types, found {list(types)}. Pass more cells, or check label_key."
        raise LabelError(msg)
    index = np.searchsorted(np.array(types), known.types)
    rng = np.random.default_rng(seed)
    fold = assign_folds(known.groups, rng)
    logits = np.full((len(index), len(types)), -1e4, dtype=np.float32)
    novelty = np.full(len(index), np.nan, dtype=np.float32)
    for number in range(fold.max() + 1):
        rest, out = np.flatnonzero(fold != number), np.flatnonzero((fold == number) & real)
        if len(np.unique(index[rest])) < 2 or not len(out):
            continue
        scale, head, reference = _fit(
            known.take(rest), index[rest], real[rest], len(types), n_reference, rng
        )
        logits[out] = head.logits(scale.features(asked.hidden[out], asked.cells[out]))
        novelty[out] = reference.novelty((asked.hidden[out] - scale.mean) / scale.spread)
        # a type that only this fold holds cannot be told, and says nothing of how sure to be
        novelty[out[~np.isin(index[out], index[rest])]] = np.nan
    judged = np.flatnonzero(np.isfinite(novelty))
    if not len(judged):
        msg = "No cell type occurs in two groups, so nothing can be held out. Pass groups= (donors) that share cell types."
        raise LabelError(msg)
    # every source of cells counts alike, or the largest study alone would set the threshold
    judged = _balanced(judged, index, rng)
    lineages = Lineages.of(types, ontology)
    accepted = _accepted(types, ontology)[index[judged]]
    temperature = fit_temperature(logits[judged], accepted)
    scores = lineages.conformal_scores(
        softmax(logits[judged] / np.float32(temperature)), known.types[judged]
    )
    scale, head, reference = _fit(known, index, real, len(types), n_reference, rng)
    prototypes = _prototypes(known.cells, index, len(types))
    chances = softmax(logits[judged] / np.float32(temperature))
    return AnnotationStatistics(
        types=types,
        counts=np.bincount(index, minlength=len(types)).astype(np.int64),
        prototypes=prototypes,
        scale=scale,
        head=LinearHead(head.weight, head.bias, temperature),
        reference=reference,
        conformal_scores=_thinned(scores),
        novelty_scores=_thinned(novelty[judged]),
        zero_shot_temperature=_zero_shot_temperature(
            asked.cells[judged], chances, index[judged], prototypes, types, ontology, rng
        ),
        weights_sha256=weights_sha256,
        ontology_release=ontology.release,
    )


def _fit(
    known: KnownCells,
    index: NDArray[np.intp],
    real: NDArray[np.bool_],
    n_types: int,
    n_reference: int,
    rng: np.random.Generator,
) -> tuple[FeatureScale, LinearHead, ReferenceCells]:
    scale = FeatureScale.of(known.hidden)
    head = fit_head(scale.features(known.hidden, known.cells), index, n_types)
    chosen = np.concatenate(
        [
            rng.permutation(np.flatnonzero((index == each) & real))[:n_reference]
            for each in np.unique(index)
        ]
    )
    points = (known.hidden[chosen] - scale.mean) / scale.spread
    return scale, head, ReferenceCells.of(points, index[chosen], n_types)


def _balanced(
    rows: NDArray[np.intp], index: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Cut the most frequent types to the 90th percentile of type sizes."""
    counts = np.bincount(index[rows])
    most = max(int(np.percentile(counts[counts > 0], 90)), 20)
    kept = [rng.permutation(rows[index[rows] == each])[:most] for each in np.unique(index[rows])]
    return np.sort(np.concatenate(kept))


def _accepted(types: Sequence[str], ontology: CellOntology) -> NDArray[np.bool_]:
    """(n_types, n_types): whether the column type is the row type or below it."""
    above = [ontology.ancestors(t, include_self=True) for t in types]
    return np.array([[truth in own for own in above] for truth in types])


def _prototypes(
    cells: NDArray[np.float32], index: NDArray[np.intp], n_types: int
) -> NDArray[np.float32]:
    sums = np.zeros((n_types, cells.shape[1]))
    np.add.at(sums, index, cells)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (sums / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def _thinned(values: NDArray[np.floating]) -> NDArray[np.float32]:
    ordered = np.sort(values)
    if len(ordered) > N_KEPT:
        ordered = np.quantile(ordered, (np.arange(N_KEPT) + 0.5) / N_KEPT)
    found: NDArray[np.float32] = np.asarray(ordered, dtype=np.float32)
    return found


def _zero_shot_temperature(
    cells: NDArray[np.float32],
    chances: NDArray[np.float32],
    index: NDArray[np.intp],
    prototypes: NDArray[np.float32],
    types: Sequence[str],
    ontology: CellOntology,
    rng: np.random.Generator,
) -> float:
    """Take each type out of the known ones in turn, name its cells among other terms, and ask how sure the scores make."""
    others = np.array(resolve_candidates(None, ontology, exclude=types))
    names = np.array(types)
    logits, right = [], []
    for each in np.unique(index):
        rows = np.flatnonzero(index == each)[:50]
        below = ontology.descendants(types[each], include_self=True)
        kept = np.array([name not in below for name in types])
        if kept.sum() < 2:
            continue
        terms = [types[each], *rng.choice(others, min(_N_OTHERS, len(others)), replace=False)]
        candidates = Candidates.of(terms, names[kept].tolist(), ontology)
        left = chances[rows][:, kept]
        left /= np.maximum(left.sum(axis=1, keepdims=True), 1e-12)
        logits.append(candidates.scores(cells[rows] @ prototypes[kept].T, left))
        right.append(np.arange(len(terms)) == np.zeros((len(rows), 1)))
    if not logits:
        return 1.0
    width = min(found.shape[1] for found in logits)
    table = np.concatenate([found[:, :width] for found in logits])
    accepted = np.concatenate([found[:, :width] for found in right])
    return fit_temperature(table, accepted)
