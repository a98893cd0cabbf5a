"""Semantic similarity of cell types: personalised PageRank, similarity levels, ancestor mask, Spearman scores."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from sccello_tools._threads import in_threads, n_cores
from sccello_tools.errors import ArgumentError, OntologyError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from numpy.typing import ArrayLike, NDArray
    from scipy import sparse
    from scipy.sparse.linalg import SuperLU

    from .graph import CellOntology

_FLOOR: Final = 1e-4  # similarity below which all pairs have level 1
_DROPPED_BITS: Final = 19  # of the 52-bit mantissa: the rest is exact to 1e-10, the solver to 1e-14
_BLOCK: Final = 256  # right-hand sides per solve, which bounds memory
_CHUNK: Final = 4096  # cells ranked at a time: 6.5 MB for the 398 published types
_ROWS_PER_THREAD: Final = 512

_FACTORS: WeakKeyDictionary[CellOntology, dict[float, SuperLU]] = WeakKeyDictionary()


def pagerank_rows(
    ontology: CellOntology,
    terms: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    damping: float = 0.9,
) -> NDArray[np.float64]:
    r"""Compute exact personalised PageRank on the undirected is_a graph.

    Row :math:`i` is the stationary distribution of a random walk that follows an edge with probability :math:`d` (``damping``) and
    restarts at ``terms[i]`` otherwise, that is, column ``terms[i]`` of

    .. math:: P = (1 - d)\,(I - d\,A D^{-1})^{-1}

    with the adjacency matrix :math:`A` and the diagonal matrix of degrees :math:`D`. It is solved by sparse LU decomposition. A term
    without edges has probability 1 of staying at itself. Values are rounded to a relative precision of 1e-10, so that terms that are
    equivalent by symmetry have identical values on every machine; ranks depend on it.

    Parameters
    ----------
    ontology
        Its current terms are the nodes.
    terms
        Terms to restart at; obsolete ids are replaced by their current ones.
    columns
        Terms to return the probability of; by default all of ``ontology.terms``.
    damping
        Probability of following an edge, in (0, 1).

    Returns
    -------
    Array of shape (n_terms, n_columns). A row over all terms sums to 1.

    Raises
    ------
    LabelError
        If a term is unknown, or obsolete without a replacement.
    OntologyError
        If ``damping`` is not in (0, 1).

    Notes
    -----
    arXiv 2408.12373 (structural similarity of the ontology alignment loss); see "Ontology similarity" in ``docs/how_it_works.md``.

    Examples
    --------
    >>> from sccello_tools.ontology import CellOntology, pagerank_rows
    >>> ontology = CellOntology.load()
    >>> t_cell, b_cell, neuron = "CL:0000084", "CL:0000236", "CL:0000540"
    >>> pagerank_rows(ontology, [t_cell], columns=[t_cell, b_cell, neuron]).round(4)
    array([[0.1937, 0.003 , 0.    ]])
    """
    if not 0 < damping < 1:
        msg = f"damping must be in (0, 1), got {damping}"
        raise OntologyError(msg)
    index = {term: i for i, term in enumerate(ontology.terms)}
    starts = [index[ontology.current(term)] for term in terms]
    kept = slice(None) if columns is None else [index[ontology.current(term)] for term in columns]
    factor = _factorize(ontology, damping)
    blocks = [np.zeros((0, len(index) if columns is None else len(columns)))]
    for first in range(0, len(starts), _BLOCK):
        block = starts[first : first + _BLOCK]
        restart = np.zeros((len(index), len(block)))
        restart[block, np.arange(len(block))] = 1 - damping
        blocks.append(factor.solve(restart)[kept].T)
    return _rounded(np.concatenate(blocks))


def similarity_levels(similarity: ArrayLike) -> NDArray[np.int8]:
    r"""Discretise personalised PageRank to the levels of the ontology alignment loss.

    .. math:: \ell = \lfloor \log_2(\max(p, 10^{-4}) / 10^{-4} + 1) \rfloor

    Parameters
    ----------
    similarity
        Probabilities, any shape.

    Returns
    -------
    Array of the same shape, int8, in 1 to 13.

    Notes
    -----
    arXiv 2408.12373; see "Ontology similarity" in ``docs/how_it_works.md``.

    Examples
    --------
    >>> from sccello_tools.ontology import similarity_levels
    >>> similarity_levels([0.00001, 0.0004, 0.2]).tolist()
    [1, 2, 10]
    """
    p = np.asarray(similarity, dtype=np.float64)
    levels = np.floor(np.log2(np.maximum(p, _FLOOR) / _FLOOR + 1))
    return levels.astype(np.int8)


def ancestor_mask(
    ontology: CellOntology, rows: Sequence[str], columns: Sequence[str] | None = None
) -> NDArray[np.bool_]:
    """Return a mask of ancestors among terms, as used by the ontology alignment loss (arXiv 2408.12373).

    Parameters
    ----------
    ontology
        The ontology.
    rows, columns
        Terms; obsolete ids are replaced by their current ones. ``columns`` defaults to ``rows``.

    Returns
    -------
    Array of shape (n_rows, n_columns): true where the term of the column is the term of the row or one of its ancestors.

    Raises
    ------
    LabelError
        If a term is unknown, or obsolete without a replacement.

    Examples
    --------
    >>> from sccello_tools.ontology import CellOntology, ancestor_mask
    >>> ancestor_mask(CellOntology.load(), ["CL:0000084", "CL:0000542"])  # T cell, lymphocyte
    array([[ True,  True],
           [False,  True]])
    """
    of_column = [ontology.current(term) for term in (rows if columns is None else columns)]
    mask = np.zeros((len(rows), len(of_column)), dtype=np.bool_)
    for index, term in enumerate(rows):
        ancestors = ontology.ancestors(ontology.current(term), include_self=True)
        mask[index] = [column in ancestors for column in of_column]
    return mask


def spearman_matrix(
    cells: ArrayLike, rows: ArrayLike, *, chunk_cells: int = _CHUNK
) -> NDArray[np.float32]:
    """Compute Spearman's correlation of each cell's similarities to known types with each candidate's PageRank row.

    This is the zero-shot score of unseen types (arXiv 2408.12373, novel cell type classification). Ties get their average rank, as in
    :func:`scipy.stats.spearmanr`. float32 input is compared in float32, anything else in float64.

    Parameters
    ----------
    cells
        Similarity of each cell to each known type, array of shape (n_cells, n_known).
    rows
        Similarity of each candidate to each known type, as from :func:`pagerank_rows`, array of shape (n_candidates, n_known).
    chunk_cells
        Number of cells ranked at a time, which bounds the memory beyond the result.

    Returns
    -------
    Array of shape (n_cells, n_candidates), float32, in [-1, 1]. NaN where a row contains NaN or is constant.

    Raises
    ------
    ArgumentError
        If the arrays are not two-dimensional with the same number of columns.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.ontology import spearman_matrix
    >>> spearman_matrix([[0.1, 0.2, 0.3]], [[1.0, 2.0, 9.0], [9.0, 2.0, 1.0]]).round(3)
    array([[ 1., -1.]], dtype=float32)
    """
    x, y = np.asarray(cells), np.asarray(rows)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        msg = (
            f"cells must have shape (n_cells, n_known) and rows (n_candidates, n_known), got {x.shape} and {y.shape}. "
            "Compute the rows with pagerank_rows(ontology, candidates, columns=known)."
        )
        raise ArgumentError(msg)
    out = np.empty((len(x), len(y)), dtype=np.float32)
    ranked = RankedRows(y)
    for first in range(0, len(x), chunk_cells):
        part = slice(first, first + chunk_cells)
        ranked.correlations(x[part], out=out[part])
    return out


class RankedRows:
    """Candidate rows with precomputed ranks, to be correlated with many blocks of cells.

    Parameters
    ----------
    rows
        Array of shape (n_candidates, n_known).
    """

    def __init__(self, rows: NDArray[np.floating]) -> None:
        self._ranks = _unit_ranks(rows).T

    def correlations(
        self, cells: NDArray[np.floating], *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return :func:`spearman_matrix` of (n_cells, n_known) and the rows."""
        found = np.matmul(_unit_ranks(cells), self._ranks, out=out)
        return np.clip(found, -1, 1, out=found)


