"""The excerpt of GDSC2 that ships, and a model of it that is trained in a second."""

from __future__ import annotations

import pytest

import sccello_tools as sccello
from sccello_tools.drug import DrugResponseConfig


@pytest.fixture(scope="session")
def small():
    """Settings that train in a moment."""
    return DrugResponseConfig(
        max_epochs=2, hidden_size=8, graph_size=8, n_graph_layers=1, n_components=10
    )


@pytest.fixture(scope="session")
def gdsc():
    return sccello.datasets.gdsc()


@pytest.fixture(scope="session")
def trained(gdsc, small):
    """Two networks on expression alone, a fifth of the lines held out."""
    return sccello.tl.train_drug_response(
        gdsc, cell_features=("expression",), n_members=2, config=small
    )
