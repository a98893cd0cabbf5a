"""The published evaluation of novel cell types (arXiv 2408.12373, section 4.3): accuracy by fraction of candidate types."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .zero_shot import Candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike
    from sccello_tools.ontology import CellOntology


class ProtocolScore(NamedTuple):
    """Scores at one fraction of candidate types."""

    fraction: float
    """Fraction of the candidate types that were kept."""
    accuracy: float
    """Mean accuracy over draws."""
    macro_f1: float
    """Mean over draws of the macro-averaged F1."""
    accuracy_std: float
    """Standard deviation over draws."""
    macro_f1_std: float
    """Standard deviation over draws."""


def closed_set_protocol(
    cells: NDArray[np.float32],
    truth: Sequence[str],
    prototypes: NDArray[np.float32],
    types: Sequence[str],
    ontology: CellOntology,
    *,
    fractions: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 1.0),
    n_draws: int = 20,
    rng: RNGLike = 0,
) -> list[ProtocolScore]:
    """Assign cells of unseen types to one of a random subset of the unseen types.

    Parameters
    ----------
    cells
        (n_cells, d) unit vectors of ``representation="cell"``.
    truth
        (n_cells,) their Cell Ontology ids, which are also the candidates.
    prototypes
        (n_types, d) of the known types.
    types
        (n_types,) their ids.
    ontology
        Cell Ontology.
    fractions
        Fractions of the candidate types to keep; cells of the other types are left out of a draw.
    n_draws
        Number of draws per fraction; a single one for fraction 1.
    rng
        Seed or generator of the draws.

    Returns
    -------
    One row per fraction.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.annotation import closed_set_protocol
    >>> from sccello_tools.ontology import CellOntology
    >>> known, unseen = ["CL:0000624", "CL:0000540", "CL:0000236"], ["CL:0000625", "CL:0000127"]
    >>> cells = np.array([[1, 0, 0.5], [0, 1, 0.1]], dtype=np.float32)
    >>> rows = closed_set_protocol(cells, unseen, np.eye(3, dtype=np.float32), known, CellOntology.load(), fractions=[1.0])
    >>> rows[0].accuracy
    1.0
    """
    from sklearn.metrics import f1_score

    truths = np.asarray(truth)
    names = np.unique(truths)
    generator = np.random.default_rng(rng)
    scores = Candidates.of(names.tolist(), types, ontology).scores(cells @ prototypes.T)
    found = []
    for fraction in fractions:
        n_kept = max(2, round(fraction * len(names)))
        accuracies, f1s = [], []
        for _ in range(n_draws if n_kept < len(names) else 1):
            kept = np.sort(generator.choice(len(names), n_kept, replace=False))
            rows = np.isin(truths, names[kept])
            predicted = names[kept][scores[rows][:, kept].argmax(axis=1)]
            accuracies.append(float((predicted == truths[rows]).mean()))
            f1s.append(float(f1_score(truths[rows], predicted, average="macro")))
        found.append(
            ProtocolScore(
                fraction,
                float(np.mean(accuracies)),
                float(np.mean(f1s)),
                float(np.std(accuracies)),
                float(np.std(f1s)),
            )
        )
    return found
