from __future__ import annotations

import shutil

import anndata
import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools.annotation import AnnotationStatistics
from sccello_tools.errors import ConfigError, GroupError, LabelError, WeightsError
from sccello_tools.tl import annotate_novel

KEYS = [
    "sccello_cell_type",
    "sccello_cell_type_ontology_term_id",
    "sccello_cell_type_confidence",
    "sccello_cell_type_status",
    "sccello_novelty",
]


def test_most_cells_get_their_type_or_what_it_is_a_kind_of(pancreas):
    annotate_novel(pancreas)
    ontology = sccello.ontology.CellOntology.load()
    truth = pancreas.obs["cell_type_ontology_term_id"].astype(str)
    given = pancreas.obs["sccello_cell_type_ontology_term_id"].astype(str)
    known = truth.isin(["CL:0000169", "CL:0000171", "CL:0000173"])
    right = [
        g in ontology.ancestors(t, include_self=True) for t, g in zip(truth[known], given[known])
    ]
    assert np.mean(right) > 0.85
    assert pancreas.obs["sccello_cell_type_confidence"].between(0, 1).all()


def test_a_cell_is_annotated_alike_in_any_company(pancreas):
    annotate_novel(pancreas, return_scores=True)
    rng = np.random.default_rng(0)
    some = pancreas[rng.permutation(pancreas.n_obs)[:25]].copy()
    whole = some.obs[KEYS].copy()
    scores = some.obsm["sccello_cell_type_scores"].to_numpy()
    for key in KEYS:
        del some.obs[key]
    annotate_novel(some, return_scores=True)
    for key in ("sccello_cell_type", "sccello_cell_type_status"):
        assert some.obs[key].astype(str).tolist() == whole[key].astype(str).tolist()
    np.testing.assert_allclose(some.obsm["sccello_cell_type_scores"], scores, atol=1e-5)
    np.testing.assert_allclose(some.obs["sccello_novelty"], whole["sccello_novelty"], atol=1e-4)


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_results_survive_the_disk(pancreas, tmp_path, write_zarr, ending):
    some = pancreas[:20].copy()
    annotate_novel(
        some, groupby="donor" if "donor" in some.obs else "cell_type", return_scores=True
    )
    path = tmp_path / f"cells.{ending}"
    if ending == "h5ad":
        some.write_h5ad(path)
        back = anndata.read_h5ad(path)
    else:
        write_zarr(some, path)
        back = anndata.read_zarr(path)
    pd.testing.assert_frame_equal(
        back.obs[[*KEYS, "sccello_cell_type_cluster"]],
        some.obs[[*KEYS, "sccello_cell_type_cluster"]],
        check_categorical=False,
    )
    assert list(back.obsm["sccello_cell_type_scores"].columns) == list(
        some.obsm["sccello_cell_type_scores"].columns
    )
    assert back.uns["sccello_cell_type"]["alpha"] == 0.1


def test_a_cell_without_an_embedding_keeps_its_row(pancreas):
    pancreas.obsm["X_sccello"][3] = np.nan
    annotate_novel(pancreas, return_scores=True)
    row = pancreas.obs.iloc[3]
    assert pd.isna(row["sccello_cell_type"])
    assert pd.isna(row["sccello_cell_type_status"])
    assert np.isnan(row["sccello_cell_type_confidence"])
    assert pancreas.obs["sccello_cell_type"].isna().sum() == 1


def test_candidates_are_the_only_answers(pancreas):
    ids = ["CL:0002275", "pancreatic epsilon cell", "type B pancreatic cell"]
    annotate_novel(pancreas, candidates=ids, key_added="choice", return_scores=True)
    found = set(pancreas.obs["choice_ontology_term_id"])
    assert found <= {"CL:0002275", "CL:0005019", "CL:0000169"}
    assert list(pancreas.obsm["choice_scores"].columns) == [
        "CL:0002275",
        "CL:0005019",
        "CL:0000169",
    ]
    annotate_novel(pancreas, candidates="pancreatic endocrine cell", key_added="below")
    ontology = sccello.ontology.CellOntology.load()
    below = ontology.descendants("CL:0008024")
    assert set(pancreas.obs["below_ontology_term_id"]) <= below


