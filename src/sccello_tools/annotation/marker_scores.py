"""Marker evidence: how strongly the published marker genes of Cell Ontology terms are expressed in each cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from sccello_tools._threads import in_threads, n_cores
from sccello_tools.errors import ArgumentError
from sccello_tools.tokens import VOCABULARY_SIZE, GeneVocabulary

from .markers import GENE, TERM
from .term_space import siblings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

    from .markers import CellMarkers

_RESOURCE = "expression_background.npz"
# added to the sd of log expression, which is near 0 for genes that are rarely detected
_SD_OFFSET = 0.1
_N_MARKERS = 150  # maximum number of markers of a term: those of highest weight
_N_SPECIFIC = 60  # maximum number of markers that distinguish a term from its siblings
_N_SETS = 3
_MIN_MEASURED = 3  # minimum number of measured markers of a scored term
_ROWS_PER_THREAD = 512
N_TOP: Final = 3
"""Number of highest t-values whose mean scales the marker evidence of a cell."""


class Background(NamedTuple):
    """Mean and standard deviation of log1p(counts per 10,000) by token, over a broad range of cell types."""

    mean: NDArray[np.float32]
    """(n_tokens,)"""
    sd: NDArray[np.float32]
    """(n_tokens,); 0 for genes without background."""

    @classmethod
    @cache
    def load(cls) -> Background:
        """Read the packaged background."""
        with (
            as_file(files("sccello_tools.resources").joinpath(_RESOURCE)) as path,
            np.load(path) as arrays,
        ):
            return cls(arrays["mean"].astype(np.float32), arrays["sd"].astype(np.float32))


class MarkerScores(NamedTuple):
    """Marker evidence for some cells; NaN for cells without counts."""

    own: NDArray[np.float32]
    """(n_cells, n_terms) t-values of all positive markers."""
    specific: NDArray[np.float32]
    """(n_cells, n_terms) t-values of the markers that distinguish a term from its siblings."""
    negative: NDArray[np.float32]
    """(n_cells, n_terms) t-values of the negative markers: high values are evidence against the term."""


@dataclass(frozen=True, eq=False)
class MarkerScorer:
    r"""Univariate linear model of standardised expression on the marker weights of each term.

    For a cell with log-normalised expression :math:`x_g = \log(1 + 10^4 c_g / \sum c)` let
    :math:`z_g = \mathrm{clip}((x_g - \mu_g) / (\sigma_g + 0.1), -1, 6)`, with mean and standard deviation over a broad range of
    cell types. The score of a term with weights :math:`w` (0 for genes that are not markers) is the t-value of the slope in
    :math:`z = a + b w` over all N measured genes, :math:`t = r \sqrt{(N - 2) / (1 - r^2)}` with the correlation
    :math:`r = \mathrm{cor}(z, w)`, as in the ULM method of decoupler. Each cell is scored by itself: its scores do not depend on the
    other cells. Only measured genes are used, so gene panels can be scored as well.
    """

    terms: tuple[str, ...]
    entry_starts: NDArray[np.int32]
    """(n_tokens + 1,)"""
    entry_terms: NDArray[np.int32]
    """(n_entries,) index of the term."""
    entry_weights: NDArray[np.float32]
    """(n_entries, 4): all positive markers, specific markers, negative markers, and zeros."""
    standard: NDArray[np.float32]
    """(n_tokens, 3): mean, 1 / (sd + offset), which is 0 for genes without background, and standardised zero."""

    @classmethod
    def of(
        cls,
        markers: CellMarkers,
        ontology: CellOntology,
        *,
        terms: Sequence[str] | None = None,
    ) -> MarkerScorer:
        """Arrange the weights of terms by gene.

        Parameters
        ----------
        markers
            Marker genes.
        ontology
            Cell Ontology, for the siblings of terms.
        terms
            Terms to score; all with markers if not given. Terms without markers score 0.
        """
        if terms is None:
            return _scorer_of_all(markers, ontology)
        background = Background.load()
        names = tuple(terms)
        own = _matrix(markers, names, "weight")
        specific = _keep_largest(_specific_weights(own, names, markers, ontology), _N_SPECIFIC)
        negative = _matrix(markers, names, None, positive=False)
        stacked = [_keep_largest(own, _N_MARKERS), specific, negative]
        pattern = sparse.csc_matrix(abs(stacked[0]) + abs(stacked[1]) + abs(stacked[2]))
        pattern.sort_indices()
        columns = np.repeat(np.arange(VOCABULARY_SIZE), np.diff(pattern.indptr))
        weights = np.stack(
            [
                *(np.asarray(m.tocsr()[pattern.indices, columns]).ravel() for m in stacked),
                np.zeros(len(columns)),
            ],
            axis=1,
        )
        from ._marker_kernel import LOWER, UPPER

        known = background.sd > 0
        scale = np.where(known, 1 / (background.sd + _SD_OFFSET), 0)
        standard = np.stack(
            [
                background.mean,
                scale,
                np.clip(-background.mean * scale, LOWER, UPPER),
            ],
            axis=1,
        ).astype(np.float32)
        return cls(
            names,
            pattern.indptr.astype(np.int32),
            pattern.indices.astype(np.int32),
            weights.astype(np.float32),
            standard,
        )

    def bind(self, tokens: NDArray[np.integer]) -> BoundScorer:
        """Prepare for matrices with these columns.

        Parameters
        ----------
        tokens
            (n_columns,) token of each column, negative for columns without a gene of the vocabulary.
        """
        measured = np.zeros(VOCABULARY_SIZE, dtype=bool)
        measured[tokens[tokens >= 0]] = True
        usable = measured & (self.standard[:, 1] > 0)
        zero = self.standard[:, 2].astype(np.float64)
        n_sets, n_terms = _N_SETS, len(self.terms)
        gene = np.repeat(np.arange(VOCABULARY_SIZE), np.diff(self.entry_starts))
        kept = usable[gene]
        base, sums, squares, n_markers = (np.zeros((n_sets, n_terms)) for _ in range(4))
        for k in range(n_sets):
            weight = np.where(kept, self.entry_weights[:, k], 0).astype(np.float64)
            for target, values in (
                (base, weight * zero[gene]),
                (sums, weight),
                (squares, weight**2),
                (n_markers, (weight != 0).astype(float)),
            ):
                target[k] = np.bincount(self.entry_terms, values, n_terms)
        n_genes = max(int(usable.sum()), 3)
        variance = squares / n_genes - (sums / n_genes) ** 2
        least = np.array([[_MIN_MEASURED], [1], [1]])
        scored = (n_markers >= np.minimum(least, _n_total(self))) & (n_markers > 0)
        inverse = np.where(scored & (variance > 0), 1 / np.sqrt(np.maximum(variance, 1e-30)), 0)
        totals = np.array([n_genes, zero[usable].sum(), (zero[usable] ** 2).sum()])
        of_column, slots = np.asarray(tokens, dtype=np.int32), _slots(tokens)
        return BoundScorer(
            self,
            of_column,
            *self._by_column(of_column, slots),
            slots,
            totals.astype(np.float32),
            base.astype(np.float32),
            sums.astype(np.float32),
            inverse.astype(np.float32),
            n_markers[0].astype(np.int64),
        )

    def _by_column(
        self, tokens: NDArray[np.int32], slots: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Arrange background and weights by column, so that genes are read in order; see :func:`marker_t_values`."""
        shared = slots >= 0 if len(slots) else np.zeros(len(tokens), dtype=bool)
        n_slots = int(slots.max(initial=-1)) + 1
        of_slot = np.zeros(n_slots, dtype=np.int32)
        if n_slots:
            of_slot[slots[shared]] = tokens[shared]
        gene = np.maximum(np.concatenate([tokens, of_slot]), 0)
        is_scored = np.concatenate([(tokens >= 0) & ~shared, np.ones(n_slots, dtype=bool)])
        is_scored &= self.standard[gene, 1] > 0
        columns = np.zeros((len(gene), 4), dtype=np.float32)
        columns[:, :3] = np.where(is_scored[:, None], self.standard[gene], 0)
        columns[: len(tokens), 3] = tokens >= 0
        ranges = np.stack([self.entry_starts[gene], self.entry_starts[gene + 1]], axis=1)
        return columns, np.where(is_scored[:, None], ranges, 0).astype(np.int32)


