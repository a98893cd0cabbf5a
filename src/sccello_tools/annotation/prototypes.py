"""Annotation with the prototypes of a model that was not calibrated on labelled cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import LabelError

from .classifier import TypeDistances
from .features import FeatureScale
from .known_types import CLASSIFIER_TEMPERATURE, KnownTypes

if TYPE_CHECKING:
    from sccello_tools.models import Prototypes

    from .evidence_fit import EvidenceFit


def fit_of_prototypes(prototypes: Prototypes, defaults: EvidenceFit) -> EvidenceFit:
    r"""Return an uncalibrated fit whose known types are those of the learnt prototypes.

    Probabilities of the known types are :math:`\mathrm{softmax}(\cos(z, p_t) / \tau)`, as in the coherence loss of scCello. Squared
    distances are :math:`2 (1 - \cos(z, p_t)) / g`, where g is the median over prototypes of one minus the cosine to the nearest other
    one, so that they are of the order of Mahalanobis distances per dimension.

    Parameters
    ----------
    prototypes
        Known types with unit vectors.
    defaults
        Fit of another model, whose evidence weights, temperatures and thresholds are used.

    Raises
    ------
    LabelError
        If there are fewer than two prototypes.
    """
    vectors = prototypes.vectors
    n, d = vectors.shape
    if n < 2:
        msg = f"The model has {n} labelled prototypes; annotation needs at least two known types. Add types with tl.calibrate."
        raise LabelError(msg)
    types = tuple(prototypes.ids)
    # features are [scaled cls, sqrt(d) cell]: the product with these weights is cosine / tau
    weight = np.zeros((n, 2 * d), dtype=np.float32)
    weight[:, d:] = vectors * (CLASSIFIER_TEMPERATURE / (prototypes.tau * np.sqrt(d)))
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    gap = max(float(np.median(1 - cosines.max(axis=1))), 1e-6)
    scale = np.sqrt(d / gap)  # distances are divided by the dimension
    known = KnownTypes(
        types,
        FeatureScale(np.zeros(d, dtype=np.float32), np.ones(d, dtype=np.float32)),
        weight,
        np.zeros(n, dtype=np.float32),
        vectors,
        TypeDistances(
            np.eye(d, dtype=np.float32) * np.float32(scale), (vectors * scale).astype(np.float32)
        ),
        "cell",
    )
    usual = float(defaults.novelty.offsets.mean())
    return replace(
        defaults,
        known=known,
        novelty=replace(defaults.novelty, offsets=np.full(n, usual, dtype=np.float32)),
        counts=np.zeros(n, dtype=np.int64),
        prefers_subtypes=False,
        token_range=(0.0, float("inf")),
        parents={},
        tissues=None,
        calibrated=False,
    )
