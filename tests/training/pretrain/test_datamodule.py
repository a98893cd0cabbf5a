from __future__ import annotations

import numpy as np
import pytest
import torch

from sccello_tools.errors import ConfigError, LabelError
from sccello_tools.training.pretrain import LabelledTokens
from sccello_tools.training.pretrain.datamodule import (
    TokenDataModule,
    _Draw,
    _TokenBatches,
    _WeightedBatches,
)

CLS = 25426
T_CELL, B_CELL, NEURON = "CL:0000084", "CL:0000236", "CL:0000540"
TYPES = (T_CELL, B_CELL, NEURON)


@pytest.fixture
def uneven(make_tokens):
    def make(n_by_type: dict[str, int], source: str) -> LabelledTokens:
        labels = np.repeat(list(n_by_type), list(n_by_type.values()))
        cell = np.array([CLS, 5], dtype=np.int32)
        return LabelledTokens(make_tokens([cell] * len(labels)), labels, source)

    return make


def drawn(sources, config, *, done=0, rank=0) -> list[list[tuple[int, int]]]:
    batches = _WeightedBatches(sources, config, done=lambda: done, rank=rank)
    return [list(zip(draw.sources.tolist(), draw.cells.tolist())) for draw in batches]


def draw_of(pairs, *, cropped) -> _Draw:
    sources, cells = np.array(pairs).T
    return _Draw(sources, cells, cropped)


def shares(sources, config, of) -> dict[str, float]:
    """Return the fraction of each source or type among the drawn cells."""
    pairs = [pair for batch in drawn(sources, config) for pair in batch]
    names = [of(sources[source], cell) for source, cell in pairs]
    return {str(n): c / len(names) for n, c in zip(*np.unique(names, return_counts=True))}


def type_of(source, cell):
    return source.cell_types[cell]


def name_of(source, cell):
    return source.source


@pytest.mark.parametrize(
    ("balance", "expected"),
    [(0.0, 0.9), (0.5, 3 / 4), (1.0, 0.5)],  # 90 : 10, then their roots, then alike
)
def test_balance_samples_types_by_a_power_of_their_count(tiny, uneven, balance, expected):
    config = tiny.replace(balance=balance, max_steps=500, batch_cells=20)
    found = shares([uneven({T_CELL: 90, B_CELL: 10}, "cells")], config, type_of)
    # 10,000 draws: three standard errors are 0.015
    assert found[T_CELL] == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, (0.1, 0.3, 0.6)),
        ({"a": 0.5}, (0.5, 0.5 * 30 / 90, 0.5 * 60 / 90)),
        ({"a": 0.2, "b": 0.2, "c": 0.6}, (0.2, 0.2, 0.6)),
        ({"a": 0.1, "b": 0.1, "c": 0.2}, (0.25, 0.25, 0.5)),
        ({"a": 0.4, "b": 0.6}, (0.4, 0.6, 0.0)),
    ],
)
def test_source_weights(tiny, uneven, weights, expected):
    sources = [uneven({T_CELL: n}, name) for name, n in (("a", 10), ("b", 30), ("c", 60))]
    config = tiny.replace(source_weights=weights, max_steps=500, batch_cells=20)
    found = shares(sources, config, name_of)
    assert [found.get(name, 0.0) for name in "abc"] == pytest.approx(expected, abs=0.015)


def test_balance_acts_within_a_source(tiny, uneven):
    sources = [uneven({T_CELL: 90, B_CELL: 10}, "a"), uneven({NEURON: 100}, "b")]
    config = tiny.replace(balance=1.0, max_steps=500, batch_cells=20)
    found = shares(sources, config, type_of)
    assert found == pytest.approx({T_CELL: 0.25, B_CELL: 0.25, NEURON: 0.5}, abs=0.015)


def test_cells_without_tokens_are_never_drawn(tiny, make_tokens):
    sequences = [np.array([CLS, 5], dtype=np.int32), np.zeros(0, dtype=np.int32)] * 3
    source = LabelledTokens(make_tokens(sequences), np.array([T_CELL] * 6))
    cells = {cell for batch in drawn([source], tiny) for _, cell in batch}
    assert cells == {0, 2, 4}


def test_batches_depend_on_seed_and_step_alone(tiny, cells):
    config = tiny.replace(max_steps=9)
    all_of_them = drawn([cells], config)
    assert len(all_of_them) == 9
    assert all(len(batch) == tiny.batch_cells for batch in all_of_them)
    assert drawn([cells], config) == all_of_them
    assert drawn([cells], config, done=4) == all_of_them[4:]
    assert drawn([cells], config, rank=1) != all_of_them
    assert drawn([cells], config.replace(seed=1)) != all_of_them
    assert len({str(batch) for batch in all_of_them}) == 9


