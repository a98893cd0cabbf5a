from __future__ import annotations

import shutil

import anndata
import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools.annotation import evidence_of, load_evidence, save_evidence
from sccello_tools.errors import ArgumentError, ConfigError, GroupError, LabelError, WeightsError
from sccello_tools.tl import annotate_novel

KEYS = [
    "sccello_cell_type",
    "sccello_cell_type_ontology_term_id",
    "sccello_cell_type_confidence",
    "sccello_cell_type_status",
    "sccello_novelty",
    "sccello_cell_type_runner_up",
    "sccello_cell_type_runner_up_ontology_term_id",
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


def test_scores_of_a_cell_do_not_depend_on_other_cells(pancreas):
    annotate_novel(pancreas, return_scores=True)
    rng = np.random.default_rng(0)
    some = pancreas[rng.permutation(pancreas.n_obs)[:25]].copy()
    scores = some.obsm["sccello_cell_type_scores"].to_numpy()
    novelty = some.obs["sccello_novelty"].to_numpy()
    annotate_novel(some, return_scores=True)
    np.testing.assert_allclose(some.obsm["sccello_cell_type_scores"], scores, atol=1e-4)
    # novelty is corrected by one number for the data set
    difference = some.obs["sccello_novelty"].to_numpy() - novelty
    np.testing.assert_allclose(difference, difference[0], atol=1e-3)


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


def test_back_off_is_broader_for_fewer_wrong_terms(pancreas):
    ontology = sccello.ontology.CellOntology.load()
    depth = {}
    for alpha in (0.5, 0.005):
        annotate_novel(pancreas, alpha=alpha)
        known = pancreas.obs[pancreas.obs["sccello_cell_type_status"] == "known"]
        terms = known["sccello_cell_type_ontology_term_id"].astype(str)
        depth[alpha] = np.mean([ontology.depth(term) for term in terms])
    annotate_novel(pancreas, level="type")
    known = pancreas.obs[pancreas.obs["sccello_cell_type_status"] == "known"]
    types = set(known["sccello_cell_type_ontology_term_id"])
    assert types <= set(evidence_of(sccello.models.load(device="cpu")).known.types)
    assert depth[0.005] < depth[0.5]


def test_clusters_get_the_term_of_their_mean_evidence(pancreas):
    annotate_novel(pancreas, groupby="cell_type")
    key = "sccello_cell_type_cluster"
    columns = [key, f"{key}_ontology_term_id", f"{key}_status", f"{key}_runner_up"]
    for _, cells in pancreas.obs.groupby("cell_type", observed=True):
        assert len(cells[columns].drop_duplicates()) == 1
        assert cells[f"{key}_confidence"].between(0, 1).all()
    beta = pancreas.obs[pancreas.obs["cell_type"] == "type B pancreatic cell"]
    assert (beta[f"{key}_ontology_term_id"] == "CL:0000169").all()


def test_slots_of_an_earlier_call_are_removed(pancreas):
    annotate_novel(pancreas, groupby="cell_type", return_scores=True)
    annotate_novel(pancreas, method="published", candidates=["acinar cell", "CL:0000169"])
    assert not [name for name in pancreas.obs if "_cluster" in name]
    assert "sccello_cell_type_scores" not in pancreas.obsm
    assert pancreas.obs["sccello_cell_type_confidence"].isna().all()
    assert pancreas.obsm["sccello_cell_type_evidence"].shape == (pancreas.n_obs, 4)


def test_sources_of_evidence(pancreas):
    annotate_novel(pancreas, evidence=["ontology", "embedding"])
    table = pancreas.obsm["sccello_cell_type_evidence"]
    assert not table["markers"].any()
    assert list(pancreas.uns["sccello_cell_type"]["evidence"]) == ["embedding", "ontology"]
    annotate_novel(pancreas, evidence="markers", key_added="mine")
    assert not pancreas.obsm["mine_evidence"]["ontology"].any()
    for wrong in (["genes"], []):
        with pytest.raises(ArgumentError, match="'embedding', 'ontology', 'markers'"):
            annotate_novel(pancreas, evidence=wrong)


def test_markers_of_a_user_replace_those_of_the_same_term(pancreas):
    annotate_novel(
        pancreas, candidates=["type B pancreatic cell", "acinar cell"], evidence="markers"
    )
    before = (pancreas.obs["sccello_cell_type"] == "type B pancreatic cell").sum()
    swapped = {
        "acinar cell": ["INS", "IAPP", "PCSK1"],
        "type B pancreatic cell": ["PRSS1", "CPA1", "CELA3A"],
    }
    annotate_novel(
        pancreas,
        candidates=["type B pancreatic cell", "acinar cell"],
        evidence="markers",
        markers=swapped,
    )
    after = (pancreas.obs["sccello_cell_type"] == "type B pancreatic cell").sum()
    assert after < before
    assert pancreas.uns["sccello_cell_type"]["markers"].shape[0] == 6
    with pytest.raises(ArgumentError, match="list of genes"):
        annotate_novel(pancreas, markers={"B cell": "CD19"})
    with pytest.raises(LabelError, match="flux"):
        annotate_novel(pancreas, markers={"flux": ["CD19"]})


def test_cells_without_counts_are_annotated_without_markers(pancreas):
    pancreas.X = pancreas.X.astype(np.float32) * 0.37
    with pytest.warns(UserWarning, match="without marker evidence"):
        annotate_novel(pancreas)
    assert not pancreas.obsm["sccello_cell_type_evidence"]["markers"].any()
    pancreas.layers["counts"] = np.rint(pancreas.X / 0.37)
    annotate_novel(pancreas, layer="counts", use_rep="X_sccello")
    assert pancreas.obsm["sccello_cell_type_evidence"]["markers"].any()
    assert pancreas.uns["sccello_cell_type"]["layer"] == "counts"


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


def test_models_without_calibration_annotate_from_prototypes(pancreas, model, tmp_path):
    folder = shutil.copytree(model.folder, tmp_path / "mine")
    fit, made = load_evidence(folder / "annotation.safetensors")
    (folder / "annotation.safetensors").unlink()
    with pytest.warns(UserWarning, match=r"not calibrated.*tl\.calibrate"):
        annotate_novel(pancreas, model=folder)
    assert not pancreas.uns["sccello_cell_type"]["calibrated"]
    found = pancreas.obs["sccello_cell_type"].astype(str)
    assert (found == pancreas.obs["cell_type"].astype(str)).mean() > 0.5
    save_evidence(fit, folder, weights_sha256="0" * 64, ontology_release=made["ontology_release"])
    with pytest.raises(WeightsError, match="was computed with other weights"):
        annotate_novel(pancreas, model=folder)
    (folder / "annotation.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(WeightsError, match="cannot be read as annotation statistics"):
        annotate_novel(pancreas, model=folder)


def test_a_checkpoint_in_the_published_format(pancreas, golden_model_folder):
    some = pancreas[:12].copy()
    with pytest.warns(UserWarning, match=r"not calibrated.*tl\.calibrate"):
        annotate_novel(some, model=golden_model_folder, return_scores=True, groupby="cell_type")
    loaded = sccello.models.load(golden_model_folder, device="cpu")
    prototypes = loaded.prototypes
    fit = evidence_of(loaded)
    assert fit.known.types == prototypes.ids
    # softmax(cosine / tau)
    import torch

    hidden = some.obsm["X_sccello"]
    with torch.inference_mode():
        cells = loaded.network.cell_representation(torch.from_numpy(hidden)).numpy()
    evidence = fit.known.evidence(hidden, cells, None)
    logits = cells @ prototypes.vectors.T / prototypes.tau
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(evidence.log_probabilities), expected, atol=1e-4)
    assert some.obs["sccello_cell_type"].notna().all()


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"alpha": 0}, ConfigError, r"alpha must be in \(0, 1\), got 0"),
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


def test_types_are_weighted_by_how_usual_they_are_in_a_tissue(pancreas):
    beta = {}
    for tissue in ("brain", "pancreas"):
        annotate_novel(pancreas, level="type", tissue=tissue, return_scores=True)
        scores = pancreas.obsm["sccello_cell_type_scores"]
        beta[tissue] = scores["CL:0000169"]
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)
        assert pancreas.uns["sccello_cell_type"]["tissue"] == tissue
    assert (beta["brain"] < beta["pancreas"]).mean() > 0.95
    annotate_novel(pancreas)
    inferred = pancreas.uns["sccello_cell_type"]["inferred_tissues"]
    assert max(inferred, key=inferred.get) == "pancreas"


def test_an_unknown_tissue_is_refused_before_anything_is_written(pancreas):
    some = pancreas[:5].copy()
    some.obsm.clear()
    with pytest.raises(LabelError, match=r"tissue 'toe'.*pancreas"):
        annotate_novel(some, tissue="toe")
    assert "sccello_cell_type" not in some.obs
    assert not some.obsm
