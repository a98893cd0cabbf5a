"""Thinning and gene panels: distributions, reproducibility, resumed runs."""

from __future__ import annotations

import lightning as L
import numpy as np
import pytest
from scipy import sparse

from sccello_tools.errors import ConfigError, LabelError
from sccello_tools.tokens import CLS_ID, GeneVocabulary, Tokenizer, match_gene_names
from sccello_tools.training import LabelledTokens, Profiles, synthetic_cells
from sccello_tools.training.pretrain import fit
from sccello_tools.training.pretrain.augment import MIN_GENES, Augmentation, MeasuredCounts
from sccello_tools.training.pretrain.datamodule import TokenDataModule

TYPES = ("CL:0000084", "CL:0000236", "CL:0000540")
LOSSES = ["loss", "masked_gene", "alignment", "coherence", "regularization"]


def labelled_counts(counts: np.ndarray, *, source: str = "cells") -> LabelledTokens:
    """Cells whose counts are given for the first genes of the vocabulary."""
    vocabulary = GeneVocabulary.load()
    wide = sparse.lil_array((len(counts), len(vocabulary)), dtype=np.float32)
    wide[:, : counts.shape[1]] = counts
    matrix = wide.tocsr()
    tokens = Tokenizer(match_gene_names(vocabulary.gene_ids.tolist()))(matrix)
    types = np.array([TYPES[i % 3] for i in range(len(counts))])
    return LabelledTokens(tokens, types, source, counts=MeasuredCounts(matrix))


@pytest.fixture(scope="module")
def cells() -> LabelledTokens:
    rng = np.random.default_rng(0)
    means = rng.lognormal(1, 1, size=(3, 300))
    return labelled_counts(rng.poisson(means[np.arange(60) % 3]))


def genes_of(ids: np.ndarray) -> np.ndarray:
    assert ids[0] == CLS_ID
    return np.searchsorted(GeneVocabulary.load().tokens, ids[1:])


def augmented(source, config, cells, seed=0) -> list[np.ndarray]:
    return Augmentation([source], config)(0, np.asarray(cells), np.random.default_rng(seed))


def test_without_effect_the_tokens_are_those_of_the_counts(cells, tiny):
    config = tiny.replace(thinning=1.0, thinning_min=10**6, thinning_max=10**6, max_length=64)
    found = augmented(cells, config, [3, 5, 3])
    for ids, cell in zip(found, [3, 5, 3], strict=True):
        assert np.array_equal(ids, cells.tokens[cell][:64])


def test_thinned_cells_keep_a_subset_of_genes_and_the_expected_number(cells, tiny):
    config = tiny.replace(
        thinning=1.0, thinning_min=100, thinning_max=100, max_length=2048, n_negatives=8
    )
    rows = np.repeat(np.arange(20), 20)
    found = augmented(cells, config, rows)
    n_expected = n_found = 0
    for ids, row in zip(found, rows, strict=True):
        counts = cells.counts.matrix[[row]].toarray().ravel()
        genes = genes_of(ids)
        assert (counts[genes] > 0).all()
        n_found += len(genes)
        n_expected += (1 - (1 - 100 / counts.sum()) ** counts).sum()  # P(binomial > 0)
    # 400 cells of about 80 genes: the standard error is below half a percent
    assert n_found == pytest.approx(n_expected, rel=0.02)


def test_a_fraction_of_cells_is_thinned(cells, tiny):
    config = tiny.replace(thinning=0.3, thinning_min=50, thinning_max=200, max_length=2048)
    rows = np.tile(np.arange(60), 20)
    changed = [
        not np.array_equal(ids, cells.tokens[int(row)])
        for ids, row in zip(augmented(cells, config, rows), rows, strict=True)
    ]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.04)  # three standard errors


def test_panels_have_the_requested_number_of_genes_and_keep_the_order(cells, tiny):
    config = tiny.replace(gene_dropout=1.0, panel_min=40, panel_max=120, max_length=2048)
    sizes = []
    for ids, cell in zip(augmented(cells, config, range(60)), range(60), strict=True):
        original = cells.tokens[cell].tolist()
        places = [original.index(token) for token in ids]
        assert places == sorted(places)
        sizes.append(len(ids) - 1)
    expressed = np.mean([len(cells.tokens[cell]) - 1 for cell in range(60)]) / 300
    assert max(sizes) <= 120
    assert min(sizes) < 0.5 * max(sizes)
    assert np.mean(sizes) == pytest.approx(expressed * 80 / np.log(3), rel=0.25)  # E of log-uniform


