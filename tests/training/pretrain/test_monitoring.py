"""Loggers, validation scores, early stopping, divergence, activation checkpointing."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch

from sccello_tools.errors import ConfigError, LabelError, MissingExtraError, TrainingError
from sccello_tools.training.pretrain import LabelledTokens, fit, validation
from sccello_tools.training.pretrain.batch import describe_cells
from sccello_tools.training.pretrain.callbacks import DivergenceStop
from sccello_tools.training.pretrain.validation import ValidationScores
from sccello_tools.training.trainer import make_loggers

LOSSES = ["loss", "masked_gene", "alignment", "coherence", "regularization"]


@pytest.fixture
def scores(monkeypatch):
    """Replace the validation scores by a given sequence."""
    given = [0.5, 0.7, 0.6, 0.65, 0.9]
    asked = []

    def score(self, network):
        asked.append({name: value.clone() for name, value in network.state_dict().items()})
        return ValidationScores(given[len(asked) - 1], 0.0, 0.0)

    monkeypatch.setattr(validation.ZeroShotValidation, "__call__", score)
    return asked


def test_validation_cells_are_scored(ontology, tiny, make_cells):
    config = tiny.replace(max_steps=30, warmup_steps=5, learning_rate=1e-2, dropout=0.0, attention_dropout=0.0,
        second_pass=False, validate_every=20,
    )  # fmt: skip
    result = fit([make_cells(40)], ontology, config, validation=make_cells(15, seed=5))
    found = result.curve.set_index("step")[[f"validation_{n}" for n in ValidationScores._fields]]
    looked = found.dropna()
    assert looked.index.tolist() == [20, 30]
    assert ((looked >= 0) & (looked <= 1)).to_numpy().all()
    assert looked["validation_knn_accuracy"][30] > 0.8  # by chance 0.33
    assert looked["validation_nmi"][30] > 0.5
    assert result.best_step == 0


def test_early_stopping_restores_the_best_weights(
    ontology, cells, tiny, make_cells, scores, tmp_path
):
    config = tiny.replace(validate_every=2, patience=2)
    result = fit([cells], ontology, config, validation=make_cells(4, seed=5))
    assert len(result.curve) == 8  # looks at 2, 4, 6 and 8; the best at 4
    assert result.best_step == 4
    for name, value in result.network.state_dict().items():
        assert torch.equal(value, scores[1][name]), name
    assert not torch.equal(
        scores[1]["learned_centroid.weight"], scores[3]["learned_centroid.weight"]
    )


def test_invalid_validation(ontology, cells, tiny, make_tokens):
    one = LabelledTokens(cells.tokens.take(range(4)), cells.cell_types[:4])
    with pytest.raises(LabelError, match="validation needs cells of at least two types"):
        fit([cells], ontology, tiny, validation=one)
    with pytest.raises(ConfigError, match=r"patience=3.*validation="):
        fit([cells], ontology, tiny.replace(patience=3))
    with pytest.raises(ConfigError, match=r"strategy='fsdp'.*strategy='ddp'"):
        fit([cells], ontology, tiny, validation=cells, trainer_kwargs={"strategy": "fsdp"})


def test_loggers_write(ontology, cells, tiny, tmp_path):
    loggers = make_loggers(["csv", "tensorboard", "csv"], tmp_path, run_name="mine")
    assert len(loggers) == 2
    config = tiny.replace(max_steps=3, second_pass=False)
    result = fit([cells], ontology, config, trainer_kwargs={"logger": loggers})
    (written,) = (tmp_path / "csv").rglob("metrics.csv")
    np.testing.assert_allclose(pd.read_csv(written)["loss"], result.curve["loss"], rtol=1e-5)
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents*"))


def test_unavailable_loggers(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"'csv'.*'neptune'"):
        make_loggers(["neptune"], tmp_path, run_name="mine")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else found(name, *a)
    )
    with pytest.raises(MissingExtraError, match=r"wandb.*sccello-tools\[log\]"):
        make_loggers(["wandb"], tmp_path, run_name="mine")


class Trainer:
    def __init__(self) -> None:
        self.global_step, self.callback_metrics = 0, {}


@pytest.fixture
def feed(cells, tiny):
    """Pass losses to a callback, step by step."""
    from sccello_tools.training.pretrain.datamodule import TokenDataModule

    batch = next(iter(TokenDataModule([cells], sorted(set(cells.cell_types)), tiny).train_dataloader()))  # fmt: skip

    def run(stop, losses):
        trainer = Trainer()
        for loss in losses:
            trainer.global_step += 1
            trainer.callback_metrics = {"loss": torch.tensor(loss)}
            stop.on_train_batch_end(trainer, None, None, batch, 0)

    return run


def test_divergence_stops_with_the_cells_of_the_batch(feed):
    stop = DivergenceStop(3.0, after=10, source_names=("cells",))
    with pytest.raises(TrainingError, match=r"diverges.* cells rows \d+, .* and 1 more"):
        feed(stop, [10.0 - 0.05 * i for i in range(100)] + [60.0] * 60)
    noisy = np.random.default_rng(0).lognormal(1, 0.8, size=400)
    feed(DivergenceStop(3.0, after=10, source_names=("cells",)), noisy)  # no alarm


def test_non_finite_loss_names_its_cells(ontology, cells, tiny):
    config = tiny.replace(learning_rate=1e30, warmup_steps=0)
    with pytest.raises(TrainingError, match=r"cells rows \d+, \d+, .* and 1 more"):
        fit([cells], ontology, config)


def test_cells_are_named_by_source_and_row(make_tokens, cells, tiny):
    from sccello_tools.training.pretrain.stream import BlockStream

    rows = np.arange(24) * 10
    source = LabelledTokens(cells.tokens, cells.cell_types, "blood", rows)
    stream = BlockStream([source], sorted(set(cells.cell_types)), tiny.replace(batch_cells=3))
    batch = next(stream.batches())
    assert (
        describe_cells(batch, stream.names)
        == f"blood rows {', '.join(map(str, batch.rows.tolist()))}"
    )


def test_activation_checkpointing_gives_the_same_losses(ontology, cells, tiny):
    """Dropout of weights and hidden states included: what is computed again must drop what it dropped."""
    config = tiny.replace(max_steps=2, n_layers=2)
    curves = [
        fit([cells], ontology, config.replace(checkpoint_activations=on)).curve[LOSSES]
        for on in (False, True)
    ]
    no_dropout = config.replace(dropout=0.0, attention_dropout=0.0)
    exact = [
        fit([cells], ontology, no_dropout.replace(checkpoint_activations=on)).curve[LOSSES]
        for on in (False, True)
    ]  # fmt: skip
    np.testing.assert_allclose(exact[0], exact[1], rtol=1e-4)
    # cell by cell, attention draws other weights to drop, so the numbers are near, not the same
    np.testing.assert_allclose(curves[0], curves[1], rtol=0.3)


def test_gradient_accumulation(ontology, cells, tiny):
    config = tiny.replace(max_steps=3, accumulate=2)
    curve = fit([cells], ontology, config).curve
    assert curve["step"].tolist() == [1, 2, 3]
    assert (curve["cells"] == 2 * tiny.batch_cells).all()