def test_source_weights_of_zero(tiny, cells):
    config = tiny.replace(source_weights={"cells": 0.0})
    with pytest.raises(ConfigError, match=r"source_weights.*cells.*zero probability"):
        drawn([cells], config)


def test_a_batch_is_packed_with_its_types(tiny, cells, make_cells):
    source = make_cells(seed=3, source="other")
    dataset = _TokenBatches([cells, source], TYPES, tiny.replace(max_length=11))
    wanted = [(0, 3), (1, 20), (0, 9), (1, 0)]
    batch = dataset[draw_of(wanted, cropped=False)]
    lengths = batch.cu_seqlens.diff().tolist()
    assert batch.ids.dtype == batch.cell_types.dtype == torch.int64
    assert batch.cu_seqlens.dtype == torch.int32
    assert lengths == sorted(lengths, reverse=True)
    assert batch.max_seqlen == lengths[0] == 11
    expected = {}
    for s, c in wanted:
        tokens = tuple([cells, source][s].tokens[c][:11].tolist())
        expected[tokens] = TYPES.index([cells, source][s].cell_types[c])
    found = {
        tuple(row.tolist()): label
        for row, label in zip(batch.ids.split(lengths), batch.cell_types.tolist())
    }
    assert found == expected


def test_a_cropped_batch_has_cells_of_one_length(tiny, cells):
    dataset = _TokenBatches([cells], TYPES, tiny)
    wanted = [(0, cell) for cell in range(24)]
    lengths = [len(cells.tokens[cell]) for _, cell in wanted]
    batch = dataset[draw_of(wanted, cropped=True)]
    assert min(lengths) < max(lengths)
    assert set(batch.cu_seqlens.diff().tolist()) == {min(lengths)}
    first = batch.ids[: min(lengths)].tolist()
    assert first in [cells.tokens[cell][: min(lengths)].tolist() for cell in range(24)]


def test_crop_applies_to_a_fraction_of_steps_and_changes_no_cells(tiny, cells):
    config = tiny.replace(max_steps=1000, batch_cells=2)
    whole, some = (
        list(_WeightedBatches([cells], config.replace(crop=crop), done=lambda: 0))
        for crop in (0.0, 0.75)
    )
    assert [draw.cells.tolist() for draw in whole] == [draw.cells.tolist() for draw in some]
    assert not any(draw.cropped for draw in whole)
    # three standard errors of a share over 1,000 steps are 0.041
    assert np.mean([draw.cropped for draw in some]) == pytest.approx(0.75, abs=0.041)


def test_the_loader_gives_the_batches_of_the_sampler(tiny, cells):
    module = TokenDataModule([cells], TYPES, tiny)
    batches = list(module.train_dataloader())
    assert len(batches) == tiny.max_steps == len(module.train_dataloader())
    first = drawn([cells], tiny)[0]
    assert sorted(batches[0].cell_types.tolist()) == sorted(
        TYPES.index(cells.cell_types[cell]) for _, cell in first
    )


def test_number_of_labels_must_match(make_cells):
    with pytest.raises(LabelError, match="cells: 24 cells, but 1 cell types"):
        LabelledTokens(make_cells().tokens, np.array([T_CELL]))


def test_the_checkpoint_of_other_data_is_refused(tiny, cells, make_cells):
    state = TokenDataModule([cells], TYPES, tiny).state_dict()
    TokenDataModule([make_cells()], TYPES, tiny).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"other data.*24 cells.*6 cells"):
        TokenDataModule([make_cells(2)], TYPES, tiny).load_state_dict(state)
    with pytest.raises(ConfigError, match="types"):
        TokenDataModule([cells], TYPES[:2], tiny).load_state_dict(state)


def test_other_cells_or_labels_of_the_same_number_are_refused(tiny, cells, make_cells):
    state = TokenDataModule([cells], TYPES, tiny).state_dict()
    relabelled = LabelledTokens(cells.tokens, np.roll(cells.cell_types, 1))
    reordered = LabelledTokens(cells.tokens.take(np.arange(24)[::-1]), cells.cell_types[::-1])
    for other in (make_cells(seed=9), relabelled, reordered):
        assert other.n_cells_of == cells.n_cells_of
        with pytest.raises(ConfigError, match="other data"):
            TokenDataModule([other], TYPES, tiny).load_state_dict(state)
