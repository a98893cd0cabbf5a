from __future__ import annotations

import shutil

import numpy as np
import pytest

import sccello_tools as sccello
from sccello_tools.errors import ConfigError, GroupError, LabelError, OutputExistsError
from sccello_tools.tl import annotate_novel, calibrate

LABEL = "cell_type_ontology_term_id"


@pytest.fixture
def mine(model, tmp_path):
    """A copy of the bundled model that knows nothing of cell types."""
    folder = shutil.copytree(model.folder, tmp_path / "mine")
    (folder / "annotation.safetensors").unlink()
    return folder


def test_the_promise_holds_for_cells_like_those(pancreas, mine):
    rng = np.random.default_rng(1)
    order = rng.permutation(pancreas.n_obs)
    learn, ask = (pancreas[rows].copy() for rows in np.array_split(order, 2))
    calibrate(learn, LABEL, model=mine, out=mine)
    annotate_novel(ask, model=mine, alpha=0.2)
    ontology = sccello.ontology.CellOntology.load()
    pairs = zip(
        ask.obs[LABEL].astype(str), ask.obs["sccello_cell_type_ontology_term_id"].astype(str)
    )
    right = [
        g in ontology.ancestors(t, include_self=True) or t in ontology.ancestors(g)
        for t, g in pairs
    ]
    # 1 - alpha, less three standard errors of that many cells
    assert np.mean(right) > 0.8 - 3 * np.sqrt(0.8 * 0.2 / len(right))


def test_the_same_cells_give_the_same_file(pancreas, mine):
    calibrate(pancreas, LABEL, model=mine, out=mine, rng=3)
    once = (mine / "annotation.safetensors").read_bytes()
    calibrate(pancreas, LABEL, model=mine, out=mine, rng=3)
    assert (mine / "annotation.safetensors").read_bytes() == once


def test_the_bundled_model_is_not_written_to(pancreas):
    folder = sccello.models.load("sccello-small").folder
    with pytest.raises(ConfigError, match="bundled model 'sccello-small'"):
        calibrate(pancreas, LABEL, model="sccello-small", out=folder)


def test_nothing_is_written_unless_asked(pancreas, mine, tmp_path):
    before = sorted(mine.iterdir())
    found = calibrate(pancreas, LABEL, model=mine)
    assert sorted(mine.iterdir()) == before
    calibrate(pancreas, LABEL, model=mine, out=tmp_path / "new")
    annotate_novel(pancreas, model=tmp_path / "new")
    assert pancreas.uns["sccello_cell_type"]["n_candidates"] == len(found.known.types)
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path / "file", tmp_path):
        with pytest.raises(OutputExistsError, match="not an empty folder"):
            calibrate(pancreas, LABEL, model=mine, out=taken)


def test_bad_labels_and_groups(pancreas, mine):
    with pytest.raises(LabelError, match="no column 'celltype'"):
        calibrate(pancreas, "celltype", model=mine)
    with pytest.raises(GroupError, match="no column 'patient'"):
        calibrate(pancreas, LABEL, model=mine, batch_key="patient")
    one = pancreas[pancreas.obs["cell_type"] == "type B pancreatic cell"].copy()
    pancreas.obs["own"] = "mine"
    with pytest.raises(LabelError, match="not Cell Ontology terms: 'mine'"):
        calibrate(pancreas, "own", model=mine)
    with pytest.raises(LabelError, match="at least two cell types"):
        calibrate(one, LABEL, model=mine)
    pancreas.obs["study"] = pancreas.obs["cell_type"].astype(str)
    with pytest.raises(LabelError, match="No cell type occurs in two groups"):
        calibrate(pancreas, LABEL, model=mine, batch_key="study")
    assert not (mine / "annotation.safetensors").exists()


def test_uninformative_labels_are_excluded_and_counted(pancreas, mine):
    labels = pancreas.obs["cell_type"].astype(str).to_numpy()
    labels[:4] = "unknown"
    pancreas.obs["mine"] = labels
    with pytest.warns(UserWarning, match=r"4 of .*'unknown' \(4\)"):
        found = calibrate(pancreas, "mine", model=mine)
    assert found.counts.sum() == pancreas.n_obs - 4
