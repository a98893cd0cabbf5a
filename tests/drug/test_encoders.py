"""Molecules as graphs: the same molecule, however it is written, is the same graph; what is no molecule is refused."""

from __future__ import annotations

import sys
from typing import get_args

import numpy as np
import pytest

from sccello_tools.drug.encoders import (
    ENCODERS,
    DrugEncoderName,
    check_smiles,
    drug_inputs,
    fingerprints,
    molecular_graphs,
)
from sccello_tools.errors import DrugError, MissingExtraError

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
ASPIRIN_TOO = "OC(=O)C1=CC=CC=C1OC(C)=O"


def test_a_molecule_has_its_heavy_atoms_and_bonds_both_ways():
    graphs = molecular_graphs(["CCO", ASPIRIN])
    assert graphs.indptr.tolist() == [0, 3, 16]
    pairs = set(map(tuple, graphs.bonds.T.tolist()))
    assert pairs == {(b, a) for a, b in pairs}
    assert (0, 1) in pairs
    assert (0, 3) not in pairs


def test_bonds_stay_within_their_molecule():
    graphs = molecular_graphs(["CCO", ASPIRIN, "c1ccccc1"])
    owner = np.repeat(np.arange(3), np.diff(graphs.indptr))
    source, target = graphs.bonds
    assert (owner[source] == owner[target]).all()


def test_two_ways_of_writing_give_one_molecule():
    np.testing.assert_array_equal(*fingerprints([ASPIRIN, ASPIRIN_TOO]))
    a, b = (molecular_graphs([text]) for text in (ASPIRIN, ASPIRIN_TOO))
    assert sorted(map(tuple, a.atoms.tolist())) == sorted(map(tuple, b.atoms.tolist()))


def test_elements_that_no_drug_of_gdsc_has_are_read_too():
    gold, carbon = molecular_graphs(["[Au]"]).atoms, molecular_graphs(["C"]).atoms
    assert gold.shape == carbon.shape
    assert (gold != carbon).any()


@pytest.mark.parametrize("bad", ["aspirin", "C1CC", "", "   ", "C(C)(C)(C)(C)C"])
def test_what_is_no_molecule_is_refused_by_name(bad):
    with pytest.raises(DrugError, match="1 of 2 SMILES") as found:
        molecular_graphs(["CCO", bad])
    assert repr(bad) in str(found.value)


def test_without_rdkit_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(MissingExtraError, match=r"sccello-tools\[drug\]"):
        fingerprints(["CCO"])


def test_adjacency_is_symmetric_and_normalised():
    inputs = drug_inputs("gcn", [ASPIRIN], [0])
    dense = inputs.molecules["adjacency"].to_dense()
    np.testing.assert_allclose(dense, dense.T, rtol=1e-6)
    assert float(np.linalg.eigvalsh(dense.numpy()).max()) < 1  # each atom's own share is not in it


def test_every_encoder_name_has_a_class():
    assert set(ENCODERS) == set(get_args(DrugEncoderName))


def test_missing_smiles_are_named():
    for missing in (float("nan"), None, "", " "):
        with pytest.raises(DrugError, match=r"1 of 2 drugs have no SMILES: 'unnamed compound 7'"):
            check_smiles({"aspirin": ASPIRIN, "unnamed compound 7": missing})
    assert check_smiles({"aspirin": ASPIRIN}) == {"aspirin": ASPIRIN}
