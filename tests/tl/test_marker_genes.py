from __future__ import annotations

import dataclasses

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from scipy import sparse, stats

import sccello_tools as sccello
from sccello_tools.errors import GeneMatchError, GroupError, NotCountsError, WeightsError
from sccello_tools.get import marker_genes_df
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.perturbation import perturbation_scores
from sccello_tools.perturbation.statistics import group_statistics, mann_whitney
from sccello_tools.tl import marker_genes

KEY = "sccello_marker_genes"
FAST = {"method": "fast", "max_length": 40}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    torch.manual_seed(3)
    config = EncoderConfig(hidden_size=16, n_layers=2, n_heads=2, intermediate_size=16)
    network = ScCelloModel(config)
    with torch.no_grad():
        for parameter in network.encoder.layers.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = sccello.models.save(network, tmp_path_factory.mktemp("models") / "tiny")
    return sccello.models.load(folder, device="cpu")


@pytest.fixture
def marked(adata, model):
    marker_genes(adata, "donor", model=model, layer_added="markers", **FAST)
    return adata


@pytest.fixture(autouse=True)
def _no_window():
    mpl.use("Agg")
    yield
    mpl.pyplot.close("all")


def test_scores_are_means_over_cells(adata, model):
    marker_genes(
        adata, "donor", model=model, max_length=30, n_cells_per_group=4, layer_added="markers"
    )
    layer = adata.layers["markers"]
    drawn = np.flatnonzero(np.diff(layer.indptr))
    assert adata.obs["donor"].iloc[drawn].value_counts().tolist() == [4, 4, 4]

    tokens = sccello.pp.tokenize(adata[drawn[:1]].copy(), max_length=30)
    values = perturbation_scores(model.network, tokens)
    np.testing.assert_allclose(np.sort(layer[drawn[0]].data), np.sort(values[1:]), rtol=1e-3)

    table = marker_genes_df(adata, "b").set_index("names")
    inside = layer[[i for i in drawn if adata.obs["donor"].iloc[i] == "b"]].toarray()
    outside = layer[[i for i in drawn if adata.obs["donor"].iloc[i] != "b"]].toarray()
    columns = adata.var_names.get_indexer(table.index)
    inside, outside = inside[:, columns], outside[:, columns]
    np.testing.assert_allclose(
        table["scores"], inside.mean(0) - outside.mean(0), rtol=1e-4, atol=1e-12
    )
    seen = (inside > 0).sum(0)
    np.testing.assert_allclose(table["fractions"], seen / 4, rtol=1e-6)
    np.testing.assert_allclose(
        table["mean_scores"], inside.sum(0) / np.maximum(seen, 1), rtol=1e-4, atol=1e-12
    )
    np.testing.assert_allclose(table["reference_fractions"], (outside > 0).mean(0), rtol=1e-6)
    assert table["scores"].is_monotonic_decreasing
    assert table.index.is_unique


def test_structure_is_that_of_scanpy(marked):
    reference = marked.copy()
    sc.pp.normalize_total(reference)
    sc.pp.log1p(reference)
    sc.tl.rank_genes_groups(reference, "donor", method="wilcoxon")
    theirs, ours = reference.uns["rank_genes_groups"], marked.uns[KEY]
    for field in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj"):
        assert type(ours[field]) is type(theirs[field])
        assert ours[field].dtype == theirs[field].dtype
    assert set(theirs["params"]) <= set(ours["params"])


def test_scanpy_reads_it(marked):
    table = sc.get.rank_genes_groups_df(marked, "a", key=KEY, pval_cutoff=1.1)
    assert list(table.columns) == ["names", "scores", "logfoldchanges", "pvals", "pvals_adj"]
    assert table["names"].tolist() == marker_genes_df(marked, "a")["names"].tolist()
    assert len(sc.get.rank_genes_groups_df(marked, None, key=KEY)) == 3 * len(table)


def first_genes(marked, n=3):
    return [name for group in "abc" for name in marker_genes_df(marked, group)["names"].head(n)]


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_scanpy_draws_scores_by_rank(marked):
    axes = sc.pl.rank_genes_groups(marked, key=KEY, n_genes=3, show=False)
    assert [axis.get_title() for axis in axes] == [f"{group} vs. rest" for group in "abc"]
    written = [text.get_text() for axis in axes for text in axis.texts]
    assert written == first_genes(marked)


