"""Cell-type separation and batch mixing of an embedding, as the scCello paper measures them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools._random import seed_of
from sccello_tools._validation import check_at_least
from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from igraph import Graph
    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike

_RESOLUTIONS = np.linspace(0.1, 2.0, 20)  # as in the paper


class ClusteringScore(NamedTuple):
    """Cell-type separation of an embedding."""

    nmi: float
    """Normalised mutual information of cell types and Louvain clusters at the best resolution."""

    ari: float
    """Adjusted Rand index at the same resolution."""

    asw: float
    """(silhouette width by cell type + 1) / 2, mean over cells."""

    avg_bio: float
    """AvgBio: mean of NMI, ARI and ASW."""

    resolution: float
    """Louvain resolution that maximises NMI."""


class IntegrationScore(NamedTuple):
    """Batch mixing of an embedding."""

    asw_batch: float
    """Mean over cell types of 1 minus the absolute silhouette width by batch; 1 if batches are mixed."""

    graph_connectivity: float
    """Mean over cell types of the fraction of cells in the largest connected component of the type's neighbour graph."""

    avg_batch: float
    """AvgBatch: mean of the two."""


def clustering_score(
    embedding: NDArray[np.floating],
    cell_types: NDArray[np.str_],
    *,
    n_neighbors: int = 15,
    rng: RNGLike = 0,
) -> ClusteringScore:
    r"""Quantify how well an embedding separates cell types.

    Louvain clusters of the neighbour graph are compared with the cell types at the resolution :math:`r \in \{0.1, 0.2, \dots, 2.0\}`
    that maximises the normalised mutual information:

    .. math:: \mathrm{AvgBio} = \tfrac{1}{3}\left(\mathrm{NMI} + \mathrm{ARI} + \tfrac{1}{2}(\mathrm{ASW} + 1)\right)

    Parameters
    ----------
    embedding
        Array of shape (n_cells, d). Rows with NaN are ignored.
    cell_types
        Cell types, shape (n_cells,).
    n_neighbors
        Number of neighbours in the graph.
    rng
        Seed or generator for the order in which Louvain visits cells.

    Returns
    -------
    NMI, ARI, ASW, their mean, and the resolution.

    Raises
    ------
    ArgumentError
        If lengths differ, there are fewer than two cell types, no cell type has more than one cell, or ``n_neighbors`` < 1.

    Notes
    -----
    arXiv 2408.12373, zero-shot cell type clustering; the graph is that of :func:`scanpy.pp.neighbors`.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import clustering_score
    >>> rng = np.random.default_rng(0)
    >>> blobs = np.concatenate([rng.normal(center, 0.1, (40, 2)) for center in (0, 5)])
    >>> clustering_score(blobs, np.repeat(["a", "b"], 40)).nmi > 0.99
    True
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

    if len(embedding) != len(cell_types):
        msg = f"embedding has {len(embedding)} rows, cell_types has {len(cell_types)}. Pass the same cells in the same order."
        raise ArgumentError(msg)
    check_at_least("n_neighbors", n_neighbors, 1)
    seed = seed_of(rng)
    usable = np.isfinite(embedding).all(axis=1)
    embedding, cell_types = embedding[usable], np.asarray(cell_types)[usable].astype(str)
    types = np.unique(cell_types)
    if len(types) < 2:
        msg = f"At least two cell types are required, got {types.tolist()}. Pass more cells or another column."
        raise ArgumentError(msg)
    if len(types) == len(cell_types):
        msg = f"Each of the {len(cell_types)} cells has its own cell type; types with several cells are required. Pass a column that groups cells."
        raise ArgumentError(msg)
    graph = _neighbor_graph(embedding, min(n_neighbors, len(embedding) - 1), seed)
    best = (-1.0, 0.0, 0.0)
    for resolution in _RESOLUTIONS:
        clusters = _louvain(graph, float(resolution), seed)
        nmi = float(normalized_mutual_info_score(cell_types, clusters))
        if nmi > best[0]:
            best = (nmi, float(adjusted_rand_score(cell_types, clusters)), float(resolution))
    asw = (float(silhouette_score(embedding, cell_types)) + 1) / 2
    return ClusteringScore(best[0], best[1], asw, float(np.mean([best[0], best[1], asw])), best[2])


def integration_score(
    embedding: NDArray[np.floating],
    cell_types: NDArray[np.str_],
    batches: NDArray[np.str_],
    *,
    n_neighbors: int = 15,
) -> IntegrationScore:
    """Quantify how well an embedding mixes batches within cell types.

    Parameters
    ----------
    embedding
        Array of shape (n_cells, d). Rows with NaN are ignored.
    cell_types
        Cell types, shape (n_cells,).
    batches
        Donors, studies or technologies, shape (n_cells,).
    n_neighbors
        Number of neighbours in the graph.

    Returns
    -------
    Silhouette width by batch, graph connectivity and their mean.

    Raises
    ------
    ArgumentError
        If lengths differ, there are fewer than two batches, or no cell type has cells of two batches.

    Notes
    -----
    arXiv 2408.12373, batch integration: AvgBatch = (ASW_batch + GraphConnectivity) / 2.

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
        msg = f"embedding has {len(embedding)} rows, cell_types has {len(cell_types)} and batches has {len(batches)}. Pass the same cells in the same order."
        raise ArgumentError(msg)
    check_at_least("n_neighbors", n_neighbors, 1)
    usable = np.isfinite(embedding).all(axis=1)
    points = embedding[usable]
    types, batches = (np.asarray(a)[usable].astype(str) for a in (cell_types, batches))
    if len(np.unique(batches)) < 2:
        msg = f"At least two batches are required, got {np.unique(batches).tolist()}. Pass more cells or another column."
        raise ArgumentError(msg)
    graph = kneighbors_graph(points, min(n_neighbors, len(points) - 1))
    mixing, connectivity = [], []
    for cell_type in np.unique(types):
        rows = np.flatnonzero(types == cell_type)
        _, component = connected_components(graph[rows][:, rows], directed=False)
        connectivity.append(np.bincount(component).max() / len(rows))
        if 1 < len(np.unique(batches[rows])) < len(rows):
            mixing.append(1 - np.abs(silhouette_samples(points[rows], batches[rows])).mean())
    if not mixing:
        msg = "No cell type has cells of two batches, so batch effects cannot be separated from cell types. Pass batches that share cell types."
        raise ArgumentError(msg)
    means = [float(np.mean(mixing)), float(np.mean(connectivity))]
    return IntegrationScore(means[0], means[1], float(np.mean(means)))


