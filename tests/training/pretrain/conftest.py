from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import RaggedTokens
from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig

CLS = 25426
T_CELL, B_CELL, NEURON = "CL:0000084", "CL:0000236", "CL:0000540"
TYPES = (T_CELL, B_CELL, NEURON)


def ragged(sequences) -> RaggedTokens:
    ids = np.concatenate([np.zeros(0, dtype=np.int32), *sequences]).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    return RaggedTokens(indptr, ids, np.zeros(len(ids), dtype=np.float32))


def synthetic_cells(n_each: int = 8, seed: int = 0, source: str = "cells") -> LabelledTokens:
    """Cells of three types, each with genes of its own in a noisy order."""
    rng = np.random.default_rng(seed)
    sequences, labels = [], []
    for number, cell_type in enumerate(TYPES):
        genes = np.arange(100 + 50 * number, 120 + 50 * number)
        for _ in range(n_each):
            kept = rng.permutation(genes)[: rng.integers(8, 16)]
            sequences.append(np.array([CLS, *kept], dtype=np.int32))
            labels.append(cell_type)
    return LabelledTokens(ragged(sequences), np.array(labels), source)


@pytest.fixture(scope="session")
def make_tokens():
    """Tokens of given sequences."""
    return ragged


@pytest.fixture(scope="session")
def make_cells():
    """Labelled cells of three types: (n_each, seed, source)."""
    return synthetic_cells


@pytest.fixture(scope="session")
def ontology() -> CellOntology:
    return CellOntology.load()


@pytest.fixture(scope="session")
def cells() -> LabelledTokens:
    return synthetic_cells()


@pytest.fixture(scope="session")
def tiny() -> PretrainConfig:
    return PretrainConfig(
        hidden_size=16,
        n_layers=1,
        n_heads=2,
        intermediate_size=16,
        max_length=16,
        max_steps=12,
        batch_cells=6,
        warmup_steps=2,
        n_negatives=64,
        dropout=0.1,
        attention_dropout=0.1,
        learning_rate=5e-3,
        second_pass=True,
    )
