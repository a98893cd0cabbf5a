from __future__ import annotations

import logging
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.annotation import Reference
from sccello_tools.errors import ArgumentError, ConfigError, GroupError, NotFoundError, WeightsError
from sccello_tools.tl import annotate, build_reference, embed, search

INDICES, DISTANCES = "sccello_neighbors_indices", "sccello_neighbors_distances"


@pytest.fixture
def model(tiny_model_folder):
    return tiny_model_folder


@pytest.fixture
def cells(adata):
    found = adata.copy()
    rng = np.random.default_rng(0)
    found.obs["study"] = pd.Categorical(rng.choice(["A", "B"], found.n_obs))
    found.obs["age"] = rng.integers(20, 80, found.n_obs)
    found.obs["label"] = np.where(np.arange(found.n_obs) % 2, "one", "two")
    return found


@pytest.fixture
def reference(cells):
    return cells[:20].copy()


@pytest.fixture
def query(cells):
    return cells[20:].copy()


def cosines(query, reference):
    a, b = (
        x.obsm["X_sccello"] / np.linalg.norm(x.obsm["X_sccello"], axis=1, keepdims=True)
        for x in (query, reference)
    )
    return a @ b.T


def brute_force(query, reference, n):
    away = 1 - cosines(query, reference)
    order = np.argsort(away, axis=1, kind="stable")[:, :n]
    return order, np.take_along_axis(away, order, axis=1)


def test_neighbours_are_those_of_all_distances(query, reference, model):
    search(query, reference, n_neighbors=4, model=model, device="cpu")
    rows, distances = brute_force(query, reference, 4)
    np.testing.assert_array_equal(query.obsm[INDICES], rows)
    np.testing.assert_allclose(query.obsm[DISTANCES], distances, atol=5e-4)  # float16
    assert (np.diff(query.obsm[DISTANCES], axis=1) >= 0).all()
    assert query.obsm[INDICES].dtype == np.int64
    assert query.uns["sccello_neighbors"]["n_reference"] == 20


def test_a_cell_of_the_reference_finds_itself(reference, model):
    search(reference, reference.copy(), n_neighbors=1, model=model, device="cpu")
    assert reference.obsm[INDICES][:, 0].tolist() == list(range(20))
    np.testing.assert_allclose(reference.obsm[DISTANCES], 0, atol=1e-6)


def test_columns_of_the_reference_are_reported(query, reference, model, caplog):
    with caplog.at_level(logging.INFO, "sccello_tools"):
        search(
            query, reference, n_neighbors=3, obs_keys=["study", "age"], model=model, device="cpu"
        )
    assert "neighbours by study" in caplog.text
    table = sccello.get.neighbors_df(query)
    assert list(table.columns) == ["obs_name", "rank", "index", "cell", "distance", "study", "age"]
    assert len(table) == 3 * query.n_obs
    expected = reference.obs.iloc[table["index"]]
    assert table["cell"].tolist() == expected.index.tolist()
    assert table["study"].astype(str).tolist() == expected["study"].astype(str).tolist()
    assert table["age"].tolist() == expected["age"].tolist()
    fractions = sccello.get.neighbor_fractions(query, "study")
    by_hand = (reference.obs["study"].to_numpy()[query.obsm[INDICES]] == "A").mean(axis=1)
    np.testing.assert_allclose(fractions["A"], by_hand)
    np.testing.assert_allclose(fractions.sum(axis=1), 1)
    groups = sccello.get.neighbor_fractions(query, "study", groupby="label")
    assert groups.loc["one", "A"] == pytest.approx(by_hand[query.obs["label"] == "one"].mean())


def without_counts(adata, row):
    found = adata.copy()
    found.X = sparse.diags_array((np.arange(found.n_obs) != row).astype("float32")) @ found.X
    found.X.eliminate_zeros()
    return found


def test_cells_without_counts_have_no_neighbours(query, reference, model):
    query, reference = without_counts(query, 3), without_counts(reference, 5)
    with pytest.warns(UserWarning, match="no counts"):
        search(query, reference, n_neighbors=19, obs_keys="study", model=model, device="cpu")
    assert (query.obsm[INDICES][3] == -1).all()
    assert np.isnan(query.obsm[DISTANCES][3]).all()
    others = np.delete(query.obsm[INDICES], 3, axis=0)
    assert set(others.ravel()) == set(range(20)) - {5}
    assert sccello.get.neighbor_fractions(query, "study").iloc[3].isna().all()
    assert query.obs_names[3] not in set(sccello.get.neighbors_df(query)["obs_name"])


