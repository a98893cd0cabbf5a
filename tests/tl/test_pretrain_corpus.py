"""Pretraining on a corpus gives what pretraining on the same cells in memory gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sccello_tools as sccello
from sccello_tools.corpus import Corpus
from sccello_tools.errors import CorpusError, LabelError
from sccello_tools.ontology import CellOntology
from sccello_tools.training import PretrainConfig
from sccello_tools.training.pretrain.sources import corpus_in_memory

if TYPE_CHECKING:
    from pathlib import Path

    import anndata

CONFIG = PretrainConfig(
    hidden_size=8, n_layers=1, n_heads=2, max_length=32, max_steps=2, batch_cells=4
)
IDS = ["CL:0000084", "CL:0000236", "CL:0000576"]


@pytest.fixture
def labelled(adata: anndata.AnnData) -> anndata.AnnData:
    adata.obs["cell_type_ontology_term_id"] = pd.Categorical(IDS * 10)
    return adata


def test_corpus_gives_the_same_losses_as_its_cells(
    labelled: anndata.AnnData, tmp_path: Path
) -> None:
    labelled.write_h5ad(tmp_path / "cells.h5ad")
    sccello.pp.build_corpus(tmp_path / "cells.h5ad", tmp_path / "corpus", cells_per_shard=8)
    options = {"config": CONFIG, "trainer_kwargs": {"accelerator": "cpu"}}
    sccello.tl.pretrain(labelled, out=tmp_path / "a", min_matched=1, **options)
    sccello.tl.pretrain(tmp_path / "corpus", out=tmp_path / "b", **options)
    of_cells, of_corpus = (
        pd.read_csv(tmp_path / name / "training_curve.csv").drop(columns="seconds")
        for name in ("a", "b")
    )
    pd.testing.assert_frame_equal(of_cells, of_corpus, rtol=1e-3)


def test_sources_of_a_corpus(labelled: anndata.AnnData, tmp_path: Path) -> None:
    labelled.write_h5ad(tmp_path / "one.h5ad")
    labelled[:9].copy().write_h5ad(tmp_path / "two.h5ad")
    paths = [tmp_path / "one.h5ad", tmp_path / "two.h5ad"]
    corpus = sccello.pp.build_corpus(paths, tmp_path / "corpus", cells_per_shard=8)
    sources = corpus_in_memory(corpus, "ignored", CellOntology.load())
    assert [(part.source, len(part.tokens)) for part in sources] == [("one", 30), ("two", 9)]
    tokens = sccello.pp.tokenize(labelled, min_matched=1)
    assert np.array_equal(sources[0].tokens.ids, tokens.ids)
    assert sources[1].cell_types.tolist() == IDS * 3


def write_published(path: Path, cell_types: list[str | None]) -> Path:
    ids = [[25426, 5 + i] for i in range(len(cell_types))]
    pq.write_table(pa.table({"gene_token_ids": ids, "cell_type": cell_types}), path)
    return path


def test_names_of_a_published_corpus_become_ids(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_published(tmp_path / "cells.parquet", ["T cell", "B cell", None, "monocyte"])
    (source,) = corpus_in_memory(Corpus.open(path), "published", CellOntology.load())
    assert source.cell_types.tolist() == IDS
    assert source.tokens.ids.tolist() == [25426, 5, 25426, 6, 25426, 8]
    assert "published: excluded 1 of 4 cells" in caplog.text


def test_unknown_labels_are_named(tmp_path: Path) -> None:
    path = write_published(tmp_path / "cells.parquet", ["T cell", "frobnicated", "7"])
    with pytest.raises(LabelError, match=r"cells: 2 labels .* \('7', 'frobnic"):
        sccello.tl.pretrain(str(path), out=tmp_path / "out", config=CONFIG)


def test_missing_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="Corpus not found:"):
        sccello.tl.pretrain(tmp_path / "nowhere", out=tmp_path / "out", config=CONFIG)


def test_the_command_line_builds_a_corpus(labelled: anndata.AnnData, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from sccello_tools.cli import app

    labelled.write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / "corpus"
    arguments = [str(tmp_path / "cells.h5ad"), "-o", str(out), "--obs-key", "donor", "--json"]
    result = CliRunner().invoke(app, ["--quiet", "tokenize", *arguments])
    assert result.exit_code == 0, result.output
    expected = {"folder": str(out), "cells": 30, "cell_types": 3, "files": 1}
    assert json.loads(result.stdout.splitlines()[-1]) == expected
    assert "donor" in Corpus.open(out).shards[0].schema().names
