from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sccello_tools.nn import EncoderConfig, ScCelloModel, load_checkpoint

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def read_npz(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / name) as archive:
        return {k: torch.as_tensor(v) for k, v in archive.items() if v.dtype.kind != "U"}


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN / "checkpoint"


@pytest.fixture(scope="session")
def golden_model(golden_folder) -> ScCelloModel:
    return load_checkpoint(golden_folder)


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    return read_npz("model.npz")


@pytest.fixture(scope="session")
def golden_ontology() -> dict[str, torch.Tensor]:
    return read_npz("ontology.npz")


@pytest.fixture(scope="session")
def golden_marker() -> dict[str, torch.Tensor]:
    return read_npz("marker.npz")


@pytest.fixture(scope="session")
def small_config() -> EncoderConfig:
    return EncoderConfig(
        vocab_size=60,
        cls_token_id=59,
        hidden_size=24,
        n_layers=3,
        n_heads=3,
        intermediate_size=40,
        max_positions=64,
        n_prototypes=7,
        tau=0.05,
    )


@pytest.fixture(scope="session")
def small_model(small_config) -> ScCelloModel:
    """Weights far from their start: biases, norms and large scores take part in every test."""
    torch.manual_seed(0)
    model = ScCelloModel(small_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model