def test_built_and_saved_references(query, reference, model, tmp_path):
    built = build_reference(
        reference, "label", batch_key="study", obs_keys=["age"], model=model, device="cpu"
    )
    built.save(tmp_path / "reference")
    search(query, reference, n_neighbors=3, obs_keys=["age", "study"], model=model, device="cpu")
    expected = sccello.get.neighbors_df(query)
    for given in (built, tmp_path / "reference", str(tmp_path / "reference")):
        search(query, given, n_neighbors=3, key_added="again", model=model, device="cpu")
        found = sccello.get.neighbors_df(query, key="again")
        pd.testing.assert_frame_equal(found, expected, check_categorical=False)
    search(query, built, key_added="again", obs_keys=["study"], model=model, device="cpu")
    assert list(query.uns["again"]["cells"]) == ["index", "cell", "study"]


def test_indices_of_an_extended_reference_count_all_cells(query, reference, model, tmp_path):
    reference.obs.loc[reference.obs_names[3], "label"] = (
        np.nan
    )  # without a label: not in the reference
    halves = reference[:12].copy(), reference[12:].copy()
    halves[0].obs["study"] = "first"
    halves[1].obs["study"] = "second"
    built = [
        build_reference(half, "label", obs_keys=["study"], model=model, device="cpu")
        for half in halves
    ]
    joined = built[0].extend(built[1])
    joined.save(tmp_path / "joined")
    loaded = Reference.load(tmp_path / "joined")
    search(query, loaded, n_neighbors=19, model=model, device="cpu")
    table = sccello.get.neighbors_df(query)
    assert set(table["index"]) == set(range(20)) - {3}
    assert table["cell"].tolist() == reference.obs_names[table["index"]].tolist()
    assert table["study"].tolist() == np.where(table["index"] < 12, "first", "second").tolist()
    assert table["study"].dtype == "category"


def test_results_survive_files(query, reference, model, tmp_path, write_zarr):
    search(query, reference, n_neighbors=2, obs_keys=["study", "age"], model=model, device="cpu")
    expected = sccello.get.neighbors_df(query), sccello.get.neighbor_fractions(query, "study")
    query.write_h5ad(tmp_path / "x.h5ad")
    write_zarr(query, tmp_path / "x.zarr")
    for again in (anndata.read_h5ad(tmp_path / "x.h5ad"), anndata.read_zarr(tmp_path / "x.zarr")):
        pd.testing.assert_frame_equal(sccello.get.neighbors_df(again), expected[0])
        pd.testing.assert_frame_equal(sccello.get.neighbor_fractions(again, "study"), expected[1])


def test_annotation_with_neighbours(query, reference, model):
    built = build_reference(
        reference, "label", n_neighbors=5, obs_keys=["study"], model=model, device="cpu"
    )
    annotate(query, built, model=model, device="cpu", return_neighbors=True)
    plain = annotate(query, built, model=model, device="cpu", copy=True, key_added="plain")
    assert (
        query.obs["sccello_cell_type"].astype(str).tolist()
        == plain.obs["plain"].astype(str).tolist()
    )
    key = "sccello_cell_type_neighbors"
    search(query, built, n_neighbors=5, model=model, device="cpu")
    np.testing.assert_array_equal(query.obsm[f"{key}_indices"], query.obsm[INDICES])
    np.testing.assert_array_equal(query.obsm[f"{key}_distances"], query.obsm[DISTANCES])
    assert list(sccello.get.neighbor_fractions(query, "study", key=key)) == ["A", "B"]
    annotate(
        query, built, model=model, device="cpu"
    )  # no neighbours of an earlier annotation remain
    assert key not in query.uns
    assert f"{key}_indices" not in query.obsm


def test_annotation_with_neighbours_of_an_anndata(query, reference, model):
    annotate(
        query,
        reference,
        label_key="label",
        model=model,
        device="cpu",
        return_neighbors=True,
        obs_keys=["age"],
        batch_key="study",
    )
    assert list(query.uns["sccello_cell_type_neighbors"]["cells"]) == ["index", "cell", "age"]


def test_subsets_keep_their_neighbours(query, reference, model):
    search(query, reference, n_neighbors=2, obs_keys="study", model=model, device="cpu")
    table, fractions = (
        sccello.get.neighbors_df(query),
        sccello.get.neighbor_fractions(query, "study"),
    )
    part = query[[7, 2]]
    own = sccello.get.neighbors_df(part)
    assert own["obs_name"].tolist() == np.repeat(part.obs_names, 2).tolist()
    expected = table.set_index(["obs_name", "rank"]).loc[pd.MultiIndex.from_frame(own.iloc[:, :2])]
    assert own["cell"].tolist() == expected["cell"].tolist()
    pd.testing.assert_frame_equal(
        sccello.get.neighbor_fractions(part, "study"), fractions.loc[part.obs_names]
    )


