"""One prediction per cell, independent of other cells; results survive writing; invalid input is rejected."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.drug import DrugResponseConfig
from sccello_tools.drug.files import save_model
from sccello_tools.errors import (
    BackendError,
    DrugError,
    GeneMatchError,
    GroupError,
    NotCountsError,
    NotFoundError,
    WeightsError,
)

KEY = "sccello_drug_response"


@pytest.fixture(scope="module")
def gdsc():
    return sccello.datasets.gdsc()


@pytest.fixture(scope="module")
def small(gdsc, tiny_model_folder):
    """Two networks on the expression and a tiny embedding of the excerpt."""
    config = DrugResponseConfig(
        max_epochs=2, hidden_size=8, graph_size=8, n_graph_layers=1, n_components=10
    )
    return sccello.tl.train_drug_response(gdsc, model=tiny_model_folder, n_members=2, config=config)


@pytest.fixture(scope="module")
def _cells():
    return sccello.datasets.pancreas_tritschler()[::20].copy()


@pytest.fixture
def cells(_cells):
    """30 real cells; a test may change them."""
    return _cells.copy()


@pytest.fixture(scope="module")
def predicted(_cells, small):
    return sccello.tl.drug_response(_cells, model=small, copy=True)


def test_every_cell_has_a_prediction(predicted, small):
    table = predicted.obsm[KEY]
    assert table.shape == (predicted.n_obs, 20)
    assert table.index.equals(predicted.obs_names)
    assert table.columns.tolist() == list(small.drugs)
    assert set(table.dtypes) == {np.dtype(np.float32)}
    assert np.isfinite(table.to_numpy()).all()
    assert (predicted.obsm[KEY + "_std"].to_numpy() > 0).all()
    assert predicted.uns[KEY]["unit"] == "ln IC50, µM"


def test_nothing_else_is_changed(cells, small):
    before = cells.copy()
    sccello.tl.drug_response(cells, model=small, drugs=["Erlotinib"])
    assert set(cells.obsm) - set(before.obsm) == {KEY, KEY + "_std"}
    assert list(cells.obs) == list(before.obs)
    assert list(cells.var) == list(before.var)
    assert (cells.X != before.X).nnz == 0


def test_predictions_do_not_depend_on_other_cells(cells, small, predicted):
    some = cells[[7, 3]].copy()
    sccello.tl.drug_response(some, model=small)
    np.testing.assert_allclose(
        some.obsm[KEY], predicted.obsm[KEY].iloc[[7, 3]], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("form", ["dense", "csc", "genes turned around"])
def test_the_form_of_the_matrix_does_not_matter(cells, small, predicted, form):
    if form == "dense":
        cells.X = cells.X.toarray()
    elif form == "csc":
        cells.X = sparse.csc_matrix(cells.X)
    else:
        cells = cells[:, ::-1].copy()
    sccello.tl.drug_response(cells, model=small)
    np.testing.assert_allclose(cells.obsm[KEY], predicted.obsm[KEY], rtol=1e-4, atol=1e-4)


def test_cells_without_counts_are_nan_and_counted(cells, small):
    counts = cells.X.toarray()
    counts[[2, 5]] = 0
    cells.X = sparse.csr_matrix(counts)
    with pytest.warns(UserWarning, match="2 of 30 cells"):
        sccello.tl.drug_response(cells, model=small)
    missing = cells.obsm[KEY].isna().all(axis=1).to_numpy()
    assert np.flatnonzero(missing).tolist() == [2, 5]


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_it_survives_writing_and_subsetting(predicted, small, tmp_path, write_zarr, form):
    adata = predicted.copy()
    sccello.tl.drug_response(adata, model=small, groupby="cell_type", key_added="by_type")
    path = tmp_path / f"cells.{form}"
    if form == "h5ad":
        adata.write_h5ad(path)
        back = anndata.read_h5ad(path)
    else:
        write_zarr(adata, path)
        back = anndata.read_zarr(path)
    pd.testing.assert_frame_equal(back.obsm[KEY], adata.obsm[KEY], check_names=False)
    part = back[4:9]
    assert part.obsm[KEY].shape == (5, 20)
    groups = sccello.get.drug_response_df(back, key="by_type")
    pd.testing.assert_frame_equal(groups, sccello.get.drug_response_df(adata, key="by_type"))


def test_a_group_is_the_sum_of_its_cells(cells, small):
    cells.obs["half"] = pd.Categorical(["a"] * 12 + ["b"] * 18)
    sccello.tl.drug_response(cells, model=small, groupby="half")
    groups = sccello.get.drug_response_df(cells)
    assert groups.index.tolist() == ["a", "b"]
    assert cells.uns[KEY]["n_cells"].tolist() == [12, 18]
    assert KEY not in cells.obsm
    summed = anndata.AnnData(
        np.vstack([cells.X[:12].sum(axis=0).A1, cells.X[12:].sum(axis=0).A1]), var=cells.var
    )
    sccello.tl.drug_response(summed, model=small)
    np.testing.assert_allclose(groups, summed.obsm[KEY], rtol=1e-4, atol=1e-4)


def test_centring_takes_away_what_all_groups_have_alike(cells, small, gdsc):
    config = DrugResponseConfig(max_epochs=2, hidden_size=8, n_components=10)
    plain = sccello.tl.train_drug_response(
        gdsc, cell_features=("expression",), drug_encoder="fingerprint", n_members=1, config=config
    )
    cells.obs["half"] = pd.Categorical(["a"] * 12 + ["b"] * 18)
    other = cells.copy()  # as if by a technique that sees some genes better than others
    gain = np.random.default_rng(0).integers(1, 30, cells.n_vars)
    other.X = sparse.csr_matrix(cells.X.multiply(gain))
    found = {}
    for name, adata in (("one", cells), ("other", other)):
        for center in (False, True):
            sccello.tl.drug_response(adata, model=plain, groupby="half", center=center)
            found[name, center] = sccello.get.drug_response_df(adata)
    moved = [np.abs(found["one", c] - found["other", c]).to_numpy().mean() for c in (False, True)]
    assert moved[1] < 0.5 * moved[0]
    with pytest.raises(ValueError, match="groupby="):
        sccello.tl.drug_response(cells, model=small, center=True)
    cells.obs["one"] = "a"
    with pytest.raises(GroupError, match="at least 2 groups"):
        sccello.tl.drug_response(cells, model=small, groupby="one", center=True)


def test_columns_of_one_gene_are_summed(cells, small, predicted):
    first, second = cells.copy(), cells.copy()
    counts = cells.X.toarray()
    half = np.floor(counts / 2)
    first.X, second.X = half, counts - half
    twice = anndata.AnnData(
        np.hstack([first.X, second.X]),
        obs=cells.obs,
        var=pd.DataFrame(
            {"id": [*cells.var_names, *cells.var_names]},
            index=[f"g{i}" for i in range(2 * cells.n_vars)],
        ),
    )
    with pytest.warns(UserWarning, match="repeat a gene"):
        sccello.tl.drug_response(twice, model=small, gene_ids="id")
    np.testing.assert_allclose(twice.obsm[KEY], predicted.obsm[KEY], rtol=1e-4, atol=1e-4)


def test_new_drugs_come_by_smiles(cells, small):
    sccello.tl.drug_response(cells, model=small, drugs={"aspirin": "CC(=O)Oc1ccccc1C(=O)O"})
    assert cells.obsm[KEY].columns.tolist() == ["aspirin"]
    assert np.isfinite(cells.obsm[KEY].to_numpy()).all()


def test_what_is_wrong_is_refused_and_nothing_is_written(cells, small):
    def refused(error, match, adata=cells, **options):
        with pytest.raises(error, match=match):
            sccello.tl.drug_response(adata, **({"model": small} | options))
        assert KEY not in adata.obsm
        assert KEY not in adata.uns

    refused(DrugError, "'Unobtainin'", drugs=["Unobtainin"])
    refused(DrugError, "C1CC", drugs={"x": "C1CC"})
    refused(GroupError, "no column 'cluster'", groupby="cluster")
    refused(WeightsError, "sccello-small.*gdsc-small", model="sccello-small")
    refused(ValueError, "counts must be.*'maybe'", counts="maybe")
    few = cells[:, :600].copy()
    refused(GeneMatchError, "genes", adata=few, min_matched=10)
    logs = cells.copy()
    logs.X = logs.X.log1p()
    refused(NotCountsError, "raw counts", adata=logs)


def test_missing_smiles_in_a_table_of_drugs(cells, small):
    table = pd.DataFrame(
        {"name": ["aspirin", "BMS-1"], "smiles": ["CC(=O)Oc1ccccc1C(=O)O", np.nan]}
    )
    with pytest.raises(DrugError, match="'BMS-1'"):
        sccello.tl.drug_response(
            cells, model=small, drugs=table.set_index("name")["smiles"].to_dict()
        )


def test_the_device_concerns_the_encoder(cells, small, tmp_path):
    save_model(small, tmp_path / "mine")
    with pytest.raises(BackendError, match="quantum"):
        sccello.tl.drug_response(cells, model=tmp_path / "mine", device="quantum")
    assert sccello.drug.load(tmp_path / "mine", device="cpu").device == "cpu"


def test_a_second_call_leaves_nothing_of_the_first(cells, small):
    sccello.tl.drug_response(cells, model=small)
    cells.obs["half"] = pd.Categorical(["a"] * 12 + ["b"] * 18)
    sccello.tl.drug_response(cells, model=small, groupby="half")
    assert KEY not in cells.obsm
    assert KEY + "_std" not in cells.obsm


def test_names_of_drugs_that_files_cannot_store(cells, small, tmp_path):
    with pytest.warns(UserWarning, match="'a/b' as"):
        sccello.tl.drug_response(cells, model=small, drugs={"a/b": "CCO"})
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").obsm[KEY].shape == (30, 1)


def test_no_groups_no_table(cells):
    with pytest.raises(NotFoundError, match="groupby="):
        sccello.get.drug_response_df(cells)
