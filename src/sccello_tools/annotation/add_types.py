"""Add known types to a model from a few labelled cells of each, without training its network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools._messages import listed
from sccello_tools.errors import LabelError

from .classifier import TypeDistances
from .head import softmax
from .known_types import mean_directions
from .term_space import lin_similarity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .evidence_fit import EvidenceFit
    from .known_types import KnownTypes

_FEWEST = 5
_PENALTY = 100.0  # as in KnownTypes.fit
_N_DRAWN = 30  # points sampled for each known type
_RELATED = 6  # power of the Lin similarity that weights related types


class NewCells(NamedTuple):
    """Cells of new types."""

    hidden: NDArray[np.float32]
    """(n_cells, d) of ``representation="cls"``, finite."""
    cells: NDArray[np.float32]
    """(n_cells, d) of ``representation="cell"``."""
    types: NDArray[np.str_]
    """(n_cells,) current terms, or user-defined names."""


def add_types(
    fit: EvidenceFit,
    cells: NewCells,
    ontology: CellOntology,
    *,
    parents: Mapping[str, str],
    cell_representation: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    seed: int = 0,
) -> EvidenceFit:
    """Add known types; the parameters of the other types do not change.

    Only the classifier's rows of the new types are fitted, by logistic regression against points sampled from the normal distributions of
    the known types (their means and the covariance within types), so the order among known types is preserved. For a fit of prototypes, the
    mean directions of the new types become prototypes. The typical novelty of a new type is estimated from related types.
    Temperatures and thresholds do not change.

    Parameters
    ----------
    fit
        Fit to extend.
    cells
        Cells of the new types.
    ontology
        Cell Ontology.
    parents
        Parent term of each user-defined name.
    cell_representation
        From (n, d) ``cls`` rows to ``cell`` rows, as the model computes it.
    seed
        Seed of the sampled points.

    Raises
    ------
    LabelError
        If there is no type, or one is already known or has fewer than five cells.
    """
    known = fit.known
    new = tuple(sorted(set(cells.types.tolist())))
    if not new:
        msg = "No cell has a type and an embedding, so there is nothing to add. Check the column of labels, and pass cells with raw counts."
        raise LabelError(msg)
    if twice := sorted(set(new) & set(known.types)):
        msg = f"{len(twice)} types are already known to the model: {listed(twice)}. Omit their cells, or give them another name with a parent."
        raise LabelError(msg)
    index = np.searchsorted(np.array(new), cells.types)
    counts = np.bincount(index, minlength=len(new))
    if few := [f"{name} ({n})" for name, n in zip(new, counts) if n < _FEWEST]:
        msg = f"{len(few)} types have fewer than {_FEWEST} cells: {listed(few)}. A type needs at least {_FEWEST}; merge or omit them."
        raise LabelError(msg)
    prototypes = mean_directions(cells.cells, index, len(new))
    if known.distances_of == "cell":
        d = prototypes.shape[1]
        weight = np.zeros((len(new), known.weight.shape[1]), dtype=np.float32)
        lengths = np.linalg.norm(known.weight[:, d:], axis=1)
        weight[:, d:] = prototypes * lengths.mean()
        bias = np.zeros(len(new), dtype=np.float32)
        scale = np.linalg.norm(known.distances.centres, axis=1).mean()
        centres = (prototypes * scale).astype(np.float32)
    else:
        points = (cells.hidden - known.scale.mean) / known.scale.spread
        means = np.stack([points[index == k].mean(axis=0) for k in range(len(new))])
        centres = (means @ known.distances.whitening).astype(np.float32)
        old, old_types = _drawn(known, cell_representation, np.random.default_rng(seed))
        features = known.scale.features(cells.hidden, cells.cells)
        weight, bias = _fit_rows(known, old, old_types, features, index, len(new))
    own_parents = {name: parents[name] for name in new if name in parents}
    placed = [own_parents.get(name, name) for name in new]
    among = [fit.parents.get(name, name) for name in known.types]
    related = np.maximum(lin_similarity(placed, among, ontology), 0) ** _RELATED + 1e-3
    offsets = (related @ fit.novelty.offsets) / related.sum(axis=1)
    tissues = fit.tissues
    if tissues is not None:
        usual = np.ones((len(tissues.names), len(new)), dtype=np.float32)
        tissues = replace(tissues, weights=np.hstack([tissues.weights, usual]))
    return replace(
        fit,
        known=replace(
            known,
            types=(*known.types, *new),
            weight=np.concatenate([known.weight, weight]),
            bias=np.concatenate([known.bias, bias]),
            prototypes=np.concatenate([known.prototypes, prototypes]),
            distances=TypeDistances(
                known.distances.whitening, np.concatenate([known.distances.centres, centres])
            ),
        ),
        novelty=replace(
            fit.novelty,
            offsets=np.concatenate([fit.novelty.offsets, offsets]).astype(np.float32),
        ),
        counts=np.concatenate([fit.counts, counts]).astype(np.int64)
        if len(fit.counts)
        else fit.counts,
        parents={**fit.parents, **own_parents},
        tissues=tissues,
    )


def _drawn(
    known: KnownTypes,
    cell_representation: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Sample points from the distributions of the known types; return their features and types."""
    types = np.repeat(np.arange(len(known.types)), _N_DRAWN)
    white = known.distances.centres[types] + rng.standard_normal(
        (len(types), known.distances.centres.shape[1])
    )
    points = np.linalg.solve(known.distances.whitening.T.astype(float), white.T).T
    hidden = (points * known.scale.spread + known.scale.mean).astype(np.float32)
    return known.scale.features(hidden, cell_representation(hidden)), types


