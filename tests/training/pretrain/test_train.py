"""One run from start to end: it learns, stops on NaN, and a resumed run is the uninterrupted one."""

from __future__ import annotations

import logging
import random
import signal

import lightning as L
import numpy as np
import pytest
import torch

from sccello_tools.engine import encode
from sccello_tools.errors import ConfigError, LabelError, TrainingError
from sccello_tools.training.pretrain import LabelledTokens, fit
from sccello_tools.training.pretrain.module import step_seed

T_CELL, B_CELL, NEURON = "CL:0000084", "CL:0000236", "CL:0000540"
TYPES = (T_CELL, B_CELL, NEURON)
LOSSES = ["loss", "masked_gene", "alignment", "coherence", "regularization"]


class Stop(L.Callback):
    """Interrupts training after a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step >= self.after:
            raise KeyError(self.after)


@pytest.fixture(scope="module")
def uninterrupted(ontology, cells, tiny):
    return fit([cells], ontology, tiny)


def same_weights(one, other) -> None:
    ours, theirs = one.network.state_dict(), other.network.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6, msg=name)


def test_losses_decrease_and_types_are_separated(ontology, cells, tiny, make_cells):
    config = tiny.replace(
        max_steps=150, warmup_steps=10, learning_rate=1e-2, dropout=0.0, attention_dropout=0.0
    )
    result = fit([cells], ontology, config)
    start, end = result.curve.iloc[:10].mean(), result.curve.iloc[-10:].mean()
    for name in LOSSES:
        assert end[name] < start[name], name
    assert end["coherence"] < 0.5 * start["coherence"]
    assert end["type_accuracy"] == 1
    assert result.labels == tuple(sorted(TYPES))

    new = make_cells(5, seed=77)
    vectors = encode(result.network, new.tokens, representation="cell", precision="float32")
    prototypes = result.network.learned_centroid.weight[:3].detach().numpy()
    prototypes = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
    told = np.array(result.labels)[(vectors @ prototypes.T).argmax(1)]
    assert (told == new.cell_types).all()


def test_curve_has_one_row_per_step(uninterrupted, tiny):
    curve = uninterrupted.curve
    assert curve["step"].tolist() == list(range(1, tiny.max_steps + 1))
    assert (curve["cells"] == tiny.batch_cells).all()
    assert (curve["seconds"].diff().dropna() >= 0).all()
    assert np.isfinite(curve[LOSSES].to_numpy()).all()
    np.testing.assert_allclose(curve["loss"], curve[LOSSES[1:]].sum(axis=1), rtol=1e-5)
    assert not uninterrupted.network.training


def test_loss_weights(ontology, cells, tiny, uninterrupted):
    config = tiny.replace(weight_alignment=0.0, weight_masked_gene=2.0, max_steps=1)
    row = fit([cells], ontology, config).curve.iloc[0]
    assert row["loss"] == pytest.approx(
        2 * row["masked_gene"] + row["coherence"] + row["regularization"]
    )
    assert row["masked_gene"] == pytest.approx(uninterrupted.curve["masked_gene"][0])


def test_seed_determines_the_result(ontology, cells, tiny, uninterrupted):
    torch.manual_seed(99)  # the state that a run finds must not matter
    again = fit([cells], ontology, tiny)
    same_weights(again, uninterrupted)
    np.testing.assert_allclose(again.curve[LOSSES], uninterrupted.curve[LOSSES], rtol=1e-5)
    other = fit([cells], ontology, tiny.replace(seed=1))
    assert not np.allclose(other.curve["loss"], uninterrupted.curve["loss"], rtol=1e-2)


@pytest.mark.parametrize(("every", "stop"), [(5, 8), (4, 4), (3, 11)])
def test_a_resumed_run_is_the_uninterrupted_one(
    ontology, cells, tiny, uninterrupted, tmp_path, every, stop
):
    with pytest.raises(KeyError):
        fit(
            [cells],
            ontology,
            tiny,
            checkpoint_dir=tmp_path,
            checkpoint_every=every,
            trainer_kwargs={"callbacks": [Stop(stop)]},
        )
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == stop // every * every
    seen = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(batch.ids.numpy().tobytes())

    result = fit(
        [cells],
        ontology,
        tiny,
        checkpoint_dir=tmp_path,
        checkpoint_every=every,
        trainer_kwargs={"callbacks": Watch()},
    )
    assert len(seen) == tiny.max_steps - stop // every * every
    assert len(set(seen)) == len(seen)
    assert result.curve["step"].tolist() == list(range(1, tiny.max_steps + 1))
    # masks, dropout, batches and schedule: were one of them another, the losses would differ at once
    np.testing.assert_allclose(result.curve[LOSSES], uninterrupted.curve[LOSSES], rtol=1e-4)
    same_weights(result, uninterrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_finished_run_is_restored(ontology, cells, tiny, tmp_path):
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 4}
    first = fit([cells], ontology, tiny, **options)
    second = fit([cells], ontology, tiny, **options)
    same_weights(second, first)
    assert len(second.curve) == tiny.max_steps


def test_checkpoint_interval_may_change(ontology, cells, tiny, tmp_path):
    for every, stop in ((2, 5), (3, 10)):
        with pytest.raises(KeyError):
            fit(
                [cells],
                ontology,
                tiny,
                checkpoint_dir=tmp_path,
                checkpoint_every=every,
                trainer_kwargs={"callbacks": [Stop(stop)]},
            )
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 9


def test_the_checkpoint_of_another_run_is_refused(ontology, cells, tiny, tmp_path, make_cells):
    fit([cells], ontology, tiny, checkpoint_dir=tmp_path, checkpoint_every=4)
    other = tiny.replace(learning_rate=1e-4)
    with pytest.raises(
        ConfigError, match=r"other settings.*learning_rate: 0\.005 instead of 0\.0001"
    ):
        fit([cells], ontology, other, checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match="run with other data"):
        fit([make_cells(3)], ontology, tiny, checkpoint_dir=tmp_path)


def test_checkpoint_of_other_cells_of_the_same_number_is_refused(
    ontology, cells, tiny, tmp_path, make_cells
):
    fit([cells], ontology, tiny, checkpoint_dir=tmp_path, checkpoint_every=4)
    other = make_cells(seed=1)
    assert len(other.tokens) == len(cells.tokens)
    with pytest.raises(ConfigError, match="run with other data"):
        fit([other], ontology, tiny, checkpoint_dir=tmp_path)


def test_stream_does_not_resume_a_run_in_memory(ontology, cells, tiny, tmp_path, monkeypatch):
    fit([cells], ontology, tiny, checkpoint_dir=tmp_path, checkpoint_every=4)
    monkeypatch.setattr("sccello_tools.training.pretrain.train.is_streamed", lambda *_: True)
    with pytest.raises(ConfigError, match="run with other data"):
        fit([cells], ontology, tiny, checkpoint_dir=tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_checkpoint_is_named(ontology, cells, tiny, tmp_path, damage):
    fit([cells], ontology, tiny, checkpoint_dir=tmp_path, checkpoint_every=4)
    path = tmp_path / "last.ckpt"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes({"truncated": content[:-999], "empty": b"", "flipped": content}[damage])
    with pytest.raises(ConfigError, match=r"last\.ckpt is truncated or damaged"):
        fit([cells], ontology, tiny, checkpoint_dir=tmp_path)


def test_a_checkpoint_of_another_program_is_refused(ontology, cells, tiny, tmp_path):
    fit([cells], ontology, tiny, checkpoint_dir=tmp_path, checkpoint_every=4)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del saved["pretrain_config"]
    torch.save(saved, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match="not written by sccello_tools"):
        fit([cells], ontology, tiny, checkpoint_dir=tmp_path)


def test_ctrl_c_is_a_keyboard_interrupt_and_keeps_the_checkpoint(
    sigint, ontology, cells, tiny, tmp_path, uninterrupted, caplog
):
    class CtrlC(L.Callback):
        def on_train_batch_start(self, trainer, *args) -> None:
            if trainer.global_step == 7:
                signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 3}
    with pytest.raises(KeyboardInterrupt):
        fit([cells], ontology, tiny, **options, trainer_kwargs={"callbacks": CtrlC()})
    assert signal.getsignal(signal.SIGINT) is handler
    assert str(tmp_path) in caplog.text
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6
    same_weights(fit([cells], ontology, tiny, **options), uninterrupted)


def test_non_finite_loss_names_its_step(ontology, cells, tiny):
    config = tiny.replace(learning_rate=1e30, warmup_steps=0)
    before = torch.get_rng_state()
    with pytest.raises(
        TrainingError,
        match=r"The loss is (nan|inf) at step \d+ \(.*'masked_gene'.*learning_rate",
    ):
        fit([cells], ontology, config)
    assert torch.equal(torch.get_rng_state(), before)


def test_global_random_state_is_restored(ontology, cells, tiny):
    def state():
        return [
            torch.get_rng_state().numpy().tobytes(),
            np.random.get_state()[1].tobytes(),  # noqa: NPY002 - the state in question
            random.getstate(),
        ]

    before = state()
    fit([cells], ontology, tiny.replace(max_steps=2))
    assert state() == before


def test_lightning_prints_nothing(ontology, cells, tiny, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    levels = [logging.getLogger(n).level for n in ("lightning.pytorch", "lightning.fabric")]
    fit([cells], ontology, tiny.replace(max_steps=2))
    assert capfd.readouterr() == ("", "")
    assert [logging.getLogger(n).level for n in ("lightning.pytorch", "lightning.fabric")] == levels
    assert list(tmp_path.iterdir()) == []


def test_progress_is_logged_every_fifty_steps(ontology, cells, tiny, caplog):
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        fit([cells], ontology, tiny.replace(max_steps=50))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("step ")]
    assert len(lines) == 1
    assert lines[0].startswith("step 50: ")
    assert "masked_gene" in lines[0]


@pytest.mark.parametrize("published", [True, False])
def test_published_losses_and_bfloat16(ontology, cells, tiny, published):
    """The published losses (whole vocabulary, two passes), and bfloat16 with one."""
    changes = (
        {"n_negatives": None, "embedding_std": None}
        if published
        else {"precision": "bfloat16", "second_pass": False}
    )
    result = fit([cells], ontology, tiny.replace(max_steps=3, **changes))
    assert np.isfinite(result.curve[LOSSES].to_numpy()).all()
    assert {p.dtype for p in result.network.parameters()} == {torch.float32}


def test_second_pass_has_different_dropout(ontology, cells, tiny, uninterrupted):
    once = fit([cells], ontology, tiny.replace(second_pass=False, max_steps=1))
    first = uninterrupted.curve.iloc[0]
    assert once.curve["masked_gene"][0] == pytest.approx(first["masked_gene"])
    assert once.curve["alignment"][0] != pytest.approx(first["alignment"], rel=1e-6)


def test_coherence_of_labels_at_different_depths(ontology, cells, tiny, uninterrupted):
    """For a lymphocyte, the prototypes of T and B cells are correct too."""
    deep = np.where(np.arange(24) % 8 < 3, "CL:0000542", cells.cell_types)  # lymphocyte
    source = LabelledTokens(cells.tokens, deep)
    one_step = tiny.replace(max_steps=1)
    published = fit([source], ontology, one_step).curve.iloc[0]
    found = fit([source], ontology, one_step.replace(coherence="ontology")).curve.iloc[0]
    assert found["coherence"] < published["coherence"]
    assert found["type_accuracy"] >= published["type_accuracy"]
    assert found["alignment"] == pytest.approx(published["alignment"])
    flat = fit([cells], ontology, tiny.replace(coherence="ontology"))  # no type above another
    np.testing.assert_allclose(flat.curve[LOSSES], uninterrupted.curve[LOSSES], rtol=1e-4)


def test_without_masked_genes(ontology, cells, tiny):
    config = tiny.replace(mask_probability=0.0, dropout=0.0, attention_dropout=0.0, max_steps=3)
    curve = fit([cells], ontology, config).curve
    assert (curve["masked_gene"] == 0).all()
    # the <cls> output is that of the full forward pass, in which nothing is masked
    almost = fit([cells], ontology, config.replace(mask_probability=1e-12)).curve
    np.testing.assert_allclose(curve[LOSSES], almost[LOSSES], rtol=1e-4)


def test_fewer_than_two_types(ontology, cells, tiny, make_tokens):
    one = LabelledTokens(cells.tokens.take(range(8)), cells.cell_types[:8])
    with pytest.raises(LabelError, match=rf"at least two cell types, found \['{T_CELL}'\]"):
        fit([one], ontology, tiny)
    empty = LabelledTokens(make_tokens([np.zeros(0, dtype=np.int32)] * 24), cells.cell_types)
    for sources in ([], [empty]):
        with pytest.raises(LabelError, match=r"found \[\]"):
            fit(sources, ontology, tiny)


def test_unknown_terms(ontology, cells, tiny):
    odd = LabelledTokens(
        cells.tokens, np.where(cells.cell_types == T_CELL, "CL:9999999", cells.cell_types)
    )
    with pytest.raises(LabelError, match="CL:9999999"):
        fit([odd], ontology, tiny)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"max_steps": 5},
            r"max_steps, which PretrainConfig determines\. Set there: max_steps",
        ),
        ({"accumulate_grad_batches": 2, "precision": "16"}, "Set there: accumulate, precision"),
    ],
)
def test_trainer_options_that_the_configuration_determines(ontology, cells, tiny, options, says):
    with pytest.raises(ConfigError, match=says):
        fit([cells], ontology, tiny, trainer_kwargs=options)


def test_weights_of_unknown_sources(ontology, cells, tiny):
    config = tiny.replace(source_weights={"blood": 0.5})
    with pytest.raises(ConfigError, match=r"unknown sources: blood\..*cells"):
        fit([cells], ontology, config)
    config = tiny.replace(source_weights={"cells": 0.5})
    with pytest.raises(ConfigError, match="distinct source names"):
        fit([cells, cells], ontology, config)


def test_seeds_of_steps_differ():
    seeds = {
        step_seed(seed, step, rank) for seed in range(5) for step in range(50) for rank in range(4)
    }
    assert len(seeds) == 1000
