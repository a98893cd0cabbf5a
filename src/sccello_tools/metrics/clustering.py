"""How well an embedding separates cell types, as the paper scores it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import ArgumentError

from .classification import check_neighbors

if TYPE_CHECKING:
    from igraph import Graph
    from numpy.typing import NDArray

_RESOLUTIONS = np.linspace(0.1, 2.0, 20)  # the paper's scan


class ClusteringScore(NamedTuple):
    """The paper's scores of an embedding (arXiv 2408.12373, section 4.1)."""

    nmi: float
    """Normalised mutual information between types and Louvain clusters, at the best resolution."""

    ari: float
    """Adjusted Rand index at the same resolution."""

    asw: float
    """Mean silhouette width by type, (silhouette + 1) / 2."""

    avg_bio: float
    """Mean of the three."""

    resolution: float
    """Louvain resolution that maximises NMI."""


def clustering_score(
    embedding: NDArray[np.floating],
    cell_types: NDArray[np.str_],
    *,
    n_neighbors: int = 15,
    seed: int = 0,
) -> ClusteringScore:
    """Score how well an embedding separates cell types.

    Louvain clusters of the neighbour graph are compared with the types at the resolution, of 0.1, 0.2, ..., 2.0, that maximises NMI.

    Parameters
    ----------
    embedding
        Shape (n_cells, d). Rows with NaN are left out.
    cell_types
        Types, shape (n_cells,).
    n_neighbors
        Neighbours in the graph.
    seed
        Of Louvain's order of visits.

    Returns
    -------
    NMI, ARI, ASW and their mean.

    Raises
    ------
    ValueError
        If there are fewer than two types, no type has more than one cell, or there are to be no neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.metrics import clustering_score
    >>> rng = np.random.default_rng(0)
    >>> blobs = np.concatenate([rng.normal(centre, 0.1, (40, 2)) for centre in (0, 5)])
    >>> clustering_score(blobs, np.repeat(["a", "b"], 40)).nmi > 0.99
    True
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

    if len(embedding) != len(cell_types):
        msg = f"{len(embedding)} cells, but {len(cell_types)} cell types. Expected is one a cell: pass the same cells in the same order."
        raise ArgumentError(msg)
    check_neighbors(n_neighbors)
    usable = np.isfinite(embedding).all(axis=1)
    embedding, cell_types = embedding[usable], np.asarray(cell_types)[usable].astype(str)
    types = np.unique(cell_types)
    if len(types) < 2:
        msg = f"Scores compare cell types, found {types.tolist()}; at least two are needed. Pass more cells, or another column of types."
        raise ArgumentError(msg)
    if len(types) == len(cell_types):
        msg = f"Each of the {len(cell_types)} cells has a type of its own; expected are types of several cells. Pass a column that groups cells."
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


def _neighbor_graph(embedding: NDArray[np.floating], n_neighbors: int, seed: int) -> Graph:
    """Build UMAP's weighted neighbour graph, which is also scanpy's."""
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

    # igraph draws from one global source; give it ours, then Python's own back
    set_random_number_generator(random.Random(seed))
    try:
        membership: list[int] = graph.community_multilevel(
            weights="weight", resolution=resolution
        ).membership
    finally:
        set_random_number_generator(random)
    return membership
