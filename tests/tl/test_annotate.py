from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools.annotation import Reference
from sccello_tools.errors import ConfigError, GroupError, LabelError, WeightsError
from sccello_tools.tl import add_types, annotate, annotate_novel, build_reference


@pytest.fixture
def halves(pancreas):
    return pancreas[::2].copy(), pancreas[1::2].copy()


def test_a_reference_of_the_same_tissue_names_most_cells(halves):
    query, reference = halves
    annotate(query, reference=reference, label_key="cell_type", return_scores=True)
    right = query.obs["sccello_cell_type"].astype(str) == query.obs["cell_type"].astype(str)
    assert right.mean() > 0.85
    scores = query.obsm["sccello_cell_type_scores"]
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    named = scores.to_numpy().argmax(axis=1)
    assert (np.array(scores.columns)[named] == query.obs["sccello_cell_type"].astype(str)).all()
    ids = query.obs["sccello_cell_type_ontology_term_id"].astype(str)
    ontology = sccello.ontology.CellOntology.load()
    assert [ontology.name(i) for i in ids] == query.obs["sccello_cell_type"].astype(str).tolist()


def test_surer_cells_are_right_more_often(halves):
    query, reference = halves
    # hardly any whole cell is wrong, so that there are errors to compare with: one count of a hundred is kept
    thin = query.X.astype(np.float32).tocsr()
    thin.data = np.random.default_rng(0).binomial(thin.data.astype(int), 0.01).astype(np.float32)
    thin.eliminate_zeros()
    query = anndata.AnnData(thin, obs=query.obs.copy(), var=query.var.copy())
    annotate(query, reference=reference, label_key="cell_type")
    right = query.obs["sccello_cell_type"].astype(str) == query.obs["cell_type"].astype(str)
    sure = query.obs["sccello_cell_type_confidence"]
    assert sure.between(0, 1).all()
    assert (~right).sum() >= 5
    assert sure[right].mean() > sure[~right].mean() + 0.02


def test_a_saved_reference_answers_alike(halves, tmp_path):
    query, reference = halves
    made = build_reference(reference, "cell_type")
    made.save(tmp_path / "ref")
    annotate(query, reference=made, key_added="memory")
    annotate(query, reference=tmp_path / "ref", key_added="disk")
    pd.testing.assert_series_equal(
        query.obs["memory_confidence"], query.obs["disk_confidence"], check_names=False
    )
    assert repr(Reference.load(tmp_path / "ref")) == repr(made)
    made.save(tmp_path / "ref")  # once more, over itself
    assert len(list((tmp_path / "ref").glob("*.safetensors"))) == 1


def test_two_references_joined_answer_like_one(halves):
    query, reference = halves
    whole = build_reference(reference, "cell_type")
    parts = [build_reference(reference[i::2].copy(), "cell_type") for i in (0, 1)]
    joined = parts[0].extend(parts[1])
    assert len(joined) == len(whole)
    points = query.obsm["X_sccello"]
    np.testing.assert_array_equal(
        whole.probabilities(points).argmax(axis=1), joined.probabilities(points).argmax(axis=1)
    )


def test_a_large_reference_is_searched_by_index(halves, monkeypatch):
    query, reference = halves
    made = build_reference(reference, "cell_type")
    exact = made.probabilities(query.obsm["X_sccello"])
    monkeypatch.setattr("sccello_tools.annotation.reference_parts._EXACT_UP_TO", 10)
    found = made.probabilities(query.obsm["X_sccello"])
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.97
    some = made.probabilities(query.obsm["X_sccello"][5:9])
    np.testing.assert_allclose(some, found[5:9], atol=1e-5)


def test_names_of_no_term_are_kept_and_stand_alone(halves, tmp_path):
    query, reference = halves
    reference.obs["mine"] = ["weird " + name for name in reference.obs["cell_type"]]
    annotate(query, reference=reference, label_key="mine", level="auto")
    assert query.obs["sccello_cell_type"].astype(str).str.startswith("weird ").all()
    assert query.obs["sccello_cell_type_ontology_term_id"].isna().all()
    query.write_h5ad(tmp_path / "cells.h5ad")
    back = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert back.obs["sccello_cell_type"].tolist() == query.obs["sccello_cell_type"].tolist()


def test_labels_that_share_a_term_stay_apart(halves):
    query, reference = halves
    beta = reference.obs["cell_type"].astype(str) == "type B pancreatic cell"
    names = reference.obs["cell_type"].astype(str).to_numpy(copy=True)
    names[np.flatnonzero(beta)[::2]] = "beta, other"
    reference.obs["mine"] = names
    reference.obs["mine_ontology_term_id"] = reference.obs["cell_type_ontology_term_id"].astype(str)
    made = build_reference(reference, "mine")
    assert made.types.count("beta, other") == 1
    assert made.parents["beta, other"] == "CL:0000169"
    annotate(query, reference=made)
    own = query.obs["sccello_cell_type"] == "beta, other"
    assert own.any()
    assert set(query.obs.loc[own, "sccello_cell_type_ontology_term_id"]) == {"CL:0000169"}


