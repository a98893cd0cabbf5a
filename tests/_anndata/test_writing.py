"""Keys and names that files can store, and clearing of slots of an earlier call."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from sccello_tools._anndata.writing import (
    check_key,
    check_writable,
    clear_slots,
    storable_names,
    writing,
)
from sccello_tools.errors import ArgumentError, DrugError, LabelError


@pytest.mark.parametrize(
    "key", ["X_sccello", "my types", "T-cell (CD4+)", "größe", "a.b", "_index2"]
)
def test_keys_that_files_can_store(key, adata, tmp_path, write_zarr):
    check_key(key)
    adata.obs[key] = 1
    adata.obsm[key] = np.ones((adata.n_obs, 2))
    adata.uns[key] = {"a": 1}
    adata.write_h5ad(tmp_path / "x.h5ad")
    write_zarr(adata, tmp_path / "x.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = [anndata.read_h5ad(tmp_path / "x.h5ad"), anndata.read_zarr(tmp_path / "x.zarr")]
    for back in read:
        assert key in back.obs
        assert key in back.obsm
        assert key in back.uns


@pytest.mark.parametrize("key", ["a/b", "/a", "a/", "", ".", "..", "_index", "a\x00b", None, 3])
def test_keys_that_files_cannot_store(key, adata):
    with pytest.raises(ArgumentError, match=r"key_added.*got"):
        check_key(key)
    with pytest.raises(ArgumentError, match="scores_key"):
        check_writable(adata, copy=False, key_added="fine", scores_key=key)


NAMES = ["B cell", "T/NK cell", "CD4+/CD8-", "", "_index", ".", "plain"]


def test_names_are_replaced_with_a_warning(adata, tmp_path, write_zarr):
    with pytest.warns(UserWarning, match="'T/NK cell' as 'T|NK cell'") as caught:
        stored = storable_names(NAMES, what="labels")
    assert [warning.filename for warning in caught] == [__file__]
    assert stored == ["B cell", "T|NK cell", "CD4+|CD8-", "unnamed", "index", "dot", "plain"]
    adata.obsm["scores"] = pd.DataFrame(
        np.random.default_rng(0).random((adata.n_obs, len(stored))),
        index=adata.obs_names,
        columns=stored,
    )
    adata.uns["by_group"] = {name: np.arange(3) for name in stored}
    adata.write_h5ad(tmp_path / "x.h5ad")
    write_zarr(adata, tmp_path / "x.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = [anndata.read_h5ad(tmp_path / "x.h5ad"), anndata.read_zarr(tmp_path / "x.zarr")]
    for back in read:
        pd.testing.assert_frame_equal(back.obsm["scores"], adata.obsm["scores"])
        assert sorted(back.uns["by_group"]) == sorted(stored)


def test_storable_names_stay_without_a_warning():
    names = ["B cell", "T-cell", "αβ T cell", "1", "1"]
    assert storable_names(names, what="groups") == names


@pytest.mark.parametrize("names", [["A/B", "A|B"], ["", "unnamed"], ["A/B", "x", "A|B", "A/B"]])
def test_names_that_would_become_equal(names):
    with pytest.raises(LabelError, match=f"{names[0]!r}.*Rename"):
        storable_names(names, what="labels")
    with pytest.raises(DrugError, match="drugs"):
        storable_names(names, what="drugs", error=DrugError)


def annotated(adata, key, *, version=True):
    for suffix in ("", "_confidence", "_status", "_cluster", "_ontology_term_id"):
        adata.obs[key + suffix] = 1
    for suffix in ("_scores", "_std"):
        adata.obsm[key + suffix] = np.ones((adata.n_obs, 2))
    adata.uns[key] = {"sccello_tools_version": "0"} if version else {"mine": 1}
    adata.obs["other"] = 2
    adata.obsm["X_pca"] = np.ones((adata.n_obs, 2))
    adata.uns["other"] = {}
    return adata


@pytest.mark.parametrize("key", ["sccello_cell_type", "my_types"])
@pytest.mark.parametrize("view", [False, True])
def test_companion_slots_are_cleared(adata, key, view):
    adata = annotated(adata, key)
    if view:
        adata = adata[:5]
    with writing(adata, copy=False) as target:
        clear_slots(target, key)
    assert adata.obs.columns.tolist() == ["donor", "other"]
    assert list(adata.obsm) == ["X_pca"]
    assert list(adata.uns) == ["other"]


def test_slots_of_others_are_kept(adata):
    adata = annotated(adata, "cell_type", version=False)
    before = adata.copy()
    clear_slots(adata, "cell_type")
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert list(adata.obsm) == list(before.obsm)
    assert dict(adata.uns) == dict(before.uns)


def test_slots_of_this_package_are_cleared_after_a_concatenation(adata):
    """anndata.concat drops uns, so only the name tells."""
    adata = annotated(adata, "sccello_cell_type")
    del adata.uns["sccello_cell_type"]
    clear_slots(adata, "sccello_cell_type")
    assert adata.obs.columns.tolist() == ["donor", "other"]
