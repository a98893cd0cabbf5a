"""Learn from labelled cells how to weigh the sources of evidence, by holding out studies and types in turn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools._logging import logger
from sccello_tools.errors import LabelError

from .coverage import (
    TermChains,
    assigned_types,
    choose_level,
    coverage_threshold,
    is_right,
    pooled_threshold,
    utilities,
)
from .evidence import (
    MARKER_FEATURES,
    PAIR_FEATURES,
    CellEvidence,
    EvidenceModel,
    EvidenceWeights,
    log_sum_exp,
)
from .head import softmax
from .known_types import KnownTypes
from .marker_scores import MarkerScorer, MarkerScores
from .novelty import (
    NoveltyCalibration,
    data_set_shift,
    lower_quartiles,
    usual_novelty,
    weighted_quantile,
)
from .term_space import TermSpace, human_terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .known_types import LabelledCells
    from .markers import CellMarkers
    from .tissues import TissueWeights

# typical spread of each pair feature, so that one penalty fits all
_FEATURE_SD = np.array([0.35, 0.35, 0.35, 0.2, 0.35, 3.0, 0.25, 0.3], dtype=np.float32)
_AT_LEAST_0 = np.array([1, 1, -1, -1, 1, 1, 1, 1])
_LEAST = -1e9
# of known cells of all held-out studies; in one study of eight, more than 8 % are then called novel
_NOVEL_SHARE = 0.04
MARKER_SHARE = 0.5
"""Weight of the marker evidence in the label scores of known types."""
_KNOWN_TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.7, 2.0)
_ALPHA = 0.1  # share of wrong terms at which the temperature of known types is set


class HeldOut(NamedTuple):
    """Cells of held-out studies, in the embedding of a model or classifier that has not seen these studies."""

    cells: LabelledCells
    """A sample per study and type; the types are known to the final classifier."""
    known: KnownTypes
    """Types that the other studies hold, in the same embedding."""
    log_weight: NDArray[np.float32] | None = None
    """(n_cells, n_types of ``known``) added to log probabilities, such as for the tissue of each study."""


class _Block(NamedTuple):
    """Features of some cells under one held-out study, with or without their own type masked."""

    features: NDArray[np.float16]  # (n, n_features, n_rows)
    log_p: NDArray[np.float32]  # (n, n_known), -inf where masked
    distance: NDArray[np.float32]
    is_open: NDArray[np.bool_]  # (n, n_rows)
    rows: NDArray[np.intp]
    novel: NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class EvidenceFit:
    """Everything that annotation needs to know of a model, learnt from labelled cells."""

    known: KnownTypes
    weights: EvidenceWeights
    novelty: NoveltyCalibration
    known_temperature: float
    """Divisor of the label scores of known types before the softmax."""
    open_temperature: float
    """Divisor of the scores of open terms before the softmax."""
    fallback_threshold: float
    """Confidence threshold with nominal coverage over held-out studies together, at alpha = 0.1."""
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(n_known,) labelled cells of each type; empty if unknown."""
    token_range: tuple[float, float] = (0.0, float("inf"))
    """1st and 99th percentile of the number of tokens of the calibration cells."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """Term of each known type that is a name of a user's own."""
    tissues: TissueWeights | None = None
    """How usual known types are in tissues, if it was learnt."""
    prefers_subtypes: bool = False
    """Whether a subtype of the true type counts as correct: known types are then chosen by their expected utility instead of by
    their probability; see :func:`~sccello_tools.annotation.coverage.utilities`."""
    calibrated: bool = True
    """Whether confidence and novelty were calibrated on labelled cells."""

    def __repr__(self) -> str:
        kind = "" if self.calibrated else ", not calibrated"
        n_cells = f", {int(self.counts.sum()):,} cells" if len(self.counts) else ""
        return f"EvidenceFit({len(self.known.types)} types{n_cells}{kind})"


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
    known that the other studies hold, and with the cell's own type and all below it masked, as if it were novel. The
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
        Studies that are held out together; each on its own if not given.
    weights
        Evidence weights to use instead of learning them, such as those of another model where there are few types.
    tissues
        Stored with the fit.
    n_each
        Most cells per study and type that the evidence is learnt from.
    n_classifier
        Most cells per study and type that classifiers are fitted to.
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
    natural = cells.frequency if len(cells.frequency) else _counts(cells)
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
    if len(lengths):  # of few cells, the shortest and the longest
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
    """Learn evidence weights, novelty and confidence from held-out studies.

    Parameters
    ----------
    known
        Types of the final classifier.
    held_out
        Held-out studies with what is known without them. Their embedding may be that of another model, of the same kind.
    ontology
        Cell Ontology.
    markers
        Marker genes.
    seen
        Cells in the embedding of ``known``, to which it was fitted: the usual novelty of types of a single study, which cannot be
        held out, is estimated from them.
    weights
        Evidence weights to use instead of learning them.
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
    blocks: list[_Block] = []
    start = 0
    for fold in held_out:
        found = _blocks(fold, model, scorer)
        blocks += [block._replace(rows=block.rows + start) for block in found]
        start += len(fold.cells)
    if not blocks or all(block.novel.any() for block in blocks):
        msg = "No cell type occurs in two groups, so nothing can be held out. Pass a batch_key (studies or donors) whose groups share cell types, or omit it."
        raise LabelError(msg)
    cells = _Asked.of([fold.cells for fold in held_out], known.types)
    data = _joined(blocks)
    quarter = _quarters(cells, data.rows)
    is_learnt = weights is None
    weight = _row_weights(data, cells)
    if weights is None:
        if not data.novel.any():
            msg = f"{len(known.types)} cell types are too few to learn evidence weights by leaving types out. Pass weights=, such as those of another fit."
            raise LabelError(msg)
        weights = EvidenceWeights.of(_fit_weights(data, model, cells.truth, weight))
    novelty = np.zeros(len(data.rows), np.float32)
    known_scores = np.zeros((len(data.rows), len(known.types)), np.float32)
    open_scores = np.zeros((len(data.rows), len(space)), np.float16)
    for number in range(quarter.max() + 1):
        rest, held = np.flatnonzero(quarter != number), np.flatnonzero(quarter == number)
        part = weights
        if is_learnt and len(rest):
            values = _fit_weights(_rows_of(data, rest), model, cells.truth, weight[rest])
            part = EvidenceWeights.of(values)
        n, ks, os = _scored(_rows_of(data, held), model, part)
        novelty[held], known_scores[held], open_scores[held] = n, ks, np.maximum(os, -1e4)
    use = np.flatnonzero(~cells.synthetic[data.rows] & ~data.novel)
    rows = data.rows[use]
    usual = _Novelty(
        novelty[use],
        assigned_types(softmax(known_scores[use]), utility),
        cells.studies[rows],
        cells.types[rows],
        cells.natural_weights(rows),
    )
    if seen is not None:
        inside = _joined(_blocks(HeldOut(seen, known), model, scorer, modes=("known",)))
        n, ks, _ = _scored(inside, model, weights)
        own = assigned_types(softmax(ks), utility)
        usual = usual.completed(n, own, seen.studies[inside.rows], seen.types[inside.rows])
    temperature, fallback = _confidence(known_scores[use], cells, rows, known, ontology, utility)
    novel = np.flatnonzero(data.novel & ~cells.synthetic[data.rows])
    return EvidenceFit(
        known,
        weights,
        _novelty_calibration(usual, space),
        temperature,
        _open_temperature(open_scores[novel], cells.truth[data.rows[novel]]),
        fallback,
        prefers_subtypes=prefers_subtypes,
    )


def label_scores(markers: NDArray[np.float32], log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log probability of the known types after marker evidence, up to a constant; shape (n_cells, n_known)."""
    return np.where(
        np.isfinite(log_p), log_p + np.float32(MARKER_SHARE) * markers[:, : log_p.shape[1]], -np.inf
    )


