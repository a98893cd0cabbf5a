"""Real cells with their embedding, made once."""

from __future__ import annotations

import pytest

import sccello_tools as sccello


@pytest.fixture(scope="session")
def model():
    return sccello.models.load(device="cpu")


@pytest.fixture(scope="session")
def _embedded(model):
    cells = sccello.datasets.pancreas_tritschler()[::3].copy()
    sccello.tl.embed(cells, model=model)
    return cells


@pytest.fixture
def pancreas(_embedded):
    """A third of the shipped cells with X_sccello; a test may change them."""
    return _embedded.copy()
