"""Agreement of the distances between cell types in an embedding with their distances in the Cell Ontology."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from sccello_tools.errors import ArgumentError

if TYPE_CHECKING:
    from typing import Final

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

_RESTART: Final = 0.7  # restart probability, number of dimensions and trimming as published
_N_DIMENSIONS: Final = 256
_TRIMMED: Final = 0.2
_MIN_TYPES: Final = 3  # for two types every correlation is 1

_VECTORS: WeakKeyDictionary[CellOntology, NDArray[np.float64]] = WeakKeyDictionary()


class OntologyStructureScore(NamedTuple):
    """Agreement of an embedding with the structure of the Cell Ontology."""

    score: float
    """Mean of the correlations of all types, in [-1, 1]."""

    by_type: dict[str, float]
    """Pearson correlation of each type's distances to all types, by Cell Ontology id."""

    n_cells: int
    """Number of cells of these types."""


def scgraph_onto_rwr(
    embedding: NDArray[np.floating],
    cell_types: NDArray[np.str_],
    ontology: CellOntology,
    *,
    min_cells: int = 10,
) -> OntologyStructureScore:
    r"""Compare the distances between cell types in an embedding with those in the Cell Ontology (scGraph-OntoRWR).

    Parameters
    ----------
    embedding
        Array of shape (n_cells, d). Rows with NaN are ignored.
    cell_types
        Cell Ontology ids, shape (n_cells,). Cells with "" are ignored.
    ontology
        Ontology of the types; obsolete ids are replaced by their current ones.
    min_cells
        Types with fewer cells are ignored.

    Returns
    -------
    The mean over types, and the correlation of each type.

    Raises
    ------
    ArgumentError
        If the inputs differ in length, or fewer than three types have enough cells.
    LabelError
        If a term is unknown.

    Notes
    -----
    With :math:`c_t` the mean of the cells of type :math:`t` in each dimension without the lowest and the highest 20 %, the distances
    in the embedding are :math:`\lVert c_s - c_t \rVert_2`. Those in the ontology are :math:`\lVert v_s - v_t \rVert_2`: row :math:`s`
    of :math:`Q` is the stationary distribution of a random walk on the undirected is_a graph that restarts at :math:`s` with
    probability 0.7, and with :math:`n` terms and the singular value decomposition

    .. math:: \log\left(Q + n^{-2}\right) - \log n^{-2} = U \Sigma V^\top

    :math:`v` are the rows of :math:`U \Sigma^{1/2}` for the 256 largest singular values. A type scores the Pearson correlation of its
    two columns of distances, in which its distance of 0 to itself is included. An embedding in which all types are equally far apart
    therefore scores above 0 as well: compare embeddings of the same cells rather than single values.

    The score follows Wu et al., Biology-driven insights into the power of single-cell foundation models, Genome Biology 26
    (2025), doi 10.1186/s13059-025-03781-6 (PMC12492631). Two details differ from the published values: is_a edges have equal
    weights instead of the similarity of the embedded names of the two terms, which needs a language model, and :math:`Q` is solved
    exactly instead of by iteration.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> from sccello_tools.ontology import CellOntology
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> sccello.tl.embed(adata)
    >>> types = adata.obs["cell_type_ontology_term_id"].to_numpy(dtype=str)
    >>> found = sccello.metrics.scgraph_onto_rwr(adata.obsm["X_sccello"], types, CellOntology.load())
    >>> -1 <= found.score <= 1, len(found.by_type)
    (True, 4)
    """
    from scipy.stats import trim_mean

    given = np.asarray(cell_types, dtype=str)
    points = np.asarray(embedding, dtype=np.float64)
    if points.ndim != 2 or len(points) != len(given):
        msg = f"embedding has shape {points.shape}, cell_types has {len(given)} entries. Pass an array of shape (n_cells, d) and the types of the same cells."
        raise ArgumentError(msg)
    usable = (given != "") & np.isfinite(points).all(axis=1)
    names, codes = np.unique(given[usable], return_inverse=True)
    terms, merged = np.unique([ontology.current(name) for name in names], return_inverse=True)
    codes, points = merged[codes], points[usable]
    counts = np.bincount(codes, minlength=len(terms))
    kept = np.flatnonzero(counts >= min_cells)
    if len(kept) < _MIN_TYPES:
        msg = f"{len(kept)} cell types have at least {min_cells} cells, required are {_MIN_TYPES}. Pass more cells, or a smaller min_cells."
        raise ArgumentError(msg)
    centroids = np.stack([trim_mean(points[codes == code], _TRIMMED) for code in kept])
    index = {term: i for i, term in enumerate(ontology.terms)}
    vectors = _term_vectors(ontology)[[index[terms[code]] for code in kept]]
    correlations = _correlations(_distances(centroids), _distances(vectors))
    return OntologyStructureScore(
        float(correlations.mean()),
        {str(terms[code]): float(r) for code, r in zip(kept, correlations)},
        int(counts[kept].sum()),
    )


def _distances(points: NDArray[np.floating]) -> NDArray[np.float64]:
    from scipy.spatial.distance import pdist, squareform

    found: NDArray[np.float64] = squareform(pdist(points))
    return found


def _correlations(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of each pair of columns; NaN for constant columns."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = np.where(lengths > 0, (a * b).sum(axis=0) / lengths, np.nan)
    return found


def _term_vectors(ontology: CellOntology) -> NDArray[np.float64]:
    """Vectors of all terms, shape (n_terms, at most 256); computed once per ontology."""
    if ontology not in _VECTORS:
        from scipy.linalg import eigh

        from sccello_tools.ontology import pagerank_rows

        walk = pagerank_rows(ontology, ontology.terms, damping=1 - _RESTART)
        n = len(walk)
        logs = np.log1p(walk * n**2)
        # left singular vectors and squared singular values
        first = max(n - _N_DIMENSIONS, 0)
        squares, vectors = eigh(logs @ logs.T, subset_by_index=(first, n - 1))
        _VECTORS[ontology] = vectors * np.maximum(squares, 0) ** 0.25
    return _VECTORS[ontology]