@lru_cache(maxsize=4)
def _scorer_of_all(markers: CellMarkers, ontology: CellOntology) -> MarkerScorer:
    return MarkerScorer.of(markers, ontology, terms=markers.terms)


class MarkerSupport(NamedTuple):
    """Markers of a term in a group of cells."""

    genes: NDArray[np.str_]
    """(n_markers,) Ensembl ids of measured positive markers."""
    expression: NDArray[np.float32]
    """(n_markers,) mean standardised expression in the group."""
    detected: NDArray[np.float32]
    """(n_markers,) fraction of the group's cells with a count."""
    expected: NDArray[np.float32]
    """(n_markers,) expected standardised expression: the weight."""
    contribution: NDArray[np.float32]
    """(n_markers,) expression times expected expression: the contribution to the score of the term."""


@dataclass(frozen=True, eq=False)
class BoundScorer:
    """A :class:`MarkerScorer` for matrices with given columns."""

    scorer: MarkerScorer
    tokens: NDArray[np.int32]
    """(n_columns,)"""
    columns: NDArray[np.float32]
    """Background by column; for this and the following see :func:`marker_t_values`."""
    entry_ranges: NDArray[np.int32]
    slots: NDArray[np.int32]
    totals: NDArray[np.float32]
    base: NDArray[np.float32]
    sums: NDArray[np.float32]
    inverse_norm: NDArray[np.float32]
    n_measured: NDArray[np.int64]
    """(n_terms,) number of positive markers among the columns."""

    def __call__(self, counts: sparse.csr_matrix | sparse.csr_array) -> MarkerScores:
        """Score (n_cells, n_columns) raw counts."""
        from ._marker_kernel import marker_t_values

        counts = sparse.csr_matrix(counts)
        if self.scorer.standard.shape[0] != VOCABULARY_SIZE:
            msg = f"Background of {self.scorer.standard.shape[0]} tokens; required are {VOCABULARY_SIZE}."
            raise ArgumentError(msg)
        if not counts.has_canonical_format:
            counts = counts.copy()
            counts.sum_duplicates()
        n_sets, n_terms = self.base.shape
        out = np.empty((counts.shape[0], n_sets, n_terms), dtype=np.float32)
        data = counts.data.astype(np.float32, copy=False)

        def part(rows: slice) -> None:
            marker_t_values(
                counts.indptr[rows.start : rows.stop + 1],
                counts.indices,
                data,
                self.columns,
                self.entry_ranges,
                self.slots,
                self.scorer.entry_terms,
                self.scorer.entry_weights,
                self.totals,
                self.base,
                self.sums,
                self.inverse_norm,
                out[rows],
            )

        over_rows(counts.shape[0], part)
        return MarkerScores(out[:, 0], out[:, 1], out[:, 2])

    def expression(
        self, counts: sparse.csr_matrix | sparse.csr_array, term: str
    ) -> tuple[NDArray[np.str_], NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
        """Return the measured positive markers of a term with their expression in cells.

        Returns
        -------
        Ensembl ids (n_markers,); standardised expression and whether there is a count, (n_cells, n_markers); expected standardised
        expression (the weights), (n_markers,).
        """
        scorer = self.scorer
        index = scorer.terms.index(term)
        gene = np.repeat(np.arange(VOCABULARY_SIZE), np.diff(scorer.entry_starts))
        entries = np.flatnonzero((scorer.entry_terms == index) & (scorer.entry_weights[:, 0] > 0))
        measured = np.zeros(VOCABULARY_SIZE, dtype=bool)
        measured[self.tokens[self.tokens >= 0]] = True
        entries = entries[measured[gene[entries]] & (scorer.standard[gene[entries], 1] > 0)]
        tokens, expected = gene[entries], scorer.entry_weights[entries, 0]
        z, detected = self.standardised(counts, tokens)
        gene_of = GeneVocabulary.load().gene_of
        genes = np.array([gene_of[int(token)] for token in tokens], dtype=str)
        return genes, z, detected, expected

    def standardised(
        self, counts: sparse.csr_matrix | sparse.csr_array, tokens: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return standardised expression of genes in cells, and whether there is a count, (n_cells, n_tokens) each.

        Genes that are not measured are treated as not expressed.
        """
        from ._marker_kernel import LOWER, UPPER

        matrix, columns = _summed(sparse.csr_matrix(counts), self.tokens)
        totals = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1e-9)
        place = np.minimum(np.searchsorted(columns, tokens), len(columns) - 1)
        x = matrix[:, place].toarray() * (columns[place] == tokens)
        mean, scale = self.scorer.standard[tokens, 0], self.scorer.standard[tokens, 1]
        z = np.clip((np.log1p(x * (1e4 / totals)[:, None]) - mean) * scale, LOWER, UPPER)
        return z.astype(np.float32), x > 0

    def support(self, counts: sparse.csr_matrix | sparse.csr_array, term: str) -> MarkerSupport:
        """Measure the markers of one term in a group of cells, by descending contribution.

        The last ones are expected but not expressed.
        """
        genes, z, detected, expected = self.expression(counts, term)
        mean = z.mean(axis=0)
        order = np.argsort(-mean * expected, kind="stable")
        return MarkerSupport(
            genes[order],
            mean[order],
            detected.mean(axis=0)[order].astype(np.float32),
            expected[order],
            (mean * expected)[order],
        )


def over_rows(n_rows: int, work: Callable[[slice], None]) -> None:
    """Call ``work`` on parts of the rows in threads; the compiled functions release the GIL."""
    block = max(-(-n_rows // n_cores()), _ROWS_PER_THREAD)
    in_threads(n_rows, lambda first, last: work(slice(first, last)), block=block)


def _n_total(scorer: MarkerScorer) -> NDArray[np.float64]:
    """Return the number of markers of each set and term, measured or not; shape (n_sets, n_terms)."""
    return np.stack(
        [
            np.bincount(scorer.entry_terms, scorer.entry_weights[:, k] != 0, len(scorer.terms))
            for k in range(_N_SETS)
        ]
    )


def _slots(tokens: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return the index of each column's gene among the genes of several columns, -1 for other columns; empty if there are none."""
    distinct, counts = np.unique(tokens[tokens >= 0], return_counts=True)
    repeated = distinct[counts > 1]
    if not len(repeated):
        return np.zeros(0, dtype=np.int32)
    slots = np.full(len(tokens), -1, dtype=np.int32)
    is_one = np.isin(tokens, repeated)
    slots[is_one] = np.searchsorted(repeated, tokens[is_one])
    return slots


def _summed(
    counts: sparse.csr_matrix, tokens: NDArray[np.int32]
) -> tuple[sparse.csr_matrix, NDArray[np.int32]]:
    columns = np.flatnonzero(tokens >= 0)
    distinct, member = np.unique(tokens[columns], return_inverse=True)
    to_gene = sparse.csr_matrix(
        (np.ones(len(columns), dtype=np.float32), (columns, member)),
        shape=(len(tokens), len(distinct)),
    )
    return sparse.csr_matrix(counts @ to_gene), distinct.astype(np.int32)


def _matrix(
    markers: CellMarkers, terms: tuple[str, ...], column: str | None, *, positive: bool = True
) -> sparse.csr_matrix:
    """Return a column of the table of positive or negative markers, or ones, as a matrix of shape (n_terms, n_tokens)."""
    place = {term: index for index, term in enumerate(terms)}
    token_of = GeneVocabulary.load().token_of
    table = markers.table[(markers.table["positive"] == positive) & markers.table[TERM].isin(place)]
    rows = table[TERM].astype(str).map(place).to_numpy()
    columns = table[GENE].astype(str).map(token_of).to_numpy()
    values = (
        np.ones(len(table), np.float32) if column is None else table[column].to_numpy(np.float32)
    )
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(terms), VOCABULARY_SIZE))


