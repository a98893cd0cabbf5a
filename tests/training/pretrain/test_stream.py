"""The stream of batches: every cell once, shuffled, balanced, within its budget, from any position on."""

from __future__ import annotations

from itertools import islice

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sccello_tools.corpus import Corpus
from sccello_tools.errors import ConfigError, CorpusError
from sccello_tools.training.pretrain import CorpusSource, LabelledTokens, fit
from sccello_tools.training.pretrain.datamodule import StreamDataModule, sample_cells
from sccello_tools.training.pretrain.stream import MAX_REPEATS, BlockStream, cut_by_tokens

T_CELL, B_CELL, NEURON = "CL:0000084", "CL:0000236", "CL:0000540"
TYPES = (T_CELL, B_CELL, NEURON)
LOSSES = ["loss", "masked_gene", "alignment", "coherence", "regularization"]


@pytest.fixture(scope="module")
def plain(tiny):
    return tiny.replace(balance=0.0, buffer_cells=64, batch_cells=5)


@pytest.fixture(scope="module")
def ordered(make_tokens) -> LabelledTokens:
    """1,200 cells in the order of their type, each with a gene of its own and a length of its own."""
    rng = np.random.default_rng(0)
    sequences = [
        np.array([25426, 2 + i, *range(5000, 5000 + int(rng.integers(0, 14)))]) for i in range(1200)
    ]
    return LabelledTokens(make_tokens(sequences), np.repeat(TYPES, 400), "ordered")


@pytest.fixture(scope="module")
def on_disk(ordered, tmp_path_factory) -> CorpusSource:
    """The same cells in two files of a published form, 40 rows to a block, with an unlabelled and an empty row more."""
    folder = tmp_path_factory.mktemp("corpus")
    ids = [ordered.tokens[i].tolist() for i in range(1200)]
    for number, part in enumerate((slice(0, 500), slice(500, 1200))):
        table = pa.table({
            "gene_token_ids": [*ids[part], [25426, 9], []],
            "cell_type": [*ordered.cell_types[part], None, T_CELL],
        })  # fmt: skip
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=40)
    return CorpusSource(Corpus.open(folder, max_length=16), {t: t for t in TYPES}, "published")


def an_epoch(stream: BlockStream) -> list:
    batches = []
    for batch in stream.batches():
        batches.append(batch)
        if batch.position.epoch == 1:
            return batches
    raise AssertionError


def genes(batch) -> list[int]:
    """The gene that only this cell has, of each cell."""
    return batch.ids[batch.cu_seqlens[:-1].long() + 1].tolist()


