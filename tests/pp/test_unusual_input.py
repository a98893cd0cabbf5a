"""AnnData as other tools leave them: feature types, stale matches, repeated columns, masks, bytes, cells of other species."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools._anndata.counts import (
    CountsSource,
    warn_of_uncalibrated_cells,
    warn_of_unknown_genes,
)
from sccello_tools.errors import ArgumentError, GeneMatchError, NotCountsError
from sccello_tools.tokens import GeneVocabulary

KEY = "sccello_gene_id"
SYMBOL_OF = GeneVocabulary.load().symbol_of


def assert_same_tokens(tokens, expected) -> None:
    np.testing.assert_array_equal(tokens.indptr, expected.indptr)
    np.testing.assert_array_equal(tokens.ids, expected.ids)


@pytest.fixture
def expected(adata):
    return sccello.pp.tokenize(adata.copy())


def with_features(adata, names, kind, column="feature_types"):
    """Append columns of another feature type with high counts."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(400, (adata.n_obs, len(names))).astype(np.float32)
    var = pd.DataFrame(
        {column: ["Gene Expression"] * adata.n_vars + [kind] * len(names)},
        index=[*adata.var_names, *names],
    )
    return anndata.AnnData(sparse.hstack([adata.X, counts]).tocsr(), obs=adata.obs, var=var)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("Antibody Capture", ["CD3E", "CD19", "CD56", "HLA-DRA"]),
        ("CRISPR Guide Capture", ["MYC-1", "MYC-2", "GATA1-1", "non-targeting"]),
        ("Peaks", ["chr1:10000-10500", "chr2:7-90"]),
        ("Multiplexing Capture", ["CMO301", "CMO302"]),
    ],
)
@pytest.mark.parametrize("column", ["feature_types", "feature_type", "Feature_Types"])
def test_feature_types(adata, expected, kind, names, column):
    both = with_features(adata, names, kind, column)
    with pytest.warns(
        UserWarning, match=rf"{len(names)} of {900 + len(names)} variables"
    ) as caught:
        tokens = sccello.pp.tokenize(both)
    [warning] = caught
    assert repr(kind) in str(warning.message)
    assert warning.filename == __file__
    assert_same_tokens(tokens, expected)
    assert np.all(tokens.known_fraction == 1), "antibodies are not part of the total"
    with pytest.warns(UserWarning, match=repr(kind)):
        sccello.pp.match_genes(both)
    assert both.var[KEY].tolist()[900:] == [""] * len(names)


def test_feature_types_after_matching(adata, expected):
    both = with_features(adata, ["CD3E", "CD19"], "Antibody Capture")
    with pytest.warns(UserWarning, match="'Antibody Capture'"):
        sccello.pp.match_genes(both)
    assert_same_tokens(sccello.pp.tokenize(both), expected)  # reported once


def test_feature_types_of_raw(adata, expected):
    both = with_features(adata, ["CD3E", "CD19"], "Antibody Capture")
    both.raw = both.copy()
    both = both[:, :500].copy()
    with pytest.warns(UserWarning, match="'Antibody Capture'"):
        tokens = sccello.pp.tokenize(both, layer="raw.X")
    assert_same_tokens(tokens, expected)


def test_only_antibodies(adata):
    adata.var["feature_types"] = "Antibody Capture"
    with pytest.raises(GeneMatchError, match="900 'Antibody Capture'"):
        sccello.pp.tokenize(adata)


# --- stale matches


def test_missing_ids_are_matched_by_name(adata, expected):
    sccello.pp.match_genes(adata)
    adata.var.loc[adata.var_names[::3], KEY] = np.nan
    assert_same_tokens(sccello.pp.tokenize(adata), expected)
    adata.var[KEY] = pd.Categorical(adata.var[KEY])
    assert_same_tokens(sccello.pp.tokenize(adata), expected)
    adata.var[KEY] = None
    assert_same_tokens(sccello.pp.tokenize(adata), expected)


def test_empty_ids_stay_unmatched(adata):
    sccello.pp.match_genes(adata)
    adata.var.loc[adata.var_names[:300], KEY] = ""
    part = adata[:, 300:].copy()
    assert_same_tokens(sccello.pp.tokenize(adata), sccello.pp.tokenize(part))


