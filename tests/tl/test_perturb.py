"""tl.perturb and get.perturbation_df on real cells with a small model."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import sccello_tools as sccello
from sccello_tools.errors import (
    ArgumentError,
    GeneMatchError,
    GroupError,
    LabelError,
    NotCountsError,
    NotFoundError,
)
from sccello_tools.get import perturbation_df
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.tl import marker_genes, perturb
from sccello_tools.tokens import VOCABULARY_SIZE

KEY = "sccello_perturbation"
FAST = {"max_length": 40, "n_controls": 20}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    torch.manual_seed(3)
    network = ScCelloModel(
        EncoderConfig(hidden_size=16, n_layers=2, n_heads=2, intermediate_size=16)
    )
    with torch.no_grad():
        for parameter in network.encoder.layers.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = sccello.models.save(network, tmp_path_factory.mktemp("models") / "tiny")
    return sccello.models.load(folder, device="cpu")


@pytest.fixture
def genes(adata):
    """Six genes that are among the first 40 tokens of most cells."""
    tokens = sccello.pp.tokenize(adata, max_length=40)
    counts = np.bincount(tokens.ids, minlength=VOCABULARY_SIZE)
    of_variable = sccello.tokens.match_gene_names(adata.var_names.tolist()).tokens
    return adata.var_names[np.argsort(-counts[of_variable], kind="stable")[:6]].tolist()


def test_single_genes_agree_with_marker_genes(adata, model, genes):
    perturb(adata, genes, groupby="donor", model=model, layer_added="single", **FAST)
    marker_genes(adata, "donor", model=model, genes=genes, max_length=40, layer_added="markers")
    difference = abs(adata.layers["single"] - adata.layers["markers"])
    assert adata.layers["single"].nnz > 20
    assert difference.max() < 1e-5
    table = perturbation_df(adata)
    markers = sccello.get.marker_genes_df(adata).set_index(["group", "names"])
    for row in table.dropna(subset="shift").itertuples():
        expected = markers.loc[(row.group, row.perturbation), "mean_scores"]
        assert row.shift == pytest.approx(expected, rel=1e-3, abs=1e-8)


def test_table(adata, model, genes):
    perturb(adata, genes[:2], groupby="donor", pairs=True, model=model, **FAST)
    table = perturbation_df(adata)
    a, b = genes[:2]
    assert table["group"].cat.categories.tolist() == ["a", "b", "c"]
    assert set(table["perturbation"]) == {a, b, f"{a}+{b}"}
    assert table["n_cells"].tolist() == [10] * 9
    assert (
        table.groupby("group", observed=True)["shift"]
        .apply(lambda shifts: shifts.is_monotonic_decreasing)
        .all()
    )
    tested = table.dropna(subset="pval")
    assert len(tested)
    assert tested["pval"].between(1 / 21, 1).all()
    assert (tested["fdr"] >= tested["pval"] - 1e-12).all()
    np.testing.assert_allclose(
        table["log2_ratio"], np.log2(table["shift"] / table["control_shift"])
    )
    pairs = table[table["perturbation"] == f"{a}+{b}"]
    assert np.isfinite(pairs["interaction"]).any()
    assert table.loc[table["perturbation"] == a, "interaction"].isna().all()
    assert perturbation_df(adata, "b", max_fdr=1).shape[0] <= 3


def test_sets_by_name_and_by_tuple(adata, model, genes):
    options = {"groupby": "donor", "model": model, "mode": "delete", **FAST}
    perturb(adata, {"both": genes[:2], "one": genes[2]}, layer_added="cells", **options)
    named = perturbation_df(adata).set_index(["group", "perturbation"])
    cells = adata.obsm["cells"]
    assert cells.columns.tolist() == ["both", "one"]
    assert cells.shape == (adata.n_obs, 2)
    assert np.isfinite(cells["both"]).any()
    perturb(adata, [tuple(genes[:2]), genes[2]], **options)
    listed = perturbation_df(adata).set_index(["group", "perturbation"])
    name = "+".join(genes[:2])
    for group in "abc":
        assert named.loc[(group, "both"), "shift"] == pytest.approx(
            listed.loc[(group, name), "shift"], nan_ok=True
        )
        assert named.loc[(group, "both"), "pval"] == pytest.approx(
            listed.loc[(group, name), "pval"], nan_ok=True
        )


def test_overexpression_reaches_cells_without_the_gene(adata, model, genes):
    counts = adata.X.toarray()
    counts[:5, adata.var_names.get_loc(genes[0])] = 0
    adata.X = counts
    tokens = sccello.pp.tokenize(adata, max_length=40)
    token = int(sccello.tokens.match_gene_names([genes[0]], min_matched=1).tokens[0])
    options = {"model": model, **FAST}
    perturb(adata, genes[0], mode="overexpress", **options)
    not_first = sum(tokens[i][1] != token for i in range(adata.n_obs))
    assert perturbation_df(adata)["n_changed"].tolist() == [not_first]
    perturb(adata, genes[0], mode="delete", **options)
    expressing = sum(token in tokens[i] for i in range(adata.n_obs))
    assert perturbation_df(adata)["n_changed"].tolist() == [expressing]
    assert expressing <= 25 < not_first + expressing


def test_toward_a_group_or_cells(adata, model, genes):
    options = {"groupby": "donor", "model": model, **FAST}
    perturb(adata, genes, toward="b", **options)
    by_group = perturbation_df(adata)
    assert {"toward", "control_toward", "toward_pval", "toward_fdr"} <= set(by_group)
    assert adata.uns[KEY]["params"]["toward"] == "b"
    cells = adata[adata.obs["donor"] == "b"].copy()
    perturb(adata, genes, toward=cells, **options)
    by_cells = perturbation_df(adata)
    np.testing.assert_allclose(by_group["toward"], by_cells["toward"], rtol=1e-4, atol=1e-7)
    options["model"] = "sccello-small"
    with pytest.raises(LabelError, match=r"'nothing at all'.*'a', 'b', 'c'"):
        perturb(adata, genes, toward="nothing at all", **options)


def test_toward_a_cell_type_of_the_model(adata, genes):
    perturb(adata, genes[:1], toward="T cell", n_controls=0, max_length=40)
    table = perturbation_df(adata)
    assert np.isfinite(table["toward"]).all()
    assert adata.uns[KEY]["params"]["representation"] == "cell"
    with pytest.raises(LabelError, match="Tc1 cell"):
        perturb(adata, genes[:1], toward="Tc1 cell", max_length=40)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_it_survives_writing(adata, model, genes, tmp_path, write_zarr, form):
    adata.obs["donor"] = adata.obs["donor"].cat.rename_categories({"a": "alpha/beta"})
    perturb(adata, genes[:2], groupby="donor", toward="b", model=model, layer_added="cells", **FAST)
    path = tmp_path / f"cells.{form}"
    if form == "h5ad":
        adata.write_h5ad(path)
        back = anndata.read_h5ad(path)
    else:
        write_zarr(adata, path)
        back = anndata.read_zarr(path)
    pd.testing.assert_frame_equal(perturbation_df(back), perturbation_df(adata))
    assert (back.layers["cells"] != adata.layers["cells"]).nnz == 0
    assert back.uns[KEY]["params"]["mode"] == "mask"


def test_backed_copy_and_views(adata, model, genes, tmp_path):
    options = {"groupby": "donor", "model": model, **FAST}
    copied = perturb(adata, genes[:2], copy=True, **options)
    assert KEY not in adata.uns
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r+")
    perturb(backed, genes[:2], **options)
    pd.testing.assert_frame_equal(perturbation_df(backed), perturbation_df(copied))
    backed.file.close()


def test_counts_in_raw(adata, model, genes):
    options = {"groupby": "donor", "model": model, **FAST}
    expected = perturb(adata, genes[:2], copy=True, **options)
    adata.raw = adata
    adata.X = adata.X.log1p()
    adata = adata[:, 100:].copy()
    perturb(adata, genes[:2], layer="raw.X", layer_added="cells", **options)
    pd.testing.assert_frame_equal(perturbation_df(adata), perturbation_df(expected))
    assert adata.layers["cells"].shape == adata.shape
    with pytest.raises(NotCountsError, match=r"raw\.X"):
        perturb(adata, adata.var_names[:2].tolist(), **options)


def test_rng_decides(adata, model, genes):
    options = {"groupby": "donor", "model": model, "n_cells_per_group": 4, "copy": True, **FAST}
    same = [perturbation_df(perturb(adata, genes, rng=1, **options)) for _ in range(2)]
    pd.testing.assert_frame_equal(*same)
    other = perturbation_df(perturb(adata, genes, rng=2, **options))
    assert not same[0].equals(other)


def test_without_groupby_all_cells_are_one_group(adata, model, genes):
    perturb(adata, genes[:2], model=model, method="fast", **FAST)
    assert perturbation_df(adata)["group"].unique().tolist() == ["all"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"genes": ["no such gene"]}, GeneMatchError, "no such gene"),
        ({"genes": []}, GeneMatchError, "empty"),
        ({"genes": {"x": []}}, ArgumentError, "'x'"),
        ({"mode": "knockout"}, ArgumentError, "'mask', 'delete', 'overexpress'"),
        ({"method": "screen"}, ArgumentError, "'perturb', 'fast'"),
        ({"method": "fast", "mode": "delete"}, ArgumentError, "method='fast'"),
        ({"pairs": True, "genes": {"x": ["a"]}}, ArgumentError, "pairs=True"),
        ({"groupby": "nothing"}, GroupError, "nothing"),
        ({"key_added": "a/b"}, ArgumentError, "a/b"),
        ({"max_length": 4096}, ArgumentError, "2048"),
        ({"toward": 3}, ArgumentError, "toward"),
    ],
)
def test_invalid_arguments(adata, model, genes, arguments, error, message):
    given = {"genes": genes[:2], "groupby": "donor", "model": model, **FAST} | arguments
    with pytest.raises(error, match=message):
        perturb(adata, **given)
    assert KEY not in adata.uns


def test_genes_may_be_named_by_symbol_or_id(adata, model, genes):
    match = sccello.tokens.match_gene_names(genes, min_matched=1)
    symbols = sccello.tokens.GeneVocabulary.load().symbol_of
    named = [*match.gene_ids[:2].tolist(), *(symbols[g] for g in match.gene_ids[2:4].tolist())]
    perturb(adata, genes[:4], groupby="donor", model=model, **FAST)
    expected = perturbation_df(adata).set_index(["group", "perturbation"])["shift"]
    perturb(adata, named, groupby="donor", model=model, **FAST)
    found = perturbation_df(adata).set_index(["group", "perturbation"])["shift"]
    for group in ("a", "b", "c"):
        for name, gene in zip(named, genes):
            assert found[group, name] == pytest.approx(expected[group, gene])


def test_genes_that_change_no_cell(adata, model, genes):
    counts = adata.X.toarray()
    counts[:, adata.var_names.get_loc(genes[0])] = 0
    adata.X = counts
    with pytest.raises(GeneMatchError, match=genes[0]):
        perturb(adata, genes[:1], groupby="donor", model=model, **FAST)
    with pytest.warns(UserWarning, match=f"1 of 2 perturbations.*{genes[0]}"):
        perturb(adata, genes[:2], groupby="donor", model=model, **FAST)
    row = perturbation_df(adata, "a").set_index("perturbation").loc[genes[0]]
    assert row["n_changed"] == 0
    assert np.isnan(row["pval"])


def test_no_result_no_table(adata):
    with pytest.raises(NotFoundError, match=r"tl\.perturb"):
        perturbation_df(adata)


def test_unknown_group(adata, model, genes):
    perturb(adata, genes[:1], groupby="donor", model=model, **FAST)
    with pytest.raises(NotFoundError, match=r"'z'.*'a', 'b', 'c'"):
        perturbation_df(adata, "z")


def test_insulin_and_glucagon():
    """Known biology: hormones are what the shipped model recognises islet cells by."""
    adata = sccello.datasets.pancreas_tritschler()
    insulin, glucagon, somatostatin = "ENSG00000254647", "ENSG00000115263", "ENSG00000157005"
    types = ["type B pancreatic cell", "pancreatic A cell", "pancreatic D cell"]
    adata = adata[adata.obs["cell_type"].isin(types)].copy()
    perturb(
        adata,
        [insulin, glucagon, somatostatin],
        groupby="cell_type",
        n_cells_per_group=6,
        max_length=200,
        n_controls=50,
    )
    for group, gene in zip(types, (insulin, glucagon, somatostatin)):
        row = perturbation_df(adata, group).set_index("perturbation").loc[gene]
        assert row["shift"] > 10 * row["control_shift"]
        assert row["pval"] < 0.05
