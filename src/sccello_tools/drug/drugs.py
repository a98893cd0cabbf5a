"""Drugs as tensors: packed graphs of atoms or fingerprints, and which of them were in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .molecules import N_ATOM_FEATURES, N_FINGERPRINT_BITS, fingerprints, molecular_graphs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import DrugEncoder


class DrugInputs(NamedTuple):
    """What a network reads of several drugs. The parts that an encoder does not need are empty."""

    known: torch.Tensor
    """(n_drugs,) int64: place among the drugs of the training data, or their number for a new drug."""
    features: torch.Tensor
    """(n_atoms, N_ATOM_FEATURES) or (n_drugs, N_FINGERPRINT_BITS) float32."""
    adjacency: torch.Tensor
    """(n_atoms, n_atoms) sparse float32: order of each bond over the root of the product of both atoms' orders (symmetric normalisation)."""
    molecule: torch.Tensor
    """(n_atoms,) int64: the drug of each atom."""
    n_atoms: torch.Tensor
    """(n_drugs,) float32."""


def drug_inputs(encoder: DrugEncoder, smiles: Sequence[str], known: Sequence[int]) -> DrugInputs:
    """Read drugs.

    Parameters
    ----------
    encoder
        What will read them.
    smiles
        (n_drugs,) SMILES; not looked at with encoder "none".
    known
        (n_drugs,) place of each among the drugs of the training data, or their number.

    Raises
    ------
    DrugError
        If rdkit refuses a SMILES.
    """
    places = torch.tensor(list(known), dtype=torch.int64)
    nothing, nowhere = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    if encoder == "none":
        return DrugInputs(places, torch.zeros(len(places), 0), nothing, nowhere, nothing)
    if encoder == "fingerprint":
        bits = torch.from_numpy(fingerprints(smiles))
        return DrugInputs(places, bits, nothing, nowhere, nothing)
    graphs = molecular_graphs(smiles)
    source, target = graphs.bonds
    n_atoms = np.diff(graphs.indptr)
    # each atom counts as its own neighbour in the normalisation, as in Kipf and Welling
    strength = 1 + np.bincount(target, weights=graphs.orders, minlength=len(graphs.atoms))
    weights = graphs.orders / np.sqrt(strength[source] * strength[target])
    return DrugInputs(
        known=places,
        features=torch.from_numpy(graphs.atoms),
        adjacency=torch.sparse_coo_tensor(
            torch.from_numpy(graphs.bonds),
            torch.from_numpy(weights.astype(np.float32)),
            (len(graphs.atoms), len(graphs.atoms)),
            check_invariants=True,
        ).coalesce(),
        molecule=torch.from_numpy(np.repeat(np.arange(len(n_atoms)), n_atoms)),
        n_atoms=torch.from_numpy(n_atoms.astype(np.float32)),
    )


def n_drug_features(encoder: DrugEncoder) -> int:
    """Width of ``DrugInputs.features``."""
    return {"gcn": N_ATOM_FEATURES, "fingerprint": N_FINGERPRINT_BITS, "none": 0}[encoder]