@pytest.mark.parametrize("values", [None, "logfoldchanges", "scores"])
def test_scanpy_draws_dots(marked, values):
    few = {"key": KEY, "n_genes": 3, "show": False, "dendrogram": False}
    axis = sc.pl.rank_genes_groups_dotplot(marked, values_to_plot=values, **few)["mainplot_ax"]
    assert labels(axis.yaxis) == ["a", "b", "c"]
    assert labels(axis.xaxis) == first_genes(marked)


def test_scanpy_draws_a_heatmap_and_a_matrix(marked):
    few = {"key": KEY, "n_genes": 3, "show": False, "dendrogram": False}
    axes = sc.pl.rank_genes_groups_heatmap(marked, **few)
    assert labels(axes["heatmap_ax"].xaxis) == first_genes(marked)
    axes = sc.pl.rank_genes_groups_matrixplot(marked, **few)
    assert labels(axes["mainplot_ax"].xaxis) == first_genes(marked)


def test_without_layer_added_no_layer_is_written(adata, model):
    marker_genes(adata, "donor", model=model, **FAST)
    assert set(adata.layers) <= {None}  # which is X since anndata 0.13


def test_a_model_without_mask_token_leaves_nothing_behind(adata, model):
    network = ScCelloModel(model.config)
    network.load_state_dict(model.network.state_dict())
    with torch.no_grad():
        network.encoder.word_embeddings.weight[model.config.mask_token_id] = 0
    with pytest.raises(WeightsError, match="mask token"):
        marker_genes(
            adata,
            "donor",
            model=dataclasses.replace(model, network=network),
            layer_added="markers",
            **FAST,
        )
    assert KEY not in adata.uns
    assert set(adata.layers) <= {None}  # which is X since anndata 0.13


def test_h5ad_round_trip(adata, model, tmp_path):
    adata.obs["donor"] = adata.obs["donor"].cat.rename_categories({"a": "alpha/beta"})
    marker_genes(adata, "donor", model=model, layer_added="markers", **FAST)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(marker_genes_df(back), marker_genes_df(adata))
    expected = adata.uns[KEY]["params"]
    assert {k: v for k, v in back.uns[KEY]["params"].items() if k != "n_cells"} == {
        k: v for k, v in expected.items() if k != "n_cells"
    }
    assert (back.layers["markers"] != adata.layers["markers"]).nnz == 0
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r+")
    marker_genes(backed, "donor", model=model, key_added="again", **FAST)
    pd.testing.assert_frame_equal(marker_genes_df(backed, key="again"), marker_genes_df(adata))
    backed.file.close()


def test_without_groupby_all_cells_are_one_group(adata, model):
    marker_genes(adata, model=model, n_cells_per_group=5, **FAST)
    table = marker_genes_df(adata, "all")
    assert (table["scores"] > 0).equals(table["fractions"] > 0)
    assert table["fractions"].max() == 1
    assert table[["pvals", "pvals_adj", "logfoldchanges", "reference_fractions"]].isna().all(None)
    sc.pl.rank_genes_groups(adata, key=KEY, show=False)
    few = {"key": KEY, "n_genes": 3, "show": False, "dendrogram": False}
    sc.pl.rank_genes_groups_dotplot(adata, groupby="donor", **few)


def test_a_group_as_reference(adata, model):
    marker_genes(adata, "donor", model=model, reference="b", **FAST)
    assert adata.uns[KEY]["names"].dtype.names == ("a", "c")
    two = adata[adata.obs["donor"] != "c"].copy()
    marker_genes(two, "donor", model=model, **FAST)
    a, same = marker_genes_df(adata, "a"), marker_genes_df(two, "a")
    joined = a.merge(same, on="names", suffixes=("", "_two"))
    np.testing.assert_allclose(joined["pvals"], joined["pvals_two"])


def test_seed_and_copy(adata, model):
    def names(seed):
        changed = marker_genes(
            adata, "donor", model=model, n_cells_per_group=3, rng=seed, copy=True, **FAST
        )
        return marker_genes_df(changed)

    pd.testing.assert_frame_equal(names(0), names(0))
    assert not names(0).equals(names(1))
    assert KEY not in adata.uns


def test_some_genes(adata, model):
    genes = adata.var_names[np.argsort(-np.asarray(adata.X.sum(0)).ravel())[:2]].tolist()
    marker_genes(adata, "donor", model=model, genes=genes, method="fast")
    table = marker_genes_df(adata, "a")
    assert sorted(table["names"]) == sorted(genes)
    assert (table["fractions"] > 0).all()