def _neighbor_graph(embedding: NDArray[np.floating], n_neighbors: int, seed: int) -> Graph:
    """Build the weighted neighbour graph of UMAP, as scanpy does."""
    from igraph import Graph
    from scipy.sparse import triu
    from sklearn.neighbors import NearestNeighbors
    from umap.umap_ import fuzzy_simplicial_set

    distances, indices = (
        NearestNeighbors(n_neighbors=n_neighbors).fit(embedding).kneighbors(embedding)
    )
    weights, *_ = fuzzy_simplicial_set(
        embedding,
        n_neighbors,
        np.random.RandomState(seed),
        "euclidean",
        knn_indices=indices,
        knn_dists=distances.astype(np.float32),
    )
    upper = triu(weights, k=1).tocoo()
    graph = Graph(n=len(embedding), edges=np.column_stack([upper.row, upper.col]).tolist())
    graph.es["weight"] = upper.data.astype(float)
    return graph


def _louvain(graph: Graph, resolution: float, seed: int) -> list[int]:
    import random

    from igraph import set_random_number_generator

    # igraph has one global generator; restore Python's own afterwards
    set_random_number_generator(random.Random(seed))
    try:
        membership: list[int] = graph.community_multilevel(
            weights="weight", resolution=resolution
        ).membership
    finally:
        set_random_number_generator(random)
    return membership
