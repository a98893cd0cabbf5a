"""tl.pretrain on a streamed corpus, with validation cells and Lightning options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sccello_tools as sccello
from sccello_tools.corpus import Corpus
from sccello_tools.errors import ConfigError, CorpusError
from sccello_tools.ontology import CellOntology
from sccello_tools.training import CorpusSource, LabelledTokens, PretrainConfig
from sccello_tools.training.pretrain import sources
from sccello_tools.training.pretrain.sources import corpus_sources

if TYPE_CHECKING:
    from pathlib import Path

    import anndata

CONFIG = PretrainConfig(
    hidden_size=8, n_layers=1, n_heads=2, max_length=32, max_steps=3, batch_tokens=128, stream=True,
    source_weights={"two": 0.5}, validate_every=2,
)  # fmt: skip
IDS = ["CL:0000084", "CL:0000236", "CL:0000576"]


@pytest.fixture
def corpus(adata: anndata.AnnData, tmp_path: Path) -> Corpus:
    adata.obs["cell_type_ontology_term_id"] = pd.Categorical(IDS * 10)
    adata.write_h5ad(tmp_path / "one.h5ad")
    adata[:9].copy().write_h5ad(tmp_path / "two.h5ad")
    paths = [tmp_path / "one.h5ad", tmp_path / "two.h5ad"]
    return sccello.pp.build_corpus(paths, tmp_path / "corpus", cells_per_shard=8)


def test_a_corpus_is_streamed(
    corpus: Corpus, adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Corpus, "to_memory", None)  # what holds all cells must not be asked for
    model = sccello.tl.pretrain(
        corpus, out=tmp_path / "model", config=CONFIG, validation=adata, min_matched=1, loggers=["csv"],
        devices=1, strategy="auto", trainer_kwargs={"accelerator": "cpu"},
    )  # fmt: skip
    assert model.entry.training_data.description == "one (30 cells), two (9 cells)"
    curve = pd.read_csv(tmp_path / "model" / "training_curve.csv")
    assert curve["tokens"].max() <= 128
    assert curve["validation_nmi"].notna().tolist() == [False, True, True]
    assert list((tmp_path / "model" / "logs").rglob("metrics.csv"))


def test_large_corpora_are_streamed(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ontology = CellOntology.load()
    held = corpus_sources(corpus, "ignored", ontology, stream=None)
    assert [type(part) for part in held] == [LabelledTokens] * 2
    monkeypatch.setattr(sources, "MAX_BYTES_IN_MEMORY", 1000)
    (streamed,) = corpus_sources(corpus, "ignored", ontology, stream=None)
    assert isinstance(streamed, CorpusSource)
    assert streamed.n_cells_of == {part.source: part.n_cells_of[part.source] for part in held}
    path = tmp_path / "published.parquet"
    ids = [[25426, *range(5, 50)]] * 20
    pq.write_table(pa.table({"gene_token_ids": ids, "cell_type": ["T cell"] * 20}), path)
    (published,) = corpus_sources(Corpus.open(path), "published", ontology, stream=None)
    assert published.n_cells_of == {"published": {IDS[0]: 20}}


def test_invalid_runs(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "model"
    config = CONFIG.replace(source_weights={"three": 0.5})
    with pytest.raises(ConfigError, match=r"unknown sources: three.*one, two"):
        sccello.tl.pretrain(corpus, out=out, config=config)
    with pytest.raises(ConfigError, match=r"loggers.*'mlflow'"):
        sccello.tl.pretrain(corpus, out=out, config=CONFIG, loggers=["mlflow"])
    shard = corpus.shards[1].path
    shard.write_bytes(b"PAR1" + bytes(shard.stat().st_size - 4))
    with pytest.raises(CorpusError, match=rf"{shard.name} cannot be read"):
        sccello.tl.pretrain(corpus, out=out, config=CONFIG, trainer_kwargs={"accelerator": "cpu"})
    assert not (out / "model.safetensors").exists()


def test_a_checkpoint_of_a_changed_corpus_is_refused(
    corpus: Corpus, adata: anndata.AnnData, tmp_path: Path
) -> None:
    options = {
        "out": tmp_path / "model", "checkpoint_dir": tmp_path / "runs", "checkpoint_every": 1,
        "trainer_kwargs": {"accelerator": "cpu"},
    }  # fmt: skip
    config = CONFIG.replace(source_weights={})
    sccello.tl.pretrain(corpus, config=config, **options)
    other = adata[::-1].copy()
    other.write_h5ad(tmp_path / "one.h5ad")
    paths = [tmp_path / "one.h5ad", tmp_path / "two.h5ad"]
    changed = sccello.pp.build_corpus(paths, tmp_path / "changed", cells_per_shard=8)
    with pytest.raises(ConfigError, match="run with other data"):
        sccello.tl.pretrain(changed, config=config, **options)
