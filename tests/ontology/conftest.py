"""The ontology of all tests here."""

from __future__ import annotations

import pytest

from sccello_tools.ontology import CellOntology


@pytest.fixture(scope="session")
def ontology() -> CellOntology:
    """Snapshot that ships with the package."""
    return CellOntology.load()
