"""Killed trainings, dying workers, unusual clocks and locales; see docs/robustness.md for other tests of this kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello

TERMS = ["CL:0000084", "CL:0000236", "CL:0000540"]

TRAIN = """
import sys, time, anndata
import sccello_tools as sccello
from sccello_tools.training import PretrainConfig
from sccello_tools.training.pretrain.module import PretrainModule
if sys.argv[4:]:
    original = PretrainModule.training_step
    def step(self, batch, batch_idx):
        if self.global_step == 300:
            time.sleep(3600)  # until it is killed, however busy the machine is
        return original(self, batch, batch_idx)
    PretrainModule.training_step = step
config = PretrainConfig(hidden_size=8, n_layers=1, n_heads=2, intermediate_size=8, max_length=32, max_steps=450,
                        batch_cells=4, n_negatives=32)
sccello.settings.progress = False
sccello.tl.pretrain(anndata.read_h5ad(sys.argv[1]), out=sys.argv[2], config=config, checkpoint_dir=sys.argv[3])
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_and_leaves_no_half_model(adata, tmp_path):
    adata.obs["cell_type_ontology_term_id"] = pd.Categorical(TERMS * 10)
    adata.write_h5ad(tmp_path / "a.h5ad")
    out, checkpoints = tmp_path / "model", tmp_path / "checkpoints"

    def start(model, folder, *hang):
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            TRAIN,
            tmp_path / "a.h5ad",
            model,
            folder,
            *hang,
        ]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    process = start(out, checkpoints, "hang")
    until = time.monotonic() + 600  # a busy machine may take minutes to import alone
    try:
        while not list(checkpoints.glob("*.ckpt")) and time.monotonic() < until:  # at step 200
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(checkpoints.glob("*.ckpt"))
    assert not list(out.glob("*.safetensors")), "weights have their name only when they are whole"
    assert start(out, checkpoints).wait() == 0
    assert start(tmp_path / "other", tmp_path / "none").wait() == 0
    weights = [(folder / "model.safetensors").read_bytes() for folder in (out, tmp_path / "other")]
    assert weights[0] == weights[1]


EMBED = """
import sys, anndata, numpy
import sccello_tools as sccello
adata = anndata.read_h5ad(sys.argv[1])
sccello.tl.embed(adata, model=sys.argv[2], device="cpu", precision="float32")
numpy.save(sys.argv[3], adata.obsm["X_sccello"])
print(sccello.pp.match_genes(adata).n_matched)
"""


@pytest.mark.parametrize(
    "variables",
    [{"LC_ALL": "C"}, {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Apia"}, {"PYTHONUTF8": "0", "LC_ALL": "POSIX", "TZ": ":broken"}],
    ids=["C", "Turkish", "POSIX"],
)  # fmt: skip
def test_results_do_not_depend_on_locale_and_time_zone(
    adata, tiny_model_folder, tmp_path, variables
):
    adata.write_h5ad(tmp_path / "a.h5ad")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EMBED, tmp_path / "a.h5ad", tiny_model_folder, tmp_path / "a.npy"],
        env=os.environ | variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    sccello.tl.embed(adata, model=tiny_model_folder, device="cpu", precision="float32")
    assert done.stdout.split() == ["900"]
    found = np.load(tmp_path / "a.npy")
    np.testing.assert_allclose(found, adata.obsm["X_sccello"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("year", [1970, 2099])
def test_files_from_another_time_are_read(adata, tiny_model_folder, tmp_path, year):
    """A model and an input whose clock was wrong; 1970 is what some archives write."""
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    path = tmp_path / "a.h5ad"
    adata.obs["cell_type_ontology_term_id"] = pd.Categorical(TERMS * 10)
    adata.write_h5ad(path)
    seconds = (year - 1970) * 365 * 86_400
    for file in [path, *folder.iterdir()]:
        os.utime(file, (seconds, seconds))
    sccello.tl.embed(adata, model=folder, device="cpu")
    assert np.isfinite(adata.obsm["X_sccello"]).all()
    for _ in range(2):
        corpus = sccello.pp.build_corpus(path, tmp_path / "out", min_matched=1)
    assert len(corpus) == 30