@pytest.mark.parametrize("merge", ["first", "unique", "same"])
@pytest.mark.parametrize("axis_genes", [slice(None, None, 2), slice(200, 800)])
def test_outer_join_of_matched_data(adata, merge, axis_genes):
    one, other = adata[:15, axis_genes].copy(), adata[15:].copy()
    for part in (one, other):
        sccello.pp.match_genes(part, min_matched=1)
    joined = anndata.concat([one, other], join="outer", merge=merge, fill_value=0)
    plain = anndata.concat([one, other], join="outer", fill_value=0)
    assert_same_tokens(sccello.pp.tokenize(joined), sccello.pp.tokenize(plain))


def test_an_error_about_stored_ids_names_their_column(adata):
    adata.var[KEY] = "junk"
    with pytest.raises(GeneMatchError, match=f"{KEY}.*pp.match_genes"):
        sccello.pp.tokenize(adata)


# --- names


@pytest.mark.filterwarnings("ignore:.*variables repeat a gene")
def test_symbols_with_dots(adata, expected):
    adata.var["symbol"] = [SYMBOL_OF.get(name, name) for name in adata.var_names]
    adata.var_names = adata.var["symbol"].str.replace("-", ".", regex=False)
    adata.var_names_make_unique()
    plain = sccello.pp.tokenize(adata.copy(), gene_ids="symbol")
    assert plain.lengths.sum() > 0.95 * expected.lengths.sum()
    assert_same_tokens(sccello.pp.tokenize(adata), plain)


@pytest.mark.parametrize("where", ["column", "var_names", "text of bytes"])
def test_bytes(adata, expected, where):
    if where == "column":
        adata.var["id"] = np.array([name.encode() for name in adata.var_names], dtype=object)
        adata.var_names = [str(i) for i in range(900)]
    elif where == "var_names":
        adata.var.index = pd.Index([name.encode() for name in adata.var_names])
    else:
        adata.var_names = [str(name.encode()) for name in adata.var_names]
    tokens = sccello.pp.tokenize(adata, gene_ids="id" if where == "column" else None)
    assert_same_tokens(tokens, expected)


def test_two_columns_of_one_name(adata):
    var = pd.DataFrame({"id": adata.var_names}, index=adata.var_names)
    adata.var = pd.concat([var, var], axis=1)
    for call in (sccello.pp.match_genes, sccello.pp.tokenize):
        with pytest.raises(GeneMatchError, match="2 columns named 'id'"):
            call(adata, gene_ids="id")


def test_transposed(adata):
    with pytest.raises(GeneMatchError, match=r"transposed.*adata\.T"):
        sccello.pp.tokenize(adata.T.copy())


def test_repeated_genes_are_reported_at_the_users_line(adata):
    adata.var_names = [*adata.var_names[:-1], adata.var_names[0]]
    with pytest.warns(UserWarning, match="1 of 900 variables repeat") as caught:
        sccello.pp.tokenize(adata)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("key", ["a/b", "_index", ""])
def test_keys_are_checked_before_matching(adata, key):
    with pytest.raises(ArgumentError, match="key_added"):
        sccello.pp.match_genes(adata, key_added=key)
    assert adata.var.columns.empty


# --- values


def test_masked_values_count_as_zero(adata, caplog):
    counts = adata.X.toarray()
    mask = counts > 20
    masked = anndata.AnnData(np.zeros_like(counts), obs=adata.obs, var=adata.var)
    masked.layers["counts"] = np.ma.masked_array(counts, mask=mask)
    if not isinstance(masked.layers["counts"], np.ma.MaskedArray):
        pytest.skip("this version of anndata removes masks")
    adata.X = np.where(mask, 0, counts)
    assert_same_tokens(sccello.pp.tokenize(masked, layer="counts"), sccello.pp.tokenize(adata))
    assert f"{mask.sum()} masked values" in caplog.text