def test_cells_with_few_genes_are_not_augmented(tiny):
    counts = np.zeros((6, 30), dtype=int)
    counts[:, : MIN_GENES + 2] = 1000
    source = labelled_counts(counts)
    config = tiny.replace(gene_dropout=1.0, panel_min=1, panel_max=3)
    for ids, cell in zip(augmented(source, config, range(6)), range(6), strict=True):
        assert np.array_equal(ids, source.tokens[cell][: config.max_length])


def test_fractional_counts_can_be_thinned(cells, tiny):
    source = LabelledTokens(
        cells.tokens, cells.cell_types, counts=MeasuredCounts(cells.counts.matrix * 0.7)
    )
    config = tiny.replace(thinning=1.0, thinning_min=50, thinning_max=50, max_length=2048)
    assert all(len(ids) < 100 for ids in augmented(source, config, range(10)))


def batches(source, config, *, done=0, rank=0):
    module = TokenDataModule([source], TYPES, config)
    module.trainer = type("Trainer", (), {"global_step": done, "global_rank": rank})()
    return [batch.ids.tolist() for batch in module.train_dataloader()]


def test_augmentation_depends_on_seed_and_batch_alone(cells, tiny):
    config = tiny.replace(thinning=0.7, gene_dropout=0.5, thinning_min=50, max_length=64)
    first = batches(cells, config)
    assert batches(cells, config) == first
    assert batches(cells, config, done=5) == first[5:]
    assert batches(cells, config, rank=1) != first
    assert batches(cells, config.replace(seed=1)) != first


def test_augmentation_does_not_change_which_cells_are_drawn(cells, tiny):
    rows = []
    tokens_only = LabelledTokens(cells.tokens, cells.cell_types)
    for source, options in ((tokens_only, {}), (cells, {"thinning": 1.0, "gene_dropout": 1.0})):
        module = TokenDataModule([source], TYPES, tiny.replace(crop=0.5, **options))
        rows.append([sorted(batch.rows.tolist()) for batch in module.train_dataloader()])
    assert rows[0] == rows[1]


def test_two_sources_keep_their_labels(tiny, cells):
    other = labelled_counts(np.full((9, 40), 5), source="other")
    config = tiny.replace(thinning=1.0, thinning_min=100, thinning_max=150)
    for batch in TokenDataModule([cells, other], TYPES, config).train_dataloader():
        lengths = batch.cu_seqlens.diff().tolist()
        for ids, source, row, label in zip(
            batch.ids.split(lengths), batch.sources, batch.rows, batch.cell_types, strict=True
        ):
            of = (cells, other)[int(source)]
            assert TYPES[int(label)] == of.cell_types[int(row)]
            assert set(ids.tolist()) <= {CLS_ID, *of.tokens[int(row)].tolist()}


def test_a_resumed_run_is_the_uninterrupted_one(ontology, cells, tiny, tmp_path):
    class Stop(L.Callback):
        def on_train_batch_start(self, trainer, *args) -> None:
            if trainer.global_step >= 7:
                raise KeyError

    config = tiny.replace(thinning=0.7, gene_dropout=0.5, max_length=64)
    whole = fit([cells], ontology, config)
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 5}
    with pytest.raises(KeyError):
        fit([cells], ontology, config, **options, trainer_kwargs={"callbacks": Stop()})
    resumed = fit([cells], ontology, config, **options)
    np.testing.assert_allclose(resumed.curve[LOSSES], whole.curve[LOSSES], rtol=1e-4)
    twice = MeasuredCounts(cells.counts.matrix * 2)
    recounted = LabelledTokens(cells.tokens, cells.cell_types, counts=twice)
    with pytest.raises(ConfigError, match="other data"):
        fit([recounted], ontology, config, **options)


def test_tokens_without_counts_are_refused(ontology, cells, tiny):
    tokens = LabelledTokens(cells.tokens, cells.cell_types, "corpus of blood")
    with pytest.raises(ConfigError, match=r"need counts.*corpus of blood"):
        fit([tokens], ontology, tiny.replace(thinning=0.5))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"thinning": 0.5, "stream": True}, "stream"),
        ({"gene_dropout": 0.5, "batch_tokens": 4096}, "batch_tokens"),
        ({"thinning_min": 500, "thinning_max": 400}, "500 and 400"),
        ({"panel_min": 9, "panel_max": 8}, "9 and 8"),
    ],
)
def test_invalid_combinations(tiny, options, says):
    with pytest.raises(ConfigError, match=says):
        tiny.replace(**options)


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    rng = np.random.default_rng(0)
    expression = np.zeros((3, 25424))
    expression[:, :300] = rng.lognormal(1, 1, size=(3, 300))
    return Profiles(sparse.csr_array(expression), depth=np.array([500.0, 500.0, 4000.0]))


