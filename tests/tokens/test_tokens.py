"""Rank-value tokens: the published numbers, a plain reference, ties, duplicates, odd matrices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sccello_tools.tokens import CLS_ID, GeneVocabulary, RaggedTokens, Tokenizer, match_gene_names

VOCABULARY = GeneVocabulary.load()
MEDIANS = VOCABULARY.median_of_token
# genes of close, equal and extreme medians, so that ranks collide
BY_MEDIAN = VOCABULARY.gene_ids[np.argsort(MEDIANS[VOCABULARY.tokens], kind="stable")]
EQUAL_MEDIANS = [
    str(gene)
    for a, b in pairwise(BY_MEDIAN)
    if MEDIANS[VOCABULARY.token_of[a]] == MEDIANS[VOCABULARY.token_of[b]]
    for gene in (a, b)
]


def plain_tokens(counts, genes, max_length=2048):
    """Tokens of one cell by the definition, in plain Python; ``counts`` and ``genes`` are lists, "" is no gene."""
    summed = {}
    for count, gene in zip(counts, genes):
        if gene:
            token = VOCABULARY.token_of[gene]
            summed[token] = summed.get(token, 0.0) + float(count)
    summed = {token: count for token, count in summed.items() if count > 0}
    if not summed:
        return [], [], 0
    total = sum(summed.values())
    ranked = sorted(summed, key=lambda token: (-(summed[token] / MEDIANS[token]), token))
    values = [0.0] + [float(np.log1p(summed[token] * (10_000 / total))) for token in ranked]
    return [CLS_ID, *ranked][:max_length], values[:max_length], len(ranked)


def assert_same(tokens: RaggedTokens, others: RaggedTokens) -> None:
    """Equal bit for bit."""
    for name in ("indptr", "ids", "values", "n_genes"):
        a, b = getattr(tokens, name), getattr(others, name)
        if a is None or b is None:
            assert a is b, name
            continue
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes(), name


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "tokens.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def golden_matrix(golden):
    parts = golden["counts"], golden["indices"], golden["indptr"]
    return sparse.csr_array(parts, shape=tuple(golden["shape"]))


def test_golden_tokens_and_values(golden, golden_matrix):
    match = match_gene_names(golden["var_names"].tolist())
    tokens = Tokenizer(match, return_values=True)(golden_matrix)
    np.testing.assert_array_equal(tokens.indptr, golden["token_indptr"])
    np.testing.assert_array_equal(tokens.ids, golden["token_ids"])
    np.testing.assert_allclose(tokens.values, golden["log1p_cp10k"], rtol=0, atol=1e-6)
    assert tokens.truncated.any(), "a golden cell is cut at 2,048"
    assert not tokens.truncated.all()


def test_golden_tokens_whatever_the_order_of_the_genes(golden, golden_matrix):
    names = golden["var_names"]
    expected = Tokenizer(match_gene_names(names.tolist()), return_values=True)(golden_matrix)
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = sparse.csr_array(golden_matrix[:, order])
    match = match_gene_names(names[order].tolist())
    assert_same(Tokenizer(match, return_values=True)(shuffled), expected)


def test_permuted_cells_give_permuted_tokens(golden, golden_matrix):
    tokenizer = Tokenizer(match_gene_names(golden["var_names"].tolist()), return_values=True)
    order = np.random.default_rng(1).permutation(golden_matrix.shape[0])
    assert_same(tokenizer(golden_matrix[order]), tokenizer(golden_matrix).take(order))


def test_ties_break_by_token_id():
    assert len(EQUAL_MEDIANS) >= 4, "the vocabulary has genes of equal median"
    genes = sorted(EQUAL_MEDIANS, key=VOCABULARY.token_of.get, reverse=True)
    tokens = Tokenizer(match_gene_names(genes, min_matched=1))(
        sparse.csr_array(np.ones((1, len(genes))))
    )
    expected, _, _ = plain_tokens([1] * len(genes), genes)
    assert tokens[0].tolist() == expected
    relative = 1 / MEDIANS[tokens[0][1:]]
    tied = np.flatnonzero(np.diff(relative) == 0)
    assert tied.size >= 2
    assert (np.diff(tokens[0][1:])[tied] > 0).all()


def test_ranks_that_only_float64_can_tell():
    # neighbours in median whose ratio to one count is the same in float32, but not in float64
    medians = MEDIANS[[VOCABULARY.token_of[gene] for gene in BY_MEDIAN]]
    close = np.flatnonzero(
        (np.float32(1 / medians[:-1]) == np.float32(1 / medians[1:])) & (np.diff(medians) > 0)
    )
    assert close.size
    genes = [str(gene) for i in close for gene in BY_MEDIAN[[i + 1, i]]]
    genes = list(dict.fromkeys(genes))
    for order in (1, -1):
        names = genes[::order]
        tokens = Tokenizer(match_gene_names(names, min_matched=1))(
            sparse.csr_array(np.ones((1, len(names)), dtype=np.float32))
        )
        assert tokens[0].tolist() == plain_tokens([1] * len(names), names)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cell_as_expressed_as_the_medians(gene_ids, dtype):
    # every gene ranks alike but for the rounding of a division: one run of near and true ties, as long as the cell
    counts = np.array(
        [[0.7 * MEDIANS[VOCABULARY.token_of[gene]] for gene in gene_ids]], dtype=dtype
    )
    tokens = Tokenizer(match_gene_names(gene_ids))(sparse.csr_array(counts))
    assert tokens[0].tolist() == plain_tokens(counts[0].tolist(), gene_ids)[0]


GENE_POOL = [*EQUAL_MEDIANS[:6], *(str(gene) for gene in BY_MEDIAN[[0, 1, 2, 9000, 9001, -2, -1]])]
COLUMN_NAMES = st.sampled_from([*GENE_POOL, "no such gene", "CD3E", "ENSG00000198851"])
COUNTS = st.one_of(
    st.integers(0, 4), st.integers(0, 300), st.sampled_from([0, 1, 255, 256, 65_535, 10**6])
)


@st.composite
def csr_of_any_form(draw):
    """Column names, and a CSR matrix over them: repeated and unmatched columns, zeros stored, indices unsorted and repeated."""
    names = draw(st.lists(COLUMN_NAMES, min_size=1, max_size=16))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.uint16]))
    columns = st.integers(0, len(names) - 1)
    largest = 65_535 if dtype is np.uint16 else 10**6
    entries = st.tuples(columns, COUNTS.filter(lambda count: count <= largest))
    rows = draw(st.lists(st.lists(entries, max_size=20), max_size=5))
    flat = [entry for row in rows for entry in row]
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([column for column, _ in flat], dtype=np.int32)
    data = np.array([count for _, count in flat], dtype=dtype)
    return names, sparse.csr_array((data, indices, indptr), shape=(len(rows), len(names)))


@settings(max_examples=200, deadline=None)
@given(csr_of_any_form(), st.sampled_from([2, 3, 5, 2048]))
def test_agrees_with_plain_python(case, max_length):
    names, matrix = case
    match = match_gene_names(names, min_matched=0)
    before = matrix.data.copy(), matrix.indices.copy()
    tokens = Tokenizer(match, max_length, return_values=True)(matrix)
    without = Tokenizer(match, max_length)(matrix)
    assert without.values is None
    np.testing.assert_array_equal(without.ids, tokens.ids)
    np.testing.assert_array_equal(matrix.data, before[0])
    np.testing.assert_array_equal(matrix.indices, before[1])

    assert len(tokens) == matrix.shape[0]
    for row in range(matrix.shape[0]):
        a, b = matrix.indptr[row], matrix.indptr[row + 1]
        genes = [match.gene_ids[column] for column in matrix.indices[a:b]]
        ids, values, n_genes = plain_tokens(matrix.data[a:b].tolist(), genes, max_length)
        assert tokens[row].tolist() == ids
        shown = tokens.values[tokens.indptr[row] : tokens.indptr[row + 1]]
        np.testing.assert_allclose(shown, values, rtol=1e-6)
        assert tokens.n_genes[row] == n_genes
        assert tokens.truncated[row] == (n_genes + 1 > max_length)


def test_trusted_fractions_rank_the_same_in_any_order_of_genes(gene_ids):
    rng = np.random.default_rng(2)
    x = rng.exponential(size=(5, len(gene_ids))) * (rng.random((5, len(gene_ids))) < 0.4)
    order = rng.permutation(len(gene_ids))
    tokens = Tokenizer(match_gene_names(gene_ids), return_values=True)(sparse.csr_array(x))
    match = match_gene_names([gene_ids[i] for i in order])
    assert_same(
        Tokenizer(match, return_values=True)(sparse.csr_array(x[:, order])),
        tokens,
    )
    assert tokens[3].tolist() == plain_tokens(x[3].tolist(), gene_ids)[0]


def test_values_beyond_float32_still_rank():
    genes = GENE_POOL[:4]
    counts = [1e300, 1e-300, 3.0, 5e-46]
    tokens = Tokenizer(match_gene_names(genes, min_matched=1))(sparse.csr_array([counts]))
    assert tokens[0].tolist() == plain_tokens(counts, genes)[0]


def test_two_columns_of_one_gene_are_summed():
    names = ["CD3E", "NKG7", "ENSG00000198851.15"]
    match = match_gene_names(names, min_matched=1)
    assert match.n_duplicates == 1
    tokens = Tokenizer(match, return_values=True)(sparse.csr_array(np.array([[2.0, 3.0, 5.0]])))
    single = Tokenizer(match_gene_names(["CD3E", "NKG7"], min_matched=1), return_values=True)
    assert_same(tokens, single(sparse.csr_array(np.array([[7.0, 3.0]]))))


def test_rows_without_genes_keep_their_place():
    match = match_gene_names(["CD3E", "no such gene"], min_matched=1)
    tokens = Tokenizer(match)(sparse.csr_array(np.array([[0, 9], [1, 0], [0, 0]])))
    assert tokens.lengths.tolist() == [0, 2, 0]
    assert tokens.n_genes.tolist() == [0, 1, 0]
    assert not tokens.truncated.any()
    np.testing.assert_array_equal(tokens.known_fraction, np.float32([0, 1, np.nan]))


def test_fraction_of_counts_in_genes_of_the_vocabulary():
    names = ["CD3E", "no such gene", "CD4_antibody", "BLANK_0001", "NKG7"]
    types = ["Gene Expression"] * 2 + ["Antibody Capture"] + ["Gene Expression"] * 2
    match = match_gene_names(names, min_matched=1, feature_types=types)
    tokens = Tokenizer(match)(sparse.csr_array(np.array([[1.0, 3, 500, 90, 2], [0, 4, 1, 0, 0]])))
    np.testing.assert_array_equal(tokens.known_fraction, [0.5, 0])
    np.testing.assert_array_equal(tokens.take([1, 0]).known_fraction, [0, 0.5])
    np.testing.assert_array_equal(tokens.truncate(2).known_fraction, [0.5, 0])


def test_no_rows():
    tokens = Tokenizer(match_gene_names(["CD3E"], min_matched=1))(sparse.csr_array((0, 1)))
    assert len(tokens) == 0
    assert tokens.indptr.tolist() == [0]


def test_matrix_must_fit_the_genes():
    tokenizer = Tokenizer(match_gene_names(["CD3E", "NKG7"], min_matched=1))
    with pytest.raises(ValueError, match="each of the 2 matched names, got 3"):
        tokenizer(sparse.csr_array(np.ones((1, 3))))


def test_max_length_needs_room_for_a_gene():
    with pytest.raises(ValueError, match=r"max_length must be at least 2.*got 1"):
        Tokenizer(match_gene_names(["CD3E"], min_matched=1), max_length=1)


def test_float32_integers_and_read_only_data_give_the_same(dense_counts, gene_ids):
    tokenizer = Tokenizer(match_gene_names(gene_ids), return_values=True)
    expected = tokenizer(sparse.csr_array(dense_counts))
    for dtype in (np.float64, np.int64, np.int32, np.int16, np.uint8, np.uint64, np.longdouble):
        assert_same(tokenizer(sparse.csr_array(dense_counts).astype(dtype)), expected)
    frozen = sparse.csr_array(dense_counts)
    for part in (frozen.data, frozen.indices, frozen.indptr):
        part.setflags(write=False)
    assert_same(tokenizer(frozen), expected)
    wide = sparse.csr_array(dense_counts)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert_same(tokenizer(wide), expected)


@pytest.fixture
def tokens(dense_counts, gene_ids):
    tokenizer = Tokenizer(match_gene_names(gene_ids), max_length=120, return_values=True)
    return tokenizer(sparse.csr_array(dense_counts))


def test_take_orders_repeats_and_leaves_out(tokens):
    cells = [5, 0, 5, 29]
    taken = tokens.take(cells)
    assert len(taken) == 4
    for i, cell in enumerate(cells):
        np.testing.assert_array_equal(taken[i], tokens[cell])
    np.testing.assert_array_equal(taken.n_genes, tokens.n_genes[cells])
    np.testing.assert_array_equal(taken.truncated, tokens.truncated[cells])
    assert len(tokens.take([])) == 0


def test_truncate_is_what_a_shorter_max_length_gives(tokens, dense_counts, gene_ids):
    tokenizer = Tokenizer(match_gene_names(gene_ids), max_length=40, return_values=True)
    shorter = tokenizer(sparse.csr_array(dense_counts))
    assert_same(tokens.truncate(40), shorter)
    assert_same(tokens.truncate(10_000), tokens)


def test_concatenate_joins_what_take_splits(tokens):
    parts = [tokens.take(range(10)), tokens.take([]), tokens.take(range(10, 30))]
    assert_same(RaggedTokens.concatenate(parts), tokens)
    assert_same(RaggedTokens.concatenate(iter(parts)), tokens)
    assert_same(RaggedTokens.concatenate(tokens.take([i]) for i in range(30)), tokens)
    assert len(RaggedTokens.concatenate([])) == 0
    unknown = RaggedTokens(tokens.indptr, tokens.ids, tokens.values)
    assert RaggedTokens.concatenate([tokens, unknown]).n_genes is None
    without_values = RaggedTokens(tokens.indptr, tokens.ids)
    for parts in ([tokens, without_values], [without_values, tokens], [without_values]):
        joined = RaggedTokens.concatenate(parts)
        assert joined.values is None
        assert joined.ids.tolist() == tokens.ids.tolist() * len(parts)


def test_indexing(tokens):
    np.testing.assert_array_equal(tokens[-1], tokens[29])
    for cell in (30, -31):
        with pytest.raises(IndexError, match=f"cell {cell} is out of range for 30 cells"):
            tokens[cell]