def _factorize(ontology: CellOntology, damping: float) -> SuperLU:
    """Factorise ``I - damping A D^-1``; cached by ontology and damping."""
    known = _FACTORS.setdefault(ontology, {})
    if damping not in known:
        from scipy import sparse
        from scipy.sparse.linalg import splu

        adjacency = _adjacency(ontology)
        degree = np.asarray(adjacency.sum(axis=0)).ravel()
        # a walk without edges stays, so that the term's own probability is 1
        stay = (degree == 0).astype(np.float64)
        walk = adjacency @ sparse.diags_array(1 / np.maximum(degree, 1)) + sparse.diags_array(stay)
        system = sparse.eye_array(len(degree)) - damping * walk
        # the pattern is symmetric and columns are diagonally dominant: no pivoting is needed and the factors stay sparse
        known[damping] = splu(
            sparse.csc_array(system),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    return known[damping]


def _adjacency(ontology: CellOntology) -> sparse.csr_array:
    from scipy import sparse

    index = {term: i for i, term in enumerate(ontology.terms)}
    edges = [(index[term], index[parent]) for term in index for parent in ontology.parents(term)]
    child, parent = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    directed = sparse.csr_array((np.ones(len(child)), (child, parent)), shape=(len(index),) * 2)
    return directed + directed.T


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to 33 bits of the mantissa, half up; on the bits, which is ten times as fast as on decimals."""
    bits = np.ascontiguousarray(values).view(np.int64)
    half = np.int64(1) << (_DROPPED_BITS - 1)
    return ((bits + half) & ~(2 * half - 1)).view(np.float64)


def _unit_ranks(values: NDArray[np.generic]) -> NDArray[np.float32]:
    # imported on first use, because numba takes a second to import
    from ._rank_kernel import unit_ranks

    dtype = np.dtype(np.float32 if values.dtype == np.float32 else np.float64)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    sign, infinity = np.array([-0.0, np.inf], dtype=dtype).view(unsigned)
    bits = np.ascontiguousarray(values, dtype=dtype).view(unsigned)
    out = np.empty(values.shape, dtype=np.float32)
    in_threads(
        len(bits),
        lambda first, last: unit_ranks(bits[first:last], sign, infinity, out[first:last]),
        block=max(-(-len(bits) // n_cores()), _ROWS_PER_THREAD),
    )
    return out
