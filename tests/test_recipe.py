"""The recipe of the bundled models, in scripts/recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import sccello_tools as sccello
from sccello_tools.tokens import CLS_ID


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
def test_trains_and_resumes(device, monkeypatch, tmp_path) -> None:
    """Training, resumed from a checkpoint, of types that differ in one gene program; embeddings separate them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    from labels.label_space import Targets
    from recipe.sampling import Batch
    from recipe.training import Trainer, TrainingConfig, embed, new_network

    types = ("CL:0000084", "CL:0000236", "CL:0000169")  # T cell, B cell, type B pancreatic cell
    ontology = sccello.ontology.CellOntology.load()
    targets = Targets.of(types, types, ontology)

    def sampler(step: int, n_cells: int) -> Batch:
        rng = np.random.default_rng(step)
        labels = rng.integers(len(types), size=n_cells)
        lengths = rng.integers(20, 40, size=n_cells)
        ids = np.zeros((n_cells, 40), np.int32)
        for row, (label, n) in enumerate(zip(labels, lengths, strict=True)):
            own = 100 + 200 * label + rng.permutation(60)[:15]
            others = 1_000 + rng.permutation(500)[: n - 16]
            ids[row, :n] = [CLS_ID, *own, *others]
        return Batch(ids, lengths, labels, np.zeros((1, 1), np.float32))

    config = TrainingConfig(
        hidden_size=32, max_length=40, batch_cells=32, steps=20, warmup_steps=5, gene_cells=8, n_negatives=64
    )  # fmt: skip
    path = tmp_path / "checkpoint.pt"
    trainer = Trainer(new_network(config, sampler, device), sampler, targets, ontology, config)
    trainer.config = dataclasses.replace(config, steps=10)
    trainer.train(checkpoint=path, log_every=10)
    resumed = Trainer(new_network(config, sampler, device), sampler, targets, ontology, trainer.config)  # fmt: skip
    resumed._load(path)
    resumed.config = config
    curve = resumed.train(checkpoint=tmp_path / "other.pt")
    assert curve["step"].tolist() == list(range(1, 21))
    assert np.isfinite(curve.drop(columns=["masked_gene", "gene_accuracy"]).to_numpy()).all()
    assert curve["coherence"].iloc[-5:].mean() < curve["coherence"].iloc[:5].mean()
    batch = sampler(1_000, 60)
    hidden, cells = embed(resumed.network, batch)
    assert hidden.shape == cells.shape == (60, 32)
    cells = cells - cells.mean(axis=0)
    cells /= np.linalg.norm(cells, axis=1, keepdims=True)
    similarity = cells @ cells.T
    same = batch.labels[:, None] == batch.labels
    assert similarity[same].mean() > similarity[~same].mean() + 0.2