@pytest.mark.parametrize("batch_tokens", [None, 40])
def test_epoch_contains_each_cell_once(on_disk, plain, batch_tokens):
    config = plain.replace(batch_tokens=batch_tokens)
    batches = an_epoch(BlockStream([on_disk], TYPES, config))
    seen = [gene for batch in batches for gene in genes(batch)]
    assert sorted(seen) == list(range(2, 1202))
    assert seen != sorted(seen)
    for batch in batches:
        expected = [(gene - 2) // 400 for gene in genes(batch)]
        assert batch.cell_types.tolist() == expected
        # two rows at the end of the first file do not train, and count as rows
        rows = [gene - 2 + 2 * (gene - 2 >= 500) for gene in genes(batch)]
        assert batch.rows.tolist() == rows


def test_same_stream_from_memory_and_disk(ordered, on_disk, plain):
    for source in (ordered, on_disk):
        seen = [g for b in an_epoch(BlockStream([source], TYPES, plain)) for g in genes(b)]
        assert sorted(seen) == list(range(2, 1202))


def test_batches_have_at_most_batch_tokens(on_disk, plain):
    config = plain.replace(batch_tokens=100, length_buckets=1, buffer_cells=400)
    tokens = [len(batch.ids) for batch in an_epoch(BlockStream([on_disk], TYPES, config))]
    assert max(tokens) <= 100
    assert np.mean(tokens) > 85


def test_buckets_group_similar_lengths(on_disk, plain):
    spread = {}
    for buckets in (1, 4):
        config = plain.replace(batch_tokens=60, length_buckets=buckets, buffer_cells=400)
        batches = an_epoch(BlockStream([on_disk], TYPES, config))
        spread[buckets] = np.mean([np.ptp(batch.cu_seqlens.diff().numpy()) for batch in batches])
    assert spread[4] < 0.5 * spread[1]


def test_stream_continues_from_any_position(on_disk, plain):
    config = plain.replace(batch_tokens=60, balance=0.7, crop=0.3)
    stream = BlockStream([on_disk], TYPES, config)
    whole = list(islice(stream.batches(), 400))
    assert whole[-1].position.epoch >= 1
    for stop in (0, 7, 8, 9, 203, 391):
        again = BlockStream([on_disk], TYPES, config).batches(whole[stop].position)
        for found, expected in zip(again, whole[stop + 1 : stop + 5], strict=False):
            assert found.ids.tolist() == expected.ids.tolist()
            assert found.position == expected.position


def test_seed_and_epoch_change_the_order(on_disk, plain):
    stream = BlockStream([on_disk], TYPES, plain)
    n = len(an_epoch(stream))
    batches = [genes(batch) for batch in islice(stream.batches(), 2 * n)]
    assert batches[:n] != batches[n:]
    other = BlockStream([on_disk], TYPES, plain.replace(seed=1))
    assert genes(next(other.batches())) != batches[0]


def test_ranks_partition_the_cells(on_disk, plain):
    seen = []
    for rank in range(3):
        stream = BlockStream([on_disk], TYPES, plain, (rank, 3))
        seen += [gene for batch in an_epoch(stream) for gene in genes(batch)]
    assert sorted(seen) == list(range(2, 1202))
    with pytest.raises(CorpusError, match=r"31 blocks.*32 processes.*smaller shards"):
        BlockStream([on_disk], TYPES, plain, (0, 32))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_number_of_workers_does_not_change_batches(on_disk, plain, n_workers):
    def loaded(n):
        module = StreamDataModule([on_disk], TYPES, plain, n_workers=n)
        return [batch.ids.tolist() for batch in islice(module.train_dataloader(), 30)]

    assert loaded(n_workers) == loaded(0)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.9), (0.5, 0.75), (1.0, 0.5)])
def test_balance_repeats_rare_types(make_tokens, tiny, balance, share):
    labels = np.repeat([T_CELL, B_CELL], [9000, 1000])
    source = LabelledTokens(make_tokens([np.array([25426, 5])] * 10_000), labels)
    config = tiny.replace(balance=balance, batch_cells=100, buffer_cells=2000)
    batches = an_epoch(BlockStream([source], (T_CELL, B_CELL), config))
    found = np.concatenate([batch.cell_types.numpy() for batch in batches])
    assert np.mean(found == 0) == pytest.approx(share, abs=0.02)
    assert len(found) == pytest.approx(10_000, rel=0.02)


def test_repeats_are_limited(make_tokens, tiny, caplog):
    labels = np.array([B_CELL, *[T_CELL] * 999])
    sequences = [np.array([25426, 7]), *[np.array([25426, 5])] * 999]
    source = LabelledTokens(make_tokens(sequences), labels)
    config = tiny.replace(balance=1.0, batch_cells=100)
    batches = an_epoch(BlockStream([source], (T_CELL, B_CELL), config))
    assert sum(genes(batch).count(7) for batch in batches) == MAX_REPEATS
    assert "repeated 16 times per epoch" in caplog.text


def test_source_weights_of_a_stream(ordered, on_disk, tiny):
    config = tiny.replace(source_weights={"published": 0.2}, batch_cells=50)
    stream = BlockStream([ordered, on_disk], TYPES, config)
    assert stream.names == ("ordered", "published")
    found = np.concatenate([batch.sources.numpy() for batch in an_epoch(stream)])
    assert np.mean(found == 1) == pytest.approx(0.2, abs=0.02)
    config = tiny.replace(source_weights={"published": 0.0, "ordered": 0.0})
    with pytest.raises(ConfigError, match="zero probability"):
        BlockStream([ordered, on_disk], TYPES, config)


