"""pp.tokenize: identical tokens from every type of AnnData, fields written, errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools._anndata.counts import CountsSource, iter_token_chunks
from sccello_tools.errors import BackedDataError, GeneMatchError, NotCountsError
from sccello_tools.tokens import Tokenizer, match_gene_names

if TYPE_CHECKING:
    from sccello_tools.tokens import RaggedTokens

N_TOKENS, TRUNCATED = "sccello_n_tokens", "sccello_truncated"


def assert_bits(tokens: RaggedTokens, expected: RaggedTokens) -> None:
    for name in ("indptr", "ids", "n_genes", "known_fraction"):
        a, b = getattr(tokens, name), getattr(expected, name)
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes(), name


def dense(matrix) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def assert_untouched(adata: anndata.AnnData, before: anndata.AnnData) -> None:
    """Compare all that an AnnData holds."""
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert type(adata.X) is type(before.X)
    if before.X is not None:
        np.testing.assert_array_equal(dense(adata.X), dense(before.X))
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        one, other = getattr(adata, slot), getattr(before, slot)
        assert list(one) == list(other)
        for key in other:
            np.testing.assert_array_equal(dense(one[key]), dense(other[key]))
    assert dict(adata.uns) == dict(before.uns)
    assert (adata.raw is None) == (before.raw is None)
    if before.raw is not None:
        np.testing.assert_array_equal(dense(adata.raw.X), dense(before.raw.X))


@pytest.fixture
def expected(adata) -> RaggedTokens:
    return sccello.pp.tokenize(adata.copy())


def test_writes_two_columns_and_returns_the_tokens(adata, caplog):
    before = adata.copy()
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        tokens = sccello.pp.tokenize(adata, max_length=150)
    assert ".obs['sccello_n_tokens'], .obs['sccello_truncated']" in caplog.messages[-1]
    assert len(tokens) == adata.n_obs
    assert adata.obs[N_TOKENS].dtype == np.int32
    assert adata.obs[TRUNCATED].dtype == bool
    np.testing.assert_array_equal(adata.obs[N_TOKENS], tokens.lengths)
    expressed = (dense(before.X) > 0).sum(axis=1)
    np.testing.assert_array_equal(adata.obs[TRUNCATED], expressed + 1 > 150)
    np.testing.assert_array_equal(adata.obs[N_TOKENS], np.minimum(expressed + 1, 150))
    assert adata.obs[TRUNCATED].nunique() == 2

    del adata.obs[N_TOKENS], adata.obs[TRUNCATED]
    assert_untouched(adata, before)


@pytest.mark.parametrize("chunk_cells", [1, 7, 30, 1000])
def test_whatever_the_chunk(adata, expected, chunk_cells):
    assert_bits(sccello.pp.tokenize(adata, chunk_cells=chunk_cells), expected)


def test_the_chunk_of_the_settings(adata, expected, monkeypatch):
    monkeypatch.setattr(sccello.settings, "chunk_cells", 4)
    assert_bits(sccello.pp.tokenize(adata), expected)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.toarray(),
        lambda x: np.asfortranarray(x.toarray().astype(np.float64)),
        lambda x: x.toarray().astype(np.int64),
        lambda x: x.toarray().astype(np.uint8),
        sparse.csr_array,
        sparse.csc_matrix,
        lambda x: sparse.csc_array(x).astype(np.uint16),
        lambda x: sparse.csr_matrix(x).astype(np.int32),
    ],
)
def test_whatever_the_matrix(adata, expected, convert):
    adata.layers["counts"] = convert(adata.X)
    adata.X = None
    assert_bits(sccello.pp.tokenize(adata, layer="counts", chunk_cells=8), expected)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "dense"])
def test_backed(adata, expected, kind, tmp_path):
    x = adata.X.toarray() if kind == "dense" else getattr(sparse, kind)(adata.X)
    anndata.AnnData(x, obs=adata.obs, var=adata.var).write_h5ad(tmp_path / "x.h5ad")
    file = tmp_path / "x.h5ad"
    written = file.read_bytes()
    backed = anndata.read_h5ad(file, backed="r")
    assert_bits(sccello.pp.tokenize(backed, chunk_cells=7), expected)
    assert backed.isbacked
    np.testing.assert_array_equal(backed.obs[N_TOKENS], expected.lengths)
    backed.file.close()
    assert file.read_bytes() == written


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "dense"])
def test_a_view_of_a_backed_anndata_cannot_be_written_to(adata, kind, tmp_path):
    x = adata.X.toarray() if kind == "dense" else getattr(sparse, kind)(adata.X)
    anndata.AnnData(x, obs=adata.obs, var=adata.var).write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(BackedDataError, match="view"):
        sccello.pp.tokenize(backed[3:9])
    backed.file.close()


def test_backed_files_are_read_in_slices(adata, tmp_path, monkeypatch):
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    taken = []
    dataset = type(backed.X)
    whole = dataset.__getitem__
    monkeypatch.setattr(
        dataset, "__getitem__", lambda self, rows: taken.append(rows) or whole(self, rows)
    )
    monkeypatch.setattr(dataset, "to_memory", lambda self: pytest.fail("all of it is read"))
    sccello.pp.tokenize(backed, chunk_cells=8)
    assert taken == [slice(0, 8), slice(8, 16), slice(16, 24), slice(24, 30)]
    backed.file.close()


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "dense"])
def test_a_view_of_a_backed_file_can_be_read(adata, expected, kind, tmp_path):
    x = adata.X.toarray() if kind == "dense" else getattr(sparse, kind)(adata.X)
    anndata.AnnData(x, obs=adata.obs, var=adata.var).write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    cells = np.array([2, 3, 11, 29])
    view = backed[cells]
    tokenizer = Tokenizer(match_gene_names(view.var_names))
    chunks = list(iter_token_chunks(view, tokenizer, CountsSource(), chunk_cells=3))
    assert [chunk.start for chunk in chunks] == [0, 3]
    assert_bits(chunks[0].tokens, expected.take(cells[:3]))
    assert_bits(chunks[1].tokens, expected.take(cells[3:]))
    backed.file.close()


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "dense"])
def test_zarr(adata, expected, kind, tmp_path, write_zarr):
    import zarr

    x = adata.X.toarray() if kind == "dense" else getattr(sparse, kind)(adata.X)
    write_zarr(anndata.AnnData(x, obs=adata.obs, var=adata.var), tmp_path / "x.zarr")
    assert_bits(sccello.pp.tokenize(anndata.io.read_zarr(tmp_path / "x.zarr")), expected)
    stored = zarr.open(tmp_path / "x.zarr", mode="r")["X"]
    matrix = stored if kind == "dense" else anndata.io.sparse_dataset(stored)
    on_disk = anndata.AnnData(matrix, obs=adata.obs, var=adata.var)
    assert not isinstance(on_disk.X, np.ndarray)
    assert_bits(sccello.pp.tokenize(on_disk, chunk_cells=7), expected)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "dense"])
def test_read_lazily(adata, expected, kind, tmp_path):
    pytest.importorskip("xarray")
    pytest.importorskip("dask")
    from anndata.experimental import read_lazy

    x = adata.X.toarray() if kind == "dense" else getattr(sparse, kind)(adata.X)
    anndata.AnnData(x, obs=adata.obs, var=adata.var).write_h5ad(tmp_path / "x.h5ad")
    lazy = read_lazy(tmp_path / "x.h5ad")
    assert_bits(sccello.pp.tokenize(lazy, chunk_cells=7), expected)
    np.testing.assert_array_equal(np.asarray(lazy.obs[N_TOKENS]), expected.lengths)
    assert type(lazy.X).__module__.startswith("dask"), "still lazy"


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_dask(adata, expected, kind):
    da = pytest.importorskip("dask.array")
    adata.X = da.from_array(adata.X.toarray(), chunks=(11, 900)).map_blocks(kind)
    assert_bits(sccello.pp.tokenize(adata, chunk_cells=5), expected)
    assert type(adata.X).__module__.startswith("dask")


def test_a_view_becomes_an_actual_anndata(adata, expected):
    cells = np.array([4, 0, 17, 9])
    view = adata[cells]
    assert view.is_view
    assert_bits(sccello.pp.tokenize(view), expected.take(cells))
    np.testing.assert_array_equal(view.obs[N_TOKENS], expected.lengths[cells])
    assert not view.is_view
    assert N_TOKENS not in adata.obs


def test_permuted_genes(adata, expected):
    order = np.random.default_rng(0).permutation(adata.n_vars)
    assert_bits(sccello.pp.tokenize(adata[:, order].copy()), expected)
    assert_bits(sccello.pp.tokenize(adata[:, order]), expected)


def test_a_subset_of_rows_keeps_what_was_written(adata, expected):
    sccello.pp.tokenize(adata)
    some = adata[[3, 1]].copy()
    assert some.obs[N_TOKENS].tolist() == expected.lengths[[3, 1]].tolist()


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(adata, form, tmp_path, write_zarr):
    sccello.pp.match_genes(adata)
    tokens = sccello.pp.tokenize(adata, max_length=150)
    path = tmp_path / f"x.{form}"
    (write_zarr if form == "zarr" else anndata.AnnData.write_h5ad)(adata, path)
    again = getattr(anndata.io, f"read_{form}")(path)
    for column in (N_TOKENS, TRUNCATED):
        assert again.obs[column].dtype == adata.obs[column].dtype
        np.testing.assert_array_equal(again.obs[column], adata.obs[column])
    assert again.var["sccello_gene_id"].tolist() == adata.var["sccello_gene_id"].tolist()
    assert_bits(sccello.pp.tokenize(again, max_length=150), tokens)


# --- which gene a column is --------------------------------------------------------------------------------------------


def test_the_column_of_match_genes_is_used(adata, expected):
    adata.var["sccello_gene_id"] = adata.var_names.to_numpy()
    adata.var_names = [str(i) for i in range(adata.n_vars)]
    assert_bits(sccello.pp.tokenize(adata), expected)


def test_a_column_named_outright_comes_first(adata, expected):
    adata.var["mine"] = adata.var_names.to_numpy()
    adata.var["sccello_gene_id"] = ""
    adata.var_names = [str(i) for i in range(adata.n_vars)]
    assert_bits(sccello.pp.tokenize(adata, gene_ids="mine"), expected)


def test_gene_errors_reach_the_user(adata):
    with pytest.raises(GeneMatchError, match="no column 'symbol'"):
        sccello.pp.tokenize(adata, gene_ids="symbol")
    few = adata[:, :20].copy()
    with pytest.raises(GeneMatchError, match="Only 20 of 20 genes match"):
        sccello.pp.tokenize(few)
    assert len(sccello.pp.tokenize(few, min_matched=20)) == 30


def test_repeated_genes_are_summed(adata):
    again = adata.copy()
    again.var_names = [f"{gene}.2" for gene in adata.var_names]  # another version of the same id
    double = anndata.concat([adata, again], axis=1)
    with pytest.warns(UserWarning, match="900 of 1,800 variables repeat"):
        tokens = sccello.pp.tokenize(double)
    adata.X = adata.X * 2
    assert_bits(tokens, sccello.pp.tokenize(adata))


# --- counts ------------------------------------------------------------------------------------------------------------


def cp10k(x):
    return sparse.csr_matrix(x.multiply(1e4 / x.sum(axis=1)))


def with_value(value):
    def change(x):
        x = x.copy()
        x.data[len(x.data) * 3 // 4] = value
        return x

    return change


NOT_COUNTS = {
    "CP10k": (cp10k, r"fractions \(maximum .*normalisation"),
    "log1p": (lambda x: cp10k(x).log1p(), r"fractions \(maximum \d\.\d*\).*log1p"),
    "one fraction": (with_value(1.5), "1 of .* non-zero values are fractions"),
    "scaled": (lambda x: (x.toarray() - x.mean()) / 3, r"values are negative, as after scaling"),
    "one negative": (with_value(-1), "1 values are negative"),
    "NaN": (with_value(np.nan), "1 values are NaN"),
    "infinite": (with_value(np.inf), "1 values are infinite"),
    "zero": (lambda x: sparse.csr_matrix(x.shape, dtype=np.float32), "all values are zero"),
    "stored zeros": (lambda x: x * 0, "all values are zero"),
    "dense zeros": (lambda x: np.zeros(x.shape, dtype=np.int64), "all values are zero"),
    "boolean": (lambda x: x > 0, "boolean"),
    "integer negative": (lambda x: -x.astype(np.int32), "values are negative"),
}  # fmt: skip


@pytest.mark.parametrize("chunk_cells", [5, None])
@pytest.mark.parametrize("case", NOT_COUNTS)
def test_what_is_not_counts_is_refused_and_nothing_written(adata, case, chunk_cells):
    change, says = NOT_COUNTS[case]
    adata.X = change(adata.X)
    adata.uns["kept"] = 1
    before = adata.copy()
    with pytest.raises(
        NotCountsError,
        match=f"adata.X does not hold raw counts: .*{says}.*No other matrix of adata holds",
    ):
        sccello.pp.tokenize(adata, chunk_cells=chunk_cells)
    assert_untouched(adata, before)


@pytest.mark.parametrize("case", NOT_COUNTS)
def test_trust_is_advised_only_where_it_helps(adata, case):
    adata.X = NOT_COUNTS[case][0](adata.X)
    with pytest.raises(NotCountsError) as raised:
        sccello.pp.tokenize(adata)
    helps = case in {"CP10k", "log1p", "one fraction", "boolean"}
    assert ("pass counts='trust'" in str(raised.value)) == helps
    if helps:
        assert len(sccello.pp.tokenize(adata, counts="trust")) == 30


@pytest.mark.parametrize("case", NOT_COUNTS)
def test_the_same_in_a_layer_which_the_message_names(adata, case):
    change, says = NOT_COUNTS[case]
    adata.layers["odd"] = change(adata.X)
    says = rf"adata.layers\['odd'\] does not hold raw counts: .*{says}.*Raw counts are available with layer=None \(adata.X\)"
    with pytest.raises(NotCountsError, match=says):
        sccello.pp.tokenize(adata, layer="odd")
    assert len(sccello.pp.tokenize(adata)) == 30


def test_the_message_names_every_layer_that_holds_counts(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.layers["spliced"] = adata.X.toarray().astype(np.int64)
    adata.layers["log"] = cp10k(adata.X).log1p()
    adata.raw = adata.copy()
    adata.X = adata.layers["log"].copy()
    with pytest.raises(NotCountsError, match=r"layer='counts' or layer='spliced' or layer='raw.X'"):
        sccello.pp.tokenize(adata)
    with pytest.raises(
        NotCountsError,
        match=r"no layer 'count'.*layer='counts'",
    ):
        sccello.pp.tokenize(adata, layer="count")


def test_the_message_points_to_raw(adata, expected):
    adata.raw = adata.copy()
    adata.X = cp10k(adata.X).log1p()
    with pytest.raises(NotCountsError, match=r"layer='raw\.X'"):
        sccello.pp.tokenize(adata)
    assert_bits(sccello.pp.tokenize(adata.raw.to_adata()), expected)
    assert_bits(sccello.pp.tokenize(adata, layer="raw.X"), expected)
    adata.var_names = [str(i) for i in range(adata.n_vars)]  # the genes are those of raw.var
    assert_bits(sccello.pp.tokenize(adata, layer="raw.X"), expected)


def test_raw_is_never_read_where_x_holds_counts(adata, expected, monkeypatch):
    other = adata.copy()
    other.X = other.X * 3
    adata.raw = other
    monkeypatch.setattr(
        anndata.AnnData, "raw", property(lambda self: pytest.fail(".raw is read unasked"))
    )
    assert_bits(sccello.pp.tokenize(adata), expected)


def test_no_x(adata, expected):
    adata.layers["counts"] = adata.X
    adata.X = None
    with pytest.raises(NotCountsError, match=r"adata\.X is empty.*layer='counts'"):
        sccello.pp.tokenize(adata)
    assert_bits(sccello.pp.tokenize(adata, layer="counts"), expected)


@pytest.mark.parametrize("backed", [False, True])
def test_not_counts_in_a_later_chunk(adata, backed, tmp_path):
    x = adata.X.tolil()
    x[29, 5] = 0.5
    adata.X = x.tocsr()
    if backed:
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(NotCountsError, match=r"1 of .* non-zero values are fractions"):
        sccello.pp.tokenize(adata, chunk_cells=4)
    assert adata.obs.columns.tolist() == ["donor"]


def test_trust_takes_fractions(adata):
    corrected = adata.X.copy()
    corrected.data = corrected.data * 0.9 + 0.05
    adata.X = corrected
    tokens = sccello.pp.tokenize(adata, counts="trust")
    assert (tokens.lengths == (dense(adata.X) > 0).sum(axis=1) + 1).all()


@pytest.mark.parametrize("case", ["one negative", "NaN", "infinite", "zero"])
def test_trust_does_not_take_what_has_no_rank(adata, case):
    change, says = NOT_COUNTS[case]
    adata.X = change(adata.X)
    with pytest.raises(NotCountsError, match=says):
        sccello.pp.tokenize(adata, counts="trust")


@pytest.mark.parametrize("kind", [object, str, complex])
def test_no_numbers(adata, kind):
    adata.layers["odd"] = adata.X.toarray().astype(kind)
    with pytest.raises(NotCountsError, match=r"values of type .*must be numbers"):
        sccello.pp.tokenize(adata, layer="odd")
    adata.X = cp10k(adata.X)
    with pytest.raises(NotCountsError, match=r"No other matrix of adata holds raw counts"):
        sccello.pp.tokenize(adata)


def test_cells_without_genes_keep_their_row_and_are_counted_in_one_warning(adata, expected):
    x = adata.X.tolil()
    x[[2, 11]] = 0
    adata.X = x.tocsr()
    with pytest.warns(UserWarning, match="2 of 30 cells have no counts") as caught:
        tokens = sccello.pp.tokenize(adata, chunk_cells=4)
    assert [warning.filename for warning in caught] == [__file__]
    assert adata.obs[N_TOKENS].to_numpy()[[2, 11]].tolist() == [0, 0]
    others = np.setdiff1d(np.arange(30), [2, 11])
    assert_bits(tokens.take(others), expected.take(others))


def test_no_cells(adata):
    empty = adata[:0].copy()
    tokens = sccello.pp.tokenize(empty)
    assert len(tokens) == 0
    assert empty.obs[N_TOKENS].dtype == np.int32
    assert empty.obs[TRUNCATED].dtype == bool


def test_no_genes():
    with pytest.raises(GeneMatchError, match="Only 0 of 0 genes match"):
        sccello.pp.tokenize(anndata.AnnData(np.zeros((3, 0), dtype=np.float32)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"counts": "yes"}, "'check', 'trust', got 'yes'"),
        ({"max_length": 1}, "max_length.*got 1"),
        ({"chunk_cells": 0}, "chunk_cells.*got 0"),
        ({"chunk_cells": -1}, "chunk_cells.*got -1"),
    ],
)
def test_bad_parameters(adata, options, says):
    before = adata.copy()
    with pytest.raises(ValueError, match=says):
        sccello.pp.tokenize(adata, **options)
    assert_untouched(adata, before)


def test_the_shipped_cells():
    adata = sccello.datasets.pancreas_tritschler()
    tokens = sccello.pp.tokenize(adata, return_values=True)
    assert len(tokens) == 583
    assert tokens.ids[tokens.indptr[:-1]].tolist() == [25_426] * 583
    assert tokens.lengths.max() == 2048
    of_cls = tokens.values[tokens.indptr[:-1]]  # noqa: PD011
    assert not of_cls.any()