def _sample(cells: LabelledCells, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    group = np.unique(
        np.char.add(np.char.add(cells.studies, "|"), cells.types), return_inverse=True
    )[1]
    kept = [rng.permutation(np.flatnonzero(group == g))[:n] for g in range(group.max() + 1)]
    return np.sort(np.concatenate(kept))


def _counts(cells: LabelledCells) -> NDArray[np.intp]:
    """Cells of the same type in the same study."""
    group = np.unique(
        np.char.add(np.char.add(cells.studies, "|"), cells.types), return_inverse=True
    )[1]
    return np.bincount(group)[group]


@dataclass(frozen=True, eq=False)
class _Asked:
    """Labels of the cells of all folds."""

    types: NDArray[np.str_]
    studies: NDArray[np.str_]
    synthetic: NDArray[np.bool_]
    natural: NDArray[np.intp]  # cells of the same type in the same study
    truth: NDArray[np.intp]  # index of the known type

    @classmethod
    def of(cls, parts: Sequence[LabelledCells], known: Sequence[str]) -> _Asked:
        place = {t: i for i, t in enumerate(known)}
        types = np.concatenate([part.types for part in parts])
        return cls(
            types,
            np.concatenate([part.studies for part in parts]),
            np.concatenate([part.synthetic for part in parts]),
            np.concatenate(
                [part.frequency if len(part.frequency) else _counts(part) for part in parts]
            ),
            np.array([place[t] for t in types], dtype=np.intp),
        )

    def natural_weights(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Types count by their frequency in their study, studies by the square root of their calibration cells."""
        studies, types = self.studies[rows], self.types[rows]
        group = np.unique(np.char.add(np.char.add(studies, "|"), types), return_inverse=True)[1]
        weight = self.natural[rows] / np.bincount(group)[group]
        study = np.unique(studies, return_inverse=True)[1]
        return weight / np.bincount(study, weight)[study] * np.sqrt(np.bincount(study)[study])


def _marker_scores(
    cells: LabelledCells, rows: NDArray[np.intp], scorer: MarkerScorer
) -> dict[int, MarkerScores]:
    """Scores by row."""
    found: dict[int, MarkerScores] = {}
    for panel in np.unique(cells.panels[rows]):
        some = rows[cells.panels[rows] == panel]
        bound = scorer.bind(np.where(cells.measured[panel], np.arange(cells.measured.shape[1]), -1))
        own, specific, negative = bound(cells.counts[some])
        for i, row in enumerate(some.tolist()):
            found[row] = MarkerScores(own[i], specific[i], negative[i])
    return found


def _blocks(
    fold: HeldOut,
    model: EvidenceModel,
    scorer: MarkerScorer,
    modes: tuple[str, ...] = ("known", "novel"),
) -> list[_Block]:
    """Features in both modes; types that the fold does not know are masked throughout."""
    cells, fitted = fold.cells, fold.known
    scores = _marker_scores(cells, np.arange(len(cells)), scorer)
    names = model.space.known
    place = {t: i for i, t in enumerate(names)}
    truth = np.array([place[t] for t in cells.types], dtype=np.intp)
    at = np.array([place[t] for t in fitted.types])
    n_known = len(names)
    in_fold = np.zeros(n_known, dtype=bool)
    in_fold[at] = True
    below = model.space.below[:n_known] > 0  # [t, k]: k is t or below
    found = []
    for mode in modes:
        for t in np.unique(truth):
            some = np.flatnonzero(truth == t)
            kept = in_fold & ~below[t] if mode == "novel" else in_fold
            if (mode == "known" and not (kept & below[t]).any()) or kept.sum() < (
                3 if mode == "novel" else 2
            ):
                continue
            markers = MarkerScores(
                *(np.stack([scores[row][k] for row in some.tolist()]) for k in range(3))
            )
            ev = fitted.evidence(
                cells.hidden[some],
                cells.cells[some],
                markers,
                kept=kept[at],
                log_weight=None if fold.log_weight is None else fold.log_weight[some],
            )
            log_p = np.full((len(some), n_known), -np.inf, np.float32)
            log_p[:, at] = ev.log_probabilities
            cosines = np.zeros((len(some), n_known), np.float32)
            cosines[:, at] = ev.cosines
            ev = CellEvidence(log_p, cosines, ev.log_distance, markers)
            is_open = ~model.space.take_known(kept)
            if mode == "novel":
                is_open[t] = True
            found.append(
                _Block(
                    model.pair_features(ev).astype(np.float16),
                    log_p,
                    ev.log_distance,
                    np.tile(is_open, (len(some), 1)),
                    some,
                    np.full(len(some), mode == "novel"),
                )
            )
    return found


def _joined(blocks: list[_Block]) -> _Block:
    columns: list[Any] = [np.concatenate(column) for column in zip(*blocks)]
    return _Block(*columns)


def _rows_of(data: _Block, rows: NDArray[np.intp]) -> _Block:
    columns: list[Any] = [column[rows] for column in data]
    return _Block(*columns)


def _row_weights(data: _Block, cells: _Asked) -> NDArray[np.float64]:
    """Types of studies count by the power 0.3 of their cells; both modes alike; synthetic cells half."""
    key = np.char.add(np.char.add(cells.studies[data.rows], "|"), cells.types[data.rows])
    key = np.char.add(key, np.where(data.novel, "|n", "|k"))
    group = np.unique(key, return_inverse=True)[1]
    weight = np.bincount(group)[group] ** -0.7 * np.where(cells.synthetic[data.rows], 0.5, 1)
    if data.novel.any() and not data.novel.all():
        weight[data.novel] *= weight[~data.novel].sum() / weight[data.novel].sum()
    found: NDArray[np.float64] = weight / weight.sum()
    return found


def _quarters(cells: _Asked, rows: NDArray[np.intp], n: int = 4) -> NDArray[np.intp]:
    names, member = np.unique(cells.studies[rows], return_inverse=True)
    return (np.arange(len(names)) % n)[member]


def _prior(
    model: EvidenceModel,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    prior = np.stack([model.space.depth, np.log1p(model.space.n_sources)], axis=1)
    mean, sd = prior.mean(axis=0), np.maximum(prior.std(axis=0), 1e-6)
    return ((prior - mean) / sd).astype(np.float32), mean, sd


def _fit_weights(
    data: _Block,
    model: EvidenceModel,
    truth: NDArray[np.intp],
    weight: NDArray[np.float64],
    *,
    penalty: float = 1e-3,
    most: int = 4_000,
) -> NDArray[np.float64]:
    """Maximum likelihood of the true term, with signs as in :class:`EvidenceWeights`; values in the order of its fields."""
    from scipy.optimize import minimize

    if len(weight) > most:
        rows = np.random.default_rng(0).permutation(len(weight))[:most]
        data, weight = _rows_of(data, rows), weight[rows]
    n_known = len(model.space.known)
    n_rows = len(model.space)
    w = (weight / weight.sum()).astype(np.float32)[:, None]
    f = data.features.astype(np.float32) / _FEATURE_SD[:, None]
    f -= f.mean(axis=2, keepdims=True)
    is_known = np.zeros((len(w), n_rows), dtype=bool)
    is_known[:, :n_known] = np.isfinite(data.log_p)
    is_open = data.is_open & ~is_known
    log_p = np.zeros((len(w), n_rows), np.float32)
    log_p[:, :n_known] = np.where(is_known[:, :n_known], np.maximum(data.log_p, -12), 0)
    floor = np.where(is_known | is_open, 0, _LEAST).astype(np.float32)
    below = model.space.below[:n_known, :n_known] > 0
    own = truth[data.rows]
    right = np.zeros((len(w), n_rows), dtype=bool)
    right[:, :n_known] = np.where(
        data.novel[:, None], np.arange(n_known) == own[:, None], below[own] & is_known[:, :n_known]
    )
    wrong = np.where(right, 0, _LEAST).astype(np.float32)
    opened = is_open.astype(np.float32)
    prior, mean, sd = _prior(model)
    d_mean, d_sd = data.distance.mean(), max(float(data.distance.std()), 1e-6)
    distance = ((data.distance - d_mean) / d_sd).astype(np.float32)
    k = len(PAIR_FEATURES)

    def loss(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        u = v.astype(np.float32)
        scores = np.einsum("nfr,f->nr", f, u[:k], optimize=True) + u[k] * log_p + floor
        scores += opened * ((distance * u[k + 3] + u[k + 4])[:, None] + prior @ u[k + 1 : k + 3])
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        q = np.exp(scores + wrong - (scores + wrong).max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        likelihood = np.maximum((p * right).sum(axis=1), 1e-30)
        d = (p - q) * w
        d_open = d * opened
        of_cell = d_open.sum(axis=1)
        gradient = np.concatenate(
            [np.einsum("nfr,nr->f", f, d, optimize=True), [(d * log_p).sum()], d_open.sum(axis=0) @ prior, [of_cell @ distance], [of_cell.sum()]]
        ).astype(np.float64)  # fmt: skip
        penalised = np.r_[np.full(k, penalty), 0, np.full(3, penalty), 0]
        return float(
            -(w[:, 0] * np.log(likelihood)).sum() + (penalised * v**2).sum()
        ), gradient + 2 * penalised * v

    bounds = [(0, None) if s > 0 else (None, 0) for s in _AT_LEAST_0] + [
        (0, None),
        (None, None),
        (0, None),
        (0, None),
        (None, None),
    ]
    start = np.zeros(k + 5)
    start[k] = 0.5
    v = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 100}
    ).x
    depth, log_sources = v[k + 1 : k + 3] / sd
    bias = v[k + 4] - v[k + 1 : k + 3] @ (mean / sd) - v[k + 3] * d_mean / d_sd
    return np.concatenate([v[:k] / _FEATURE_SD, [v[k], depth, log_sources, v[k + 3] / d_sd, bias]])


def _scored(
    data: _Block, model: EvidenceModel, weights: EvidenceWeights
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Novelty, label scores of known types, and scores of open terms."""
    n_known = len(model.space.known)
    w = weights.array()
    shared = np.einsum(
        "nfr,f->nr", data.features.astype(np.float32), w[: len(PAIR_FEATURES)], optimize=True
    )
    is_known = np.isfinite(data.log_p)
    known = np.where(
        is_known,
        shared[:, :n_known] + weights.log_probability * np.maximum(data.log_p, -12),
        _LEAST,
    )
    by_cell = weights.bias + weights.distance * data.distance
    prior = weights.depth * model.space.depth + weights.log_sources * np.log1p(
        model.space.n_sources
    )
    is_open = data.is_open.copy()
    is_open[:, :n_known] &= ~is_known
    opened = np.where(is_open, shared + by_cell[:, None] + prior, _LEAST).astype(np.float32)
    novelty = log_sum_exp(opened) - log_sum_exp(known.astype(np.float32))
    n_marker = len(MARKER_FEATURES)
    markers = np.einsum(
        "nfr,f->nr",
        data.features[:, :n_marker, :n_known].astype(np.float32),
        w[:n_marker],
        optimize=True,
    )
    return novelty, label_scores(markers, data.log_p), opened


@dataclass(frozen=True, eq=False)
class _Novelty:
    """Novelty of known cells: the first ``len(weight)`` of held-out studies, the others expected."""

    values: NDArray[np.float32]
    assigned: NDArray[np.int32]
    studies: NDArray[np.str_]
    types: NDArray[np.str_]
    weight: NDArray[np.float64]

    def completed(
        self, values: NDArray[np.float32], assigned: NDArray[np.int32], studies: NDArray[np.str_], types: NDArray[np.str_]
    ) -> _Novelty:  # fmt: skip
        """Add cells that the classifier was fitted to, of types that no study could be held out of; a mean difference is added."""
        own, other = (
            np.char.add(np.char.add(self.studies, "|"), self.types),
            np.char.add(np.char.add(studies, "|"), types),
        )
        both = np.intersect1d(own, other)
        gap = (
            np.mean([self.values[own == key].mean() - values[other == key].mean() for key in both])
            if len(both)
            else 0.0
        )
        extra = ~np.isin(other, own)
        return _Novelty(
            np.concatenate([self.values, values[extra] + np.float32(gap)]),
            np.concatenate([self.assigned, assigned[extra]]),
            np.concatenate([self.studies, studies[extra]]),
            np.concatenate([self.types, types[extra]]),
            self.weight,
        )


def _novelty_calibration(usual: _Novelty, space: TermSpace) -> NoveltyCalibration:
    """Usual novelty of the types, and the threshold over held-out studies, each with the offsets of the other studies."""
    similarity = space.lin[: len(space.known)]

    def offsets(rows: NDArray[np.bool_]) -> NDArray[np.float32]:
        key = np.unique(
            np.char.add(np.char.add(usual.studies[rows], "|"), usual.assigned[rows].astype(str)),
            return_inverse=True,
        )[1]
        return usual_novelty(
            usual.values[rows], usual.assigned[rows], np.bincount(key)[key] ** -0.5, similarity
        )

    n_held = len(usual.weight)
    values, assigned = usual.values[:n_held], usual.assigned[:n_held]
    study = usual.studies[:n_held]
    corrected = np.zeros(n_held, np.float32)
    quartiles, weights = [], []
    names = np.unique(study)
    for name in names:
        own = np.flatnonzero(study == name)
        one = NoveltyCalibration(offsets(usual.studies != name), 0.0, 0.0)
        corrected[own] = one.corrected(values[own], assigned[own])
        q, w = lower_quartiles(corrected[own], assigned[own])
        quartiles.append(q)
        weights.append(w)
    reference = float(np.average(np.concatenate(quartiles), weights=np.concatenate(weights)))
    for name in names:
        own = np.flatnonzero(study == name)
        corrected[own] -= data_set_shift(corrected[own], assigned[own], reference)
    threshold = weighted_quantile(corrected, 1 - _NOVEL_SHARE, usual.weight)
    everything = np.ones(len(usual.values), dtype=bool)
    return NoveltyCalibration(offsets(everything), reference, threshold)


def _confidence(
    scores: NDArray[np.float32],
    cells: _Asked,
    rows: NDArray[np.intp],
    known: KnownTypes,
    ontology: CellOntology,
    utility: NDArray[np.float32] | None,
) -> tuple[float, float]:
    """Temperature at which the back-off covers the nominal share in the median held-out study, and the threshold over all of them.

    The sum of probabilities of an answer is taken as its confidence. A temperature is judged by what it leads to: each held-out study
    gets its own threshold (see :func:`coverage_threshold`), and the median over studies of the share of right terms is compared.
    """
    labels, studies = cells.types[rows], cells.studies[rows]
    weight = cells.natural_weights(rows)
    chains = TermChains.of(known.types, known.types, ontology)
    best: tuple[float, float, float] = (np.inf, 1.0, 1.0)
    for temperature in _KNOWN_TEMPERATURES:
        p = softmax(scores / np.float32(temperature))
        assigned = assigned_types(p, utility)
        sums = chains.sums(p, assigned).astype(np.float32)
        right = is_right(chains, assigned, labels, ontology)
        covered = []
        for study in np.unique(studies):
            own = np.flatnonzero(studies == study)
            threshold = coverage_threshold(sums[own], _ALPHA, weight=weight[own])
            level = choose_level(sums[own], threshold)
            covered.append(np.average(right[own, level], weights=weight[own]))
        # the median: of some studies, no type of the label's lineage is known
        error = abs(float(np.median(covered)) - (1 - _ALPHA))
        if error < best[0]:
            best = (error, temperature, pooled_threshold(sums, right, weight, _ALPHA))
    return best[1], best[2]


def _open_temperature(scores: NDArray[np.float16], own: NDArray[np.intp]) -> float:
    if not len(own):
        return 1.0
    s = scores.astype(np.float32)
    losses = []
    grid = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
    for temperature in grid:
        p = softmax(s / np.float32(temperature))
        losses.append(float(-np.log(np.maximum(p[np.arange(len(own)), own], 1e-6)).mean()))
    return grid[int(np.argmin(losses))]
