"""How alike cell types are by their place in the ontology: personalised PageRank, levels, ancestor mask."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from sccello_tools.errors import OntologyError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from numpy.typing import ArrayLike, NDArray
    from scipy import sparse
    from scipy.sparse.linalg import SuperLU

    from .graph import CellOntology

_FLOOR: Final = 1e-4  # similarity of the lowest level (METHOD: Ontology)
_DROPPED_BITS: Final = (
    19  # of the 52 of a mantissa; what is left is good to 1e-10, the solve to about 1e-14
)
_BLOCK: Final = (
    256  # right-hand sides solved at a time, which bounds the memory for the whole graph
)

_FACTORS: WeakKeyDictionary[CellOntology, dict[float, SuperLU]] = WeakKeyDictionary()


def pagerank_rows(
    ontology: CellOntology,
    terms: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    damping: float = 0.9,
) -> NDArray[np.float64]:
    """Exact personalised PageRank over the undirected is_a graph, restarting at each of some terms.

    Row ``i`` is the stationary distribution of a walk that follows an edge with probability ``damping`` and else jumps back to
    ``terms[i]``: column ``terms[i]`` of ``(1 - damping) (I - damping A D^-1)^-1``, solved by sparse LU (METHOD: Ontology; arXiv
    2408.12373, section 3.2). A term without edges keeps its whole row to itself. Values are rounded to a relative 1e-10, so
    that terms that are alike by symmetry are equal on every machine, which ranks depend on.

    Parameters
    ----------
    ontology
        The graph: all current terms.
    terms
        Terms to restart at; obsolete ids stand for what replaces them.
    columns
        Terms to give the probability of, likewise; all of ``ontology.terms`` if not given.
    damping
        Probability of following an edge, in (0, 1).

    Returns
    -------
    Array of shape (n_terms, n_columns). A row over all terms sums to 1.

    Raises
    ------
    LabelError
        If a term is unknown, or obsolete without successor.

    Examples
    --------
    >>> from sccello_tools.ontology import CellOntology, pagerank_rows
    >>> ontology = CellOntology.load()
    >>> t_cell, b_cell, neuron = "CL:0000084", "CL:0000236", "CL:0000540"
    >>> pagerank_rows(ontology, [t_cell], columns=[t_cell, b_cell, neuron]).round(4)
    array([[0.1937, 0.003 , 0.    ]])
    """
    if not 0 < damping < 1:
        msg = f"damping is {damping}; expected is a probability between 0 and 1, such as 0.9"
        raise OntologyError(msg)
    place = {term: index for index, term in enumerate(ontology.terms)}
    starts = [place[ontology.current(term)] for term in terms]
    kept = slice(None) if columns is None else [place[ontology.current(term)] for term in columns]
    factor = _factor(ontology, damping)
    blocks = [np.zeros((0, len(place) if columns is None else len(columns)))]
    for first in range(0, len(starts), _BLOCK):
        block = starts[first : first + _BLOCK]
        restart = np.zeros((len(place), len(block)))
        restart[block, np.arange(len(block))] = 1 - damping
        blocks.append(factor.solve(restart)[kept].T)
    return _rounded(np.concatenate(blocks))


def similarity_levels(similarity: ArrayLike) -> NDArray[np.int8]:
    """Turn personalised PageRank into the levels of the ontology alignment loss (METHOD: Ontology).

    Parameters
    ----------
    similarity
        Probabilities, of any shape.

    Returns
    -------
    Array of the same shape: 1 below 1e-4, else ``floor(log2(p / 1e-4 + 1))``; at most 13.

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
    """Tell which types are ancestors of which (METHOD: Ontology).

    Parameters
    ----------
    ontology
        The ontology.
    rows, columns
        Terms; obsolete ids stand for what replaces them. ``columns`` are the rows' if not given.

    Returns
    -------
    Array of shape (n_rows, n_columns): true where the column's term is an ancestor of the row's, or is the same.

    Raises
    ------
    LabelError
        If a term is unknown, or obsolete without successor.

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
        above = ontology.ancestors(ontology.current(term), include_self=True)
        mask[index] = [column in above for column in of_column]
    return mask


def _factor(ontology: CellOntology, damping: float) -> SuperLU:
    """Factorise ``I - damping A D^-1``, once for an ontology and a damping."""
    known = _FACTORS.setdefault(ontology, {})
    if damping not in known:
        from scipy import sparse
        from scipy.sparse.linalg import splu

        adjacency = _adjacency(ontology)
        degree = np.asarray(adjacency.sum(axis=0)).ravel()
        # the walk stays where there is no edge, so that the term's own probability is 1
        stay = (degree == 0).astype(np.float64)
        walk = adjacency @ sparse.diags_array(1 / np.maximum(degree, 1)) + sparse.diags_array(stay)
        system = sparse.eye_array(len(degree)) - damping * walk
        # the pattern is symmetric and the columns are diagonally dominant: no pivoting is needed and the factors stay sparse
        known[damping] = splu(
            sparse.csc_array(system),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    return known[damping]


def _adjacency(ontology: CellOntology) -> sparse.csr_array:
    from scipy import sparse

    place = {term: index for index, term in enumerate(ontology.terms)}
    edges = [(place[term], place[parent]) for term in place for parent in ontology.parents(term)]
    child, parent = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    one_way = sparse.csr_array((np.ones(len(child)), (child, parent)), shape=(len(place),) * 2)
    return one_way + one_way.T


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to 33 bits of the mantissa, half up; on the bits, which is a tenth of the time that decimals take."""
    bits = np.ascontiguousarray(values).view(np.int64)
    half = np.int64(1) << (_DROPPED_BITS - 1)
    return ((bits + half) & ~(2 * half - 1)).view(np.float64)