def test_views_and_backed_cells(cells, query, reference, model, tmp_path):
    search(query, reference, n_neighbors=2, model=model, device="cpu")
    view = cells[20:]
    search(view, cells[:20], n_neighbors=2, model=model, device="cpu")
    np.testing.assert_array_equal(view.obsm[INDICES], query.obsm[INDICES])
    assert INDICES not in cells.obsm
    for name, adata in (("query", cells[20:]), ("reference", cells[:20])):
        adata.copy().write_h5ad(tmp_path / f"{name}.h5ad")
    backed, other = (
        anndata.read_h5ad(tmp_path / f"{name}.h5ad", backed="r") for name in ("query", "reference")
    )
    search(backed, other, n_neighbors=2, model=model, device="cpu")
    np.testing.assert_array_equal(backed.obsm[INDICES], query.obsm[INDICES])
    backed.file.close()
    other.file.close()


def test_missing_values_of_a_column(query, reference, model):
    reference.obs["study"] = reference.obs["study"].where(np.arange(20) % 2 == 0)
    reference.obs["age"] = reference.obs["age"].where(np.arange(20) % 4 > 0)
    search(query, reference, n_neighbors=6, obs_keys=["study", "age"], model=model, device="cpu")
    fractions = sccello.get.neighbor_fractions(query, "study")
    assert list(fractions) == ["A", "B", "missing"]
    np.testing.assert_allclose(fractions["missing"], (query.obsm[INDICES] % 2).mean(axis=1))
    table = sccello.get.neighbors_df(query)
    np.testing.assert_array_equal(table["study"].isna(), table["index"] % 2 == 1)
    np.testing.assert_array_equal(table["age"].isna(), table["index"] % 4 == 0)


def test_a_small_reference_gives_fewer_neighbours(query, reference, model):
    search(query, reference[:4].copy(), n_neighbors=9, model=model, device="cpu")
    assert query.obsm[INDICES].shape == (query.n_obs, 4)
    assert (np.sort(query.obsm[INDICES], axis=1) == np.arange(4)).all()


def test_a_copy(query, reference, model):
    found = search(query, reference, model=model, device="cpu", copy=True)
    assert INDICES in found.obsm
    assert INDICES not in query.obsm
    assert found.obsm[INDICES].shape == (query.n_obs, 15)


def test_refusals(query, reference, model, tmp_path):
    with pytest.raises(ArgumentError, match="n_neighbors must be >= 1"):
        search(query, reference, n_neighbors=0)
    with pytest.raises(ArgumentError, match="key_added"):
        search(query, reference, key_added="a/b")
    with pytest.raises(GroupError, match=r"no column 'site'.*'study'.*obs_keys"):
        search(query, reference, obs_keys=["site"], model=model)
    built = build_reference(reference, "label", model=model, device="cpu")
    with pytest.raises(GroupError, match=r"no column 'study'.*build_reference"):
        search(query, built, obs_keys=["study"], model=model, device="cpu")
    with pytest.raises(ConfigError, match="Pass the model of the reference"):
        search(query, built, model="sccello-small", device="cpu")
    gone = replace(built, model=str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"gone'.*model="):
        search(query, gone, device="cpu")
    with pytest.raises(WeightsError):
        search(query, tmp_path)
    empty = reference[:1].copy()
    empty.obsm["X_sccello"] = np.full((1, 16), np.nan, np.float32)
    with pytest.raises(ArgumentError, match="None of the 1 reference cells has counts"):
        search(query, empty, model=model, device="cpu")
    embed(query, model=model, device="cpu")
    for ask in (sccello.get.neighbors_df, lambda x: sccello.get.neighbor_fractions(x, "study")):
        with pytest.raises(NotFoundError, match=r"tl\.search"):
            ask(query)
    search(query, reference, model=model, device="cpu")
    with pytest.raises(NotFoundError, match=r"no column 'study'.*obs_keys"):
        sccello.get.neighbor_fractions(query, "study")


def test_damaged_references(reference, model, tmp_path):
    built = build_reference(reference, "label", model=model, device="cpu")
    folder = built.save(tmp_path / "reference")
    next(folder.glob("*.parquet")).unlink()
    with pytest.raises(WeightsError, match=r"parquet is missing.*build_reference"):
        Reference.load(folder)