def test_synthetic_cells_follow_their_profile(profiles):
    rng = np.random.default_rng(1)
    which = np.repeat([0, 1, 2], 300)
    counts = profiles.sample(which, rng).toarray()
    assert (counts == counts.astype(int)).all()
    totals = counts.sum(1)
    medians = [np.median(totals[which == k]) for k in range(3)]
    assert medians == pytest.approx([500, 500, 4000], rel=0.15)
    assert np.std(np.log(totals[which == 0])) == pytest.approx(0.6, rel=0.15)
    for k in range(3):
        found = counts[which == k].sum(0) / counts[which == k].sum()
        expected = profiles.expression.toarray()[k] / profiles.expression.toarray()[k].sum()
        assert np.corrcoef(np.sqrt(found[:300]), np.sqrt(expected[:300]))[0, 1] > 0.97


def test_dispersion_exceeds_that_of_poisson_counts(profiles):
    def fano(dispersion: float) -> float:
        fixed = Profiles(profiles.expression, 5000.0, depth_sd=0.0, dispersion=dispersion)
        counts = fixed.sample(np.zeros(400, dtype=int), np.random.default_rng(0)).toarray()
        return float(np.median(counts[:, :300].var(0) / counts[:, :300].mean(0)))

    assert fano(0.0) == pytest.approx(1, rel=0.1)
    assert fano(0.7) > 3


def test_a_new_cell_is_drawn_each_time(profiles, tiny, ontology):
    source = synthetic_cells(profiles, np.array(TYPES))
    rows: dict[int, set] = {}
    for batch in TokenDataModule([source], TYPES, tiny).train_dataloader():
        lengths = batch.cu_seqlens.diff().tolist()
        for ids, row in zip(batch.ids.split(lengths), batch.rows.tolist(), strict=True):
            rows.setdefault(row, set()).add(tuple(ids.tolist()))
    assert sum(map(len, rows.values())) == tiny.max_steps * tiny.batch_cells
    config = tiny.replace(
        max_steps=120, max_length=64, learning_rate=1e-2, mask_probability=0.0, dropout=0.0,
        attention_dropout=0.0, batch_cells=12,
    )  # fmt: skip
    assert fit([source], ontology, config).curve["type_accuracy"].iloc[-10:].mean() > 0.8


def test_synthetic_cells_and_measured_tokens_together(profiles, tiny, cells):
    tokens_only = LabelledTokens(cells.tokens, cells.cell_types, "measured")
    source = synthetic_cells(profiles, np.array(TYPES))
    config = tiny.replace(source_weights={"measured": 0.5})
    for batch in TokenDataModule([tokens_only, source], TYPES, config).train_dataloader():
        lengths = batch.cu_seqlens.diff().tolist()
        for ids, of, row in zip(batch.ids.split(lengths), batch.sources, batch.rows, strict=True):
            if not int(of):
                assert ids.tolist() == cells.tokens[int(row)][: config.max_length].tolist()


def test_parameters_of_profiles_are_part_of_the_data(profiles):
    ids = {
        synthetic_cells(p, np.array(TYPES)).identity
        for p in (
            profiles,
            Profiles(profiles.expression),
            Profiles(profiles.expression, dispersion=0.1),
        )
    }
    assert len(ids) == 3


def test_genes_without_counts_stay_without_counts_when_thinned(profiles, tiny):
    counts = profiles.sample(np.zeros(20, dtype=int), np.random.default_rng(0))
    assert (counts.data == 0).any()  # stored zeros

    class Fixed(Profiles):
        def sample(self, cells, rng):
            return counts[cells]

    source = LabelledTokens(
        synthetic_cells(profiles, np.array(TYPES)).tokens.take(np.zeros(20, dtype=int)),
        np.array([TYPES[0]] * 20),
        counts=Fixed(counts),
    )
    config = tiny.replace(thinning=1.0, thinning_min=150, thinning_max=200, max_length=2048)
    for cell, ids in enumerate(augmented(source, config, range(20))):
        assert (counts[[cell]].toarray().ravel()[genes_of(ids)] > 0).all()


def test_one_label_per_profile(profiles):
    with pytest.raises(LabelError, match="3 profiles, but 2 cell types"):
        synthetic_cells(profiles, np.array(TYPES[:2]))


def test_counts_are_not_streamed(ontology, profiles, tiny):
    source = synthetic_cells(profiles, np.array(TYPES))
    with pytest.raises(ConfigError, match="in memory"):
        fit([source], ontology, tiny.replace(stream=True))