def test_back_off_is_broader_for_fewer_wrong_answers(pancreas):
    ontology = sccello.ontology.CellOntology.load()
    depth = {}
    for alpha in (0.5, 0.01):
        annotate_novel(pancreas, alpha=alpha)
        terms = pancreas.obs["sccello_cell_type_ontology_term_id"]
        depth[alpha] = np.mean([ontology.depth(term) for term in terms])
    annotate_novel(pancreas, level="type")
    types = set(pancreas.obs["sccello_cell_type_ontology_term_id"])
    assert types <= set(sccello.models.load(device="cpu").labels)
    assert depth[0.01] < depth[0.5]


def test_clusters_get_their_majority(pancreas):
    annotate_novel(pancreas, groupby="cell_type")
    for _, cells in pancreas.obs.groupby("cell_type", observed=True):
        majority = cells["sccello_cell_type"].value_counts()
        assert len(set(cells["sccello_cell_type_cluster"])) == 1
        assert majority[cells["sccello_cell_type_cluster"].iloc[0]] == majority.max()


def test_a_copy_leaves_the_input_alone(pancreas):
    before = list(pancreas.obs)
    changed = annotate_novel(pancreas, copy=True)
    assert list(pancreas.obs) == before
    assert set(KEYS) <= set(changed.obs)


def test_embeddings_of_another_model_or_kind_are_refused(pancreas, tiny_model_folder):
    with pytest.raises(ConfigError, match=r"has no 'X_other' .*Call tl\.embed"):
        annotate_novel(pancreas, use_rep="X_other")
    pancreas.obsm["X_pca"] = np.zeros((pancreas.n_obs, 20))
    with pytest.raises(ConfigError, match=r"X_pca.*does not record.*tl\.embed"):
        annotate_novel(pancreas, use_rep="X_pca")
    sccello.tl.embed(pancreas, model=tiny_model_folder, key_added="X_tiny", device="cpu")
    with pytest.raises(ConfigError, match=r"X_tiny.*tiny.*tl.embed"):
        annotate_novel(pancreas, use_rep="X_tiny")
    sccello.tl.embed(pancreas[:3], key_added="X_cell", representation="cell")
    assert "sccello_cell_type" not in pancreas.obs


def test_models_without_statistics_or_with_others_say_so(pancreas, model, tmp_path):
    folder = shutil.copytree(model.folder, tmp_path / "mine")
    known = AnnotationStatistics.load(folder / "annotation.safetensors")
    (folder / "annotation.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no annotation\.safetensors.*tl\.calibrate"):
        annotate_novel(pancreas, model=folder)
    import dataclasses

    dataclasses.replace(known, weights_sha256="0" * 64).save(folder)
    with pytest.raises(WeightsError, match="was measured with other weights"):
        annotate_novel(pancreas, model=folder)
    (folder / "annotation.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(WeightsError, match="cannot be read as annotation statistics"):
        annotate_novel(pancreas, model=folder)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"alpha": 0}, ConfigError, "alpha is 0; expected is a share between 0 and 1"),
        ({"candidates": ["no such cell", "B cell"]}, LabelError, "'no such cell' is no name"),
        ({"candidates": ["B cell"]}, LabelError, "needs at least two of each"),
        ({"candidates": "CL:0002275"}, LabelError, "has no terms below it"),
        ({"groupby": "leiden"}, GroupError, "no column 'leiden'"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(pancreas, wrong, error, match):
    before = list(pancreas.obs)
    with pytest.raises(error, match=match):
        annotate_novel(pancreas, **wrong)
    assert list(pancreas.obs) == before


def test_a_tissue_rules_out_types_of_other_organs(pancreas):
    annotate_novel(pancreas, level="type", tissue="brain", return_scores=True)
    scores = pancreas.obsm["sccello_cell_type_scores"]
    assert not scores["CL:0000169"].any()  # beta cell
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert pancreas.uns["sccello_cell_type"]["tissue"] == "brain"


def test_an_unknown_tissue_is_refused_before_anything_is_written(pancreas):
    some = pancreas[:5].copy()
    some.obsm.clear()
    with pytest.raises(LabelError, match="Nothing is recorded of the tissue 'toe'"):
        annotate_novel(some, tissue="toe")
    assert "sccello_cell_type" not in some.obs
    assert not some.obsm