def _fit_rows(
    known: KnownTypes,
    old: NDArray[np.float32],
    old_types: NDArray[np.intp],
    new: NDArray[np.float32],
    new_types: NDArray[np.intp],
    n_new: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit weights and biases of new rows of a softmax whose other rows are constant; convex."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    n_known = len(known.types)
    features = np.concatenate([old, new]).astype(np.float64)
    constant = features @ known.weight.T.astype(np.float64) + known.bias
    fixed = logsumexp(constant, axis=1)
    # sampled points count for all known types together; those whose own type is improbable are left out
    is_new = np.arange(len(features)) >= len(old)
    right = (
        softmax(constant[: len(old)].astype(np.float32))[np.arange(len(old)), old_types]
        > 1 / n_known
    )
    kept = np.concatenate([right, np.ones(len(new), dtype=bool)])
    truth = np.concatenate([np.full(len(old), -1), new_types])
    counts = np.bincount(np.concatenate([old_types, new_types + n_known]))
    sizes = counts[np.concatenate([old_types, new_types + n_known])]
    weights = sizes.astype(float) ** -0.5 * kept
    weights /= weights[kept].mean()
    width = features.shape[1]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(n_new, width + 1)
        logits = features @ table[:, :width].T + table[:, width]
        total = logsumexp(np.concatenate([fixed[:, None], logits], axis=1), axis=1)
        own = fixed.copy()
        own[is_new] = logits[is_new, truth[is_new]]
        residuals = np.exp(logits - total[:, None])
        residuals[is_new, truth[is_new]] -= 1
        residuals *= weights[:, None]
        gradient = np.empty_like(table)
        gradient[:, :width] = residuals.T @ features + _PENALTY * table[:, :width]
        gradient[:, width] = residuals.sum(axis=0)
        penalty = 0.5 * _PENALTY * (table[:, :width] ** 2).sum()
        return float((weights * (total - own)).sum() + penalty), gradient.ravel()

    start = np.zeros((n_new, width + 1))
    start[:, width] = fixed.mean() - np.log(len(features))
    best = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    table = best.x.reshape(n_new, width + 1).astype(np.float32)
    return table[:, :width], table[:, width]
