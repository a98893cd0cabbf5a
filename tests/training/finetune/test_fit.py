"""Parameters trained in each mode, early stopping, errors."""

from __future__ import annotations

import copy
import signal

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from sccello_tools.engine import encode
from sccello_tools.errors import ConfigError, TrainingError
from sccello_tools.training.finetune import FinetuneConfig, fit_classifier
from sccello_tools.training.finetune.data import hold_out
from sccello_tools.training.finetune.fit import label_weights
from sccello_tools.training.finetune.lora import PROJECTIONS
from sccello_tools.training.finetune.module import macro_f1


@pytest.fixture
def fit(network, cells, quick):
    tokens, codes = cells
    split = hold_out(codes, validation=0.25)

    def run(mode="linear", **options):
        return fit_classifier(
            network, tokens, codes, split, **{"mode": mode, "config": quick} | options
        )

    return run


def differing(one, two) -> set[str]:
    state = two.state_dict()
    return {name for name, value in one.state_dict().items() if not torch.equal(value, state[name])}


def test_linear_does_not_change_the_encoder(fit, network, cells):
    before = copy.deepcopy(network)
    result = fit(config=FinetuneConfig(max_epochs=40, batch_cells=8, learning_rate=0.02))
    assert result.network is network
    assert not network.training
    assert differing(network, before) == set()
    assert result.scores["accuracy"] > 0.6  # by chance a third
    assert result.scores["n_cells"] == 12
    tokens, codes = cells
    held = hold_out(codes, validation=0.25).validation
    probs = result.head.probabilities(encode(network, tokens.take(held)))
    assert np.mean(probs.argmax(axis=1) == codes[held]) == result.scores["accuracy"]
    assert np.isclose(-np.log(probs[range(12), codes[held]]).mean(), result.scores["loss"])
    assert result.curve["stage"].unique().tolist() == ["linear"]
    assert {"epoch", "train_loss", "validation_loss", "validation_macro_f1"} <= set(result.curve)
    assert result.curve["train_loss"].iloc[-1] < result.curve["train_loss"].iloc[0]


def test_linear_embeds_each_cell_once(fit, monkeypatch):
    seen = []

    def counting(network, tokens, **options):
        seen.append(len(tokens))
        return encode(network, tokens, **options)

    monkeypatch.setattr("sccello_tools.training.finetune.fit.encode", counting)
    fit()
    assert seen == [48]


def test_lora_changes_projections_only(fit, network):
    before = copy.deepcopy(network)
    result = fit(
        "lora", config=FinetuneConfig(max_epochs=6, batch_cells=8, lora_rank=2, monitor="loss")
    )
    assert differing(network, before) == set()
    changed = differing(result.network, network)
    assert changed == {f"encoder.layers.{i}.{p}.weight" for i in range(2) for p in PROJECTIONS}
    assert result.curve["stage"].unique().tolist() == ["linear", "lora"]


def test_full_changes_the_encoder_but_not_the_heads_of_pretraining(fit, network):
    result = fit(
        "full",
        config=FinetuneConfig(max_epochs=8, batch_cells=8, learning_rate=3e-3, monitor="loss"),
    )
    changed = differing(result.network, network)
    assert "encoder.word_embeddings.weight" in changed
    assert all(name.startswith("encoder.") for name in changed)


def test_probe_is_kept_if_no_epoch_is_better(fit, network):
    config = FinetuneConfig(max_epochs=2, batch_cells=8, learning_rate=3.0, monitor="loss")
    probe = fit(config=config.replace(learning_rate=None, max_epochs=None))
    result = fit("full", config=config)
    assert (
        result.curve.query("stage == 'full'")["validation_loss"].min()
        > probe.curve["validation_loss"].min()
    )
    assert differing(result.network, network) == set()
    assert np.allclose(result.head.weight, probe.head.weight, atol=1e-6)


def test_early_stopping_keeps_the_best_epoch(fit):
    config = FinetuneConfig(max_epochs=60, batch_cells=8, learning_rate=0.05, patience=3)
    result = fit(config=config)
    curve = result.curve
    best = curve["validation_macro_f1"].max()
    assert len(curve) < 60
    assert len(curve) == curve["validation_macro_f1"].idxmax() + 1 + 3
    assert np.isclose(result.scores["macro_f1"], best, atol=1e-6)


def test_seed_determines_the_result_and_global_state_is_restored(fit, quick):
    state = torch.get_rng_state()
    one, two = fit("lora"), fit("lora")
    assert torch.equal(torch.get_rng_state(), state)
    other = fit("lora", config=quick.replace(seed=1))
    assert np.allclose(one.head.weight, two.head.weight, atol=1e-6)
    assert not np.allclose(one.head.weight, other.head.weight, atol=1e-3)


def test_bfloat16_is_near_float32(fit, quick):
    one, two = (fit("lora", config=quick.replace(precision=p)) for p in ("float32", "bfloat16"))
    assert np.abs(one.head.weight - two.head.weight).max() < 0.05


def test_balance_weights_labels_equally():
    codes = np.array([0] * 8 + [1] * 2)
    weights = label_weights(codes, 2, balance=1.0).numpy()
    assert np.isclose(weights[0] * 8, weights[1] * 2)
    assert np.isclose((weights[codes]).mean(), 1)
    assert np.allclose(label_weights(codes, 2, balance=0.0), 1)


def test_macro_f1_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    confusion = torch.from_numpy(np.bincount(truth * 6 + found, minlength=36).reshape(6, 6))
    assert np.isclose(float(macro_f1(confusion)), f1_score(truth, found, average="macro"))


def test_trainer_options_that_the_configuration_determines(fit):
    with pytest.raises(ConfigError, match="max_epochs, which FinetuneConfig"):
        fit(trainer_kwargs={"max_epochs": 3})
    with pytest.raises(ConfigError, match="devices, strategy, but fine-tuning runs on"):
        fit(trainer_kwargs={"devices": 2, "strategy": "ddp"})
    with pytest.raises(ConfigError, match=r"mode.*'none'"):
        fit("none")


def test_non_finite_loss(fit):
    with pytest.raises(TrainingError, match=r"The loss is (nan|inf) at step \d+.*learning_rate"):
        fit(config=FinetuneConfig(learning_rate=1e36, max_epochs=3, batch_cells=8, warmup=0))


@pytest.mark.parametrize("mode", ["linear", "full"])
def test_validation_in_every_second_epoch(fit, quick, mode):
    config = quick.replace(max_epochs=4, monitor="loss", learning_rate=3e-3)
    result = fit(mode, config=config, trainer_kwargs={"check_val_every_n_epoch": 2})
    curve = result.curve[result.curve["stage"] == mode]
    assert curve["validation_loss"].notna().tolist() == [False, True, False, True]
    assert curve["train_loss"].notna().all()


def test_without_validation_the_last_weights_are_kept(fit, network, quick):
    config = quick.replace(learning_rate=3e-3)
    result = fit("full", config=config, trainer_kwargs={"limit_val_batches": 0})
    assert "validation_loss" not in result.curve
    assert "encoder.word_embeddings.weight" in differing(result.network, network)


def test_ctrl_c_is_a_keyboard_interrupt(sigint, fit, network):
    class CtrlC(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            if trainer.current_epoch == 1:
                signal.raise_signal(signal.SIGINT)

    handler, state = signal.getsignal(signal.SIGINT), torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        fit("lora", trainer_kwargs={"callbacks": [CtrlC()]})
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.equal(torch.get_rng_state(), state)