def test_missing_values_of_an_outer_join(adata):
    one, other = adata[:15, :600].copy(), adata[15:, 300:].copy()
    one.X, other.X = one.X.toarray(), other.X.toarray()
    joined = anndata.concat([one, other], join="outer")
    with pytest.raises(NotCountsError, match=r"NaN.*fill_value=0"):
        sccello.pp.tokenize(joined)


@pytest.mark.parametrize("form", ["dense", "csr_matrix", "csc_matrix"])
def test_float16(adata, expected, form):
    counts = adata.X.toarray()
    matrix = counts if form == "dense" else getattr(sparse, form)(counts)
    if form == "dense":
        adata.layers["counts"] = matrix.astype(np.float16)
    else:
        matrix.data = matrix.data.astype(np.float16)
        adata.layers["counts"] = matrix
    assert_same_tokens(sccello.pp.tokenize(adata, layer="counts"), expected)


# --- counts outside the vocabulary


def mixed_species(adata, n_mouse):
    """Human cells, and cells whose counts are in mouse genes with a few in human ones."""
    mouse = adata[:n_mouse].copy()
    human = adata[n_mouse:].copy()
    noise = sparse.csr_matrix(mouse.X.multiply(np.random.default_rng(1).random(mouse.shape) < 0.05))
    matrix = sparse.block_array([[noise, mouse.X], [human.X, sparse.csr_array(human.shape)]])
    names = [*adata.var_names, *(f"mm10___Gene{i}" for i in range(adata.n_vars))]
    return anndata.AnnData(matrix.tocsr().astype(np.float32), var=pd.DataFrame(index=names))


def test_cells_of_another_species(adata):
    mixed = mixed_species(adata, 10)
    with pytest.warns(UserWarning, match="10 of 30 cells have most of their counts") as caught:
        tokens = sccello.pp.tokenize(mixed, chunk_cells=7)
    assert [warning.filename for warning in caught] == [__file__]
    assert (tokens.known_fraction[:10] < 0.5).all()
    assert (tokens.known_fraction[10:] == 1).all()


def test_cells_of_another_species_when_embedding(adata, tiny_model_folder):
    mixed = mixed_species(adata, 10)
    with pytest.warns(UserWarning, match="10 of 30 cells have most of their counts") as caught:
        sccello.tl.embed(mixed, model=tiny_model_folder, device="cpu")
    assert [warning.filename for warning in caught] == [__file__]


def test_few_such_cells_are_no_reason_to_warn(adata):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_genes(np.array([0.3] * 5 + [0.9] * 95))
        warn_of_unknown_genes(np.array([0.0] * 50 + [np.nan] * 50))
        warn_of_unknown_genes(np.array([]))
    with pytest.warns(UserWarning, match="6 of 100 cells"):
        warn_of_unknown_genes(np.array([0.3] * 6 + [0.9] * 94))


# --- panels


@pytest.fixture
def panel(adata):
    order = np.argsort(-np.asarray(adata.X.sum(axis=0)).ravel())
    return adata[:, np.sort(order[:200])].copy()


def test_a_panel_is_accepted_with_a_warning(panel, tiny_model_folder):
    for call in (
        sccello.pp.match_genes,
        lambda a: sccello.pp.tokenize(a.copy()),
        lambda a: sccello.tl.embed(a.copy(), model=tiny_model_folder, device="cpu"),
    ):
        panel.var = panel.var[[]]
        with pytest.warns(UserWarning, match="Only 200 genes match.*panel"):
            call(panel)


def test_an_explicit_minimum_is_no_panel(panel):
    assert len(sccello.pp.tokenize(panel, min_matched=100)) == 30
    assert CountsSource(min_matched=100).gene_match(panel).n_matched == 200


def test_tokens_outside_the_calibrated_range():
    n_tokens = np.array([0, 50, 60, 400, 900, 2000])
    with pytest.warns(UserWarning, match="2 of 5 cells have fewer than 100.*tl.calibrate") as caught:  # fmt: skip
        warn_of_uncalibrated_cells(n_tokens, (100, 2048))
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_uncalibrated_cells(n_tokens, (10, 2048))
        warn_of_uncalibrated_cells(np.zeros(5, dtype=int), (10, 2048))
