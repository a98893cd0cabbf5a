"""How well an embedding mixes batches and keeps types whole, as the paper scores it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import ArgumentError

from .classification import check_neighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray


class IntegrationScore(NamedTuple):
    """The paper's scores of batch mixing (arXiv 2408.12373, section 4.1)."""

    asw_batch: float
    """Mean over types of 1 - the absolute silhouette width by batch: 1 where batches are mixed."""

    graph_connectivity: float
    """Mean over types of the share of cells in the largest connected part of the type's neighbour graph."""

    avg_batch: float
    """Mean of the two."""


def integration_score(
    embedding: NDArray[np.floating],
    cell_types: NDArray[np.str_],
    batches: NDArray[np.str_],
    *,
    n_neighbors: int = 15,
) -> IntegrationScore:
    """Score how well an embedding mixes batches.

    Parameters
    ----------
    embedding
        Shape (n_cells, d). Rows with NaN are left out.
    cell_types
        Types, shape (n_cells,).
    batches
        Donors, studies or techniques, shape (n_cells,).
    n_neighbors
        Neighbours in the graph.

    Returns
    -------
    Silhouette by batch, graph connectivity and their mean.

    Raises
    ------
    ValueError
        If shapes do not fit, there are fewer than two batches, or no type has cells of two.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import integration_score
    >>> rng = np.random.default_rng(0)
    >>> points, batch = rng.normal(size=(200, 5)), rng.choice(["one", "two"], 200)
    >>> integration_score(points, np.full(200, "T cell"), batch).avg_batch > 0.95
    True
    """
    from scipy.sparse.csgraph import connected_components
    from sklearn.metrics import silhouette_samples
    from sklearn.neighbors import kneighbors_graph

    if not len(embedding) == len(cell_types) == len(batches):
        msg = f"{len(embedding)} cells, but {len(cell_types)} types and {len(batches)} batches. Expected is one of each a cell: pass the same cells in the same order."
        raise ArgumentError(msg)
    check_neighbors(n_neighbors)
    usable = np.isfinite(embedding).all(axis=1)
    points = embedding[usable]
    types, batches = (np.asarray(a)[usable].astype(str) for a in (cell_types, batches))
    if len(np.unique(batches)) < 2:
        msg = f"Mixing compares batches, found {np.unique(batches).tolist()}; at least two are needed. Pass more cells, or another column of batches."
        raise ArgumentError(msg)
    graph = kneighbors_graph(points, min(n_neighbors, len(points) - 1))
    mixed, whole = [], []
    for cell_type in np.unique(types):
        rows = np.flatnonzero(types == cell_type)
        _, part = connected_components(graph[rows][:, rows], directed=False)
        whole.append(np.bincount(part).max() / len(rows))
        if 1 < len(np.unique(batches[rows])) < len(rows):
            mixed.append(1 - np.abs(silhouette_samples(points[rows], batches[rows])).mean())
    if not mixed:
        msg = "No cell type has cells of two batches, so mixing cannot be told from type. Pass batches that share types."
        raise ArgumentError(msg)
    return IntegrationScore(
        float(np.mean(mixed)),
        float(np.mean(whole)),
        float(np.mean([np.mean(mixed), np.mean(whole)])),
    )