def mixing(batches) -> float:
    """Mean over batches of how far their types are from the even shares of the whole, 0 at best."""
    far = [
        np.abs(np.bincount(batch.cell_types, minlength=3) / len(batch.cell_types) - 1 / 3).sum()
        for batch in batches
    ]
    return float(np.mean(far))


def test_shuffling_is_nearly_as_good_as_a_full_shuffle(on_disk, plain):
    """Cells lie in the order of their types: unshuffled, a batch has one type; a small buffer must come near the full shuffle."""

    def found(buffer_cells):
        config = plain.replace(batch_cells=30, buffer_cells=buffer_cells)
        return mixing(an_epoch(BlockStream([on_disk], TYPES, config)))

    full, part = found(10_000), found(400)  # of 1,200 cells, ten blocks of 40 at a time
    assert full == pytest.approx(0.206, abs=0.05)  # the sampling error of 30 cells
    assert part < 1.6 * full
    assert found(40) > 3 * full  # a buffer of one block does not mix: the measure can fail


def test_batches_are_few_and_of_similar_size():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(1, 30, size=rng.integers(1, 200))
        cells = rng.permutation(len(lengths))
        batches = cut_by_tokens(cells, lengths[cells], 60)
        sizes = np.array([lengths[batch].sum() for batch in batches])
        assert np.concatenate(batches).tolist() == cells.tolist()
        assert sizes.max() <= 60
        assert len(batches) <= -(-lengths.sum() // 30)
    assert cut_by_tokens(cells[:0], lengths[:0], 60) == []
    assert len(cut_by_tokens(np.arange(3), np.array([60, 60, 60]), 60)) == 3


def test_sample_has_the_distribution_of_training(on_disk, plain):
    tokens, types = sample_cells([on_disk], TYPES, plain, n_cells=100)
    assert len(tokens) == len(types) == 100
    assert set(types) <= set(TYPES)
    everything, _ = sample_cells([on_disk], TYPES, plain, n_cells=10_000)
    assert len(everything) == 1200


class Stop(L.Callback):
    """Interrupts training after a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step >= self.after:
            raise KeyError(self.after)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_stream(ontology, on_disk, tiny, tmp_path, accumulate):
    config = tiny.replace(batch_tokens=60, buffer_cells=50, max_steps=10, accumulate=accumulate, second_pass=False
    )  # fmt: skip
    uninterrupted = fit([on_disk], ontology, config)
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 3}
    with pytest.raises(KeyError):
        fit([on_disk], ontology, config, trainer_kwargs={"callbacks": Stop(8)}, **options)
    resumed = fit([on_disk], ontology, config, n_workers=1, **options)
    assert resumed.curve["step"].tolist() == list(range(1, 11))
    assert resumed.curve["tokens"].tolist() == uninterrupted.curve["tokens"].tolist()
    np.testing.assert_allclose(resumed.curve[LOSSES], uninterrupted.curve[LOSSES], rtol=1e-4)


def test_the_checkpoint_of_another_corpus_is_refused(on_disk, ordered, plain):
    state = StreamDataModule([on_disk], TYPES, plain).state_dict()
    with pytest.raises(ConfigError, match=r"other data.*sources"):
        StreamDataModule([ordered], TYPES, plain).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"other data.*processes: 4 instead of 1"):
        StreamDataModule([on_disk], TYPES, plain).load_state_dict({**state, "processes": 4})


def test_missing_or_damaged_file_during_training(ordered, plain, tmp_path):
    ids = [ordered.tokens[i].tolist() for i in range(200)]
    path = tmp_path / "cells.parquet"
    pq.write_table(pa.table({"gene_token_ids": ids, "cell_type": ordered.cell_types[:200]}), path)
    source = CorpusSource(Corpus.open(path), {t: t for t in TYPES})
    stream = BlockStream([source], TYPES[:1], plain)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorpusError, match=r"cells\.parquet cannot be read as a shard"):
        next(stream.batches())