def _specific_weights(
    own: sparse.csr_matrix, terms: tuple[str, ...], markers: CellMarkers, ontology: CellOntology
) -> sparse.csr_matrix:
    """Return the excess over the mean weight of siblings with markers, times the square root of the evidence."""
    evidence = _matrix(markers, terms, "evidence")
    place = {term: index for index, term in enumerate(terms)}
    has_markers = np.diff(own.indptr) > 0
    rows = []
    for index, term in enumerate(terms):
        row = own[index]
        siblings = [
            place[other]
            for other in siblings_of(term, ontology)
            if other in place and has_markers[place[other]]
        ]
        if siblings:
            mean = np.asarray(own[siblings][:, row.indices].mean(axis=0)).ravel()
            row = row.copy()
            row.data = np.maximum(row.data - mean, 0).astype(np.float32)
        rows.append(row)
    excess = sparse.vstack(rows, format="csr") if rows else own
    return sparse.csr_matrix(excess.multiply(evidence.sqrt()))


def _keep_largest(matrix: sparse.csr_matrix, n: int) -> sparse.csr_matrix:
    """Keep the n largest positive values of each row."""
    matrix = matrix.tocsr().copy()
    for row in range(matrix.shape[0]):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        values = matrix.data[part]
        if len(values) > n:
            cut = np.argsort(-values, kind="stable")[n:]
            values[cut] = 0
        np.maximum(values, 0, out=values)
    matrix.eliminate_zeros()
    return matrix