def test_unlabelled_cells_are_left_aside_with_a_warning(halves, caplog):
    _, reference = halves
    reference.obs["some"] = reference.obs["cell_type"].astype(object)
    reference.obs.iloc[:7, reference.obs.columns.get_loc("some")] = None
    with caplog.at_level("WARNING", logger="sccello_tools"):
        made = build_reference(reference, "some")
    assert len(made) == reference.n_obs - 7
    assert "7 of" in caplog.text


def test_references_that_do_not_fit(halves, tiny_model_folder, tmp_path):
    query, reference = halves
    with pytest.raises(ConfigError, match="label_key= must name its column of labels"):
        annotate(query, reference=reference)
    made = build_reference(reference, "cell_type")
    with pytest.raises(ConfigError, match="Pass the model of the reference"):
        annotate(query.copy(), reference=made, model=tiny_model_folder)
    one = reference[reference.obs["cell_type"] == "type B pancreatic cell"].copy()
    with pytest.raises(LabelError, match=r"at least two cell types, got .*type B"):
        build_reference(one, "cell_type")
    with pytest.raises(GroupError, match="no column 'donors'"):
        build_reference(reference, "cell_type", batch_key="donors")
    with pytest.raises(WeightsError, match=f"{tmp_path.name}.*build_reference"):
        annotate(query, reference=tmp_path)
    other = build_reference(reference[:, :].copy(), "cell_type", model=tiny_model_folder)
    with pytest.raises(ConfigError, match=r"tiny.*same model"):
        made.extend(other)


def test_a_damaged_reference_is_named(halves, tmp_path):
    _, reference = halves
    folder = build_reference(reference, "cell_type").save(tmp_path / "ref")
    facts = json.loads((folder / "reference.json").read_text())
    (folder / "reference.json").write_text(json.dumps({**facts, "parts": ["../elsewhere"]}))
    with pytest.raises(WeightsError, match="outside its folder"):
        Reference.load(folder)
    (folder / "reference.json").write_text(json.dumps(facts))
    (folder / facts["parts"][0]).write_bytes(b"cut")
    with pytest.raises(WeightsError, match="cannot be read"):
        Reference.load(folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"full.*new folder"):
        build_reference(reference, "cell_type").save(tmp_path / "full")
    with pytest.raises(FileExistsError, match="is a file"):
        build_reference(reference, "cell_type").save(tmp_path / "full" / "thesis.txt")


def test_new_types_are_learnt_and_the_old_ones_stay(pancreas, tmp_path):
    delta = pancreas.obs["cell_type"].astype(str) == "pancreatic D cell"
    rows = np.flatnonzero(delta)
    some = pancreas[rows[::2]].copy()
    some.obs["mine"] = "my delta cell"
    mine = add_types(
        some, "mine", out=tmp_path / "mine", parents={"my delta cell": "pancreatic endocrine cell"}
    )
    rest = pancreas[np.setdiff1d(np.arange(pancreas.n_obs), rows[::2])].copy()
    annotate_novel(rest, level="type", key_added="before", return_scores=True)
    annotate_novel(rest, model=mine, level="type", key_added="after", return_scores=True)
    after = rest.obs["after"].astype(str)
    unseen = rest.obs["cell_type"].astype(str) == "pancreatic D cell"
    assert (after[unseen] == "my delta cell").mean() > 0.6
    # what the new cells share beside their type is learnt with it: other types of their study are overcalled, .204 here
    assert (after[~unseen] == "my delta cell").mean() < 0.25
    # among the old types the order is what it was
    old = rest.obsm["after_scores"].drop(columns="my delta cell")
    ratio = old.to_numpy() / rest.obsm["before_scores"].to_numpy().astype(float)
    assert (np.nanstd(ratio, axis=1) / np.nanmean(ratio, axis=1)).max() < 1e-2
    ids = rest.obs.loc[after.to_numpy() == "my delta cell", "after_ontology_term_id"]
    assert set(ids) == {"CL:0008024"}


def test_types_that_cannot_be_added(pancreas, tmp_path):
    few = pancreas[:3].copy()
    few.obs["mine"] = "mine"
    with pytest.raises(LabelError, match="fewer than 5 cells"):
        add_types(few, "mine", out=tmp_path / "a")
    with pytest.raises(LabelError, match="4 types are already known to the model"):
        add_types(pancreas, "cell_type", out=tmp_path / "a")
    with pytest.raises(LabelError, match="parents contains 'hers'"):
        add_types(few, "mine", out=tmp_path / "a", parents={"hers": "B cell"})
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        add_types(few, "mine", out=tmp_path / "a")
