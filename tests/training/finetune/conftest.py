from __future__ import annotations

import numpy as np
import pytest
import torch

from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.tokens import RaggedTokens
from sccello_tools.training.finetune import FinetuneConfig

CLS = 25426


@pytest.fixture
def network() -> ScCelloModel:
    """A small network whose weights are far from their start, so that its parts matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = EncoderConfig(
            hidden_size=16,
            n_layers=2,
            n_heads=2,
            intermediate_size=24,
            max_positions=32,
            dropout=0.1,
            attention_dropout=0.0,
            initializer_range=0.3,
        )
        return ScCelloModel(config).eval()


@pytest.fixture(scope="session")
def cells() -> tuple[RaggedTokens, np.ndarray]:
    """Tokens and labels of 48 cells of three labels, each with genes of its own in a noisy order."""
    rng = np.random.default_rng(0)
    codes = np.arange(48) % 3
    rows = [
        np.array(
            [CLS, *rng.permutation(np.arange(100 + 50 * c, 120 + 50 * c))[: rng.integers(8, 16)]]
        )
        for c in codes
    ]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    ids = np.concatenate(rows).astype(np.int32)
    return RaggedTokens(indptr, ids, np.zeros(len(ids), dtype=np.float32)), codes


@pytest.fixture
def quick() -> FinetuneConfig:
    return FinetuneConfig(max_epochs=3, batch_cells=8, lora_rank=2)