def test_genes_that_no_cell_expresses(adata, model):
    counts = adata.X.tolil()
    counts[:, [0, 1]] = 0
    counts[:, 2] = 5
    adata.X = counts.tocsr()
    with pytest.raises(GeneMatchError, match=r"None of the 2 genes .* is among the tokens"):
        marker_genes(adata, "donor", model=model, genes=list(adata.var_names[:2]), method="fast")
    with pytest.warns(UserWarning, match="1 of 2 genes are in none of the 30 sampled cells"):
        marker_genes(adata, "donor", model=model, genes=list(adata.var_names[1:3]), method="fast")
    last = marker_genes_df(adata, "a").set_index("names").loc[adata.var_names[1]]
    assert (last["scores"], last["pvals"], last["fractions"]) == (0, 1, 0)


def test_symbols_and_duplicates_keep_var_names(adata, model):
    adata.var["id"] = adata.var_names
    adata.var_names = [f"name {i}" for i in range(adata.n_vars)]
    adata.var.loc["name 899", "id"] = adata.var.loc["name 0", "id"]
    with pytest.warns(UserWarning, match="repeat a gene of another variable"):
        marker_genes(adata, "donor", model=model, gene_ids="id", **FAST)
    table = marker_genes_df(adata, "a")
    assert sorted(table["names"]) == sorted(adata.var_names)
    assert table.set_index("names").loc["name 899", ["fractions", "pvals"]].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("groupby", "message"),
    [
        ("nothing", r"adata.obs has no column 'nothing' \(columns: 'donor'"),
        ("number", r"'number'\] is numeric \(float64, 2 distinct values\)"),
        ("holes", r"'holes'\] is missing in 3 of 30 cells"),
        ("lonely", r"1 of 2 groups of adata.obs\['lonely'\] have fewer than two cells.*'x' \(1\)"),
        ("single", r"single group, 'only'"),
    ],
)
def test_bad_groups(adata, model, groupby, message):
    adata.obs["number"] = np.arange(30) % 2 * 1.5
    adata.obs["holes"] = pd.Categorical([None] * 3 + ["a", "b", "c"] * 9)
    adata.obs["lonely"] = ["x"] + ["y"] * 29
    adata.obs["single"] = "only"
    with pytest.raises(GroupError, match=message):
        marker_genes(adata, groupby, model=model, **FAST)
    assert KEY not in adata.uns


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"reference": "z"}, GroupError, r"'rest' or a group of .*'a', 'b', 'c'"),
        ({"groupby": None, "reference": "a"}, GroupError, "groupby="),
        ({"n_cells_per_group": 1}, ValueError, "n_cells_per_group must be >= 2, got 1"),
        (
            {"genes": ["no such gene"]},
            GeneMatchError,
            "1 of 1 genes are not variables.*no such gene",
        ),
        ({"genes": []}, GeneMatchError, "genes is empty"),
        ({"method": "exact"}, ValueError, "'perturb', 'fast', 'screen'"),
        ({"max_length": 4096}, ValueError, "2048"),
        ({"layer": "logs"}, NotCountsError, "does not hold raw counts"),
    ],
)
def test_bad_arguments(adata, model, arguments, error, message):
    adata.layers["logs"] = adata.X.log1p()
    with pytest.raises(error, match=message):
        marker_genes(adata, **{"groupby": "donor", "model": model, "method": "fast"} | arguments)


def test_rank_test_is_that_of_scipy():
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=(40, 50)), 1) * (rng.random((40, 50)) < rng.random(50))
    x, y = values[:15] + rng.random(50) * (values[:15] != 0), values[15:]
    expected = stats.mannwhitneyu(x[:, :49], y[:, :49], method="asymptotic").pvalue
    found = mann_whitney(sparse.csr_matrix(x), sparse.csr_matrix(y))
    same = np.ptp(values[:, :49], axis=0) == 0  # scipy 1.18 gives NaN
    assert same.any()
    np.testing.assert_allclose(found[:49], np.where(same, 1, expected), rtol=1e-9)
    constant = mann_whitney(sparse.csr_matrix((5, 3)), sparse.csr_matrix((6, 3)))
    assert constant.tolist() == [1, 1, 1]


def test_a_gene_of_one_group_is_found():
    rng = np.random.default_rng(1)
    values = rng.random((40, 20)) * (rng.random((40, 20)) < 0.5)
    values[:20, 7] += 2
    members = np.arange(40) < 20
    figures = group_statistics(sparse.csr_matrix(values), members, ~members)
    assert figures.pvals_adj.argmin() == 7
    assert figures.pvals_adj[7] < 1e-5 < np.delete(figures.pvals_adj, 7).min()
