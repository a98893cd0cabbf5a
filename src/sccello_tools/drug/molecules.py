"""Molecules as graphs and as fingerprints, by rdkit. Nothing here needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sccello_tools.errors import DrugError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from numpy.typing import NDArray

# What the drugs of GDSC are made of, and what is near enough to be met in others; the last place is for every other element.
_ELEMENTS: Final = ("C", "N", "O", "S", "F", "Cl", "Br", "I", "P", "B", "Si", "Pt", "Na")
_HYBRIDS: Final = ("S", "SP", "SP2", "SP3", "SP3D", "SP3D2")
_MAX_DEGREE: Final = 4
_MAX_HYDROGENS: Final = 3
N_ATOM_FEATURES: Final = (
    len(_ELEMENTS) + 1 + _MAX_DEGREE + 1 + _MAX_HYDROGENS + 1 + len(_HYBRIDS) + 1 + 5
)
N_FINGERPRINT_BITS: Final = 1024
_MAX_SHOWN: Final = 5


class MolecularGraphs(NamedTuple):
    """Several molecules, packed one after the other: molecule ``i`` owns atoms ``indptr[i]:indptr[i + 1]``."""

    atoms: NDArray[np.float32]
    """Features of each atom, shape (n_atoms, N_ATOM_FEATURES): element, bonds, hydrogens, hybridisation, charge, ring, ..."""
    bonds: NDArray[np.int64]
    """Pairs of neighbouring atoms, each bond in both directions, shape (2, 2 n_bonds)."""
    orders: NDArray[np.float32]
    """Order of each bond, 1.5 if aromatic, shape (2 n_bonds,)."""
    indptr: NDArray[np.int64]
    """Where each molecule begins, shape (n_molecules + 1,)."""

    def __len__(self) -> int:
        return len(self.indptr) - 1


def molecular_graphs(smiles: Sequence[str]) -> MolecularGraphs:
    """Read molecules as graphs of their heavy atoms.

    Parameters
    ----------
    smiles
        One SMILES a molecule.

    Returns
    -------
    The graphs, in order.

    Raises
    ------
    DrugError
        If rdkit refuses a SMILES; the message names it.
    MissingExtraError
        If rdkit is not installed.

    Examples
    --------
    >>> from sccello_tools.drug.molecules import molecular_graphs
    >>> ethanol, water = "CCO", "O"
    >>> molecular_graphs([ethanol, water]).indptr.tolist()
    [0, 3, 4]
    """
    atoms, sources, targets, orders, indptr = [], [], [], [], [0]
    for molecule in _read(smiles):
        start = indptr[-1]
        atoms += [_atom_features(atom) for atom in molecule.GetAtoms()]
        for bond in molecule.GetBonds():
            a, b = start + bond.GetBeginAtomIdx(), start + bond.GetEndAtomIdx()
            sources += [a, b]
            targets += [b, a]
            orders += [bond.GetBondTypeAsDouble()] * 2
        indptr.append(len(atoms))
    return MolecularGraphs(
        np.array(atoms, dtype=np.float32).reshape(len(atoms), N_ATOM_FEATURES),
        np.array([sources, targets], dtype=np.int64),
        np.array(orders, dtype=np.float32),
        np.array(indptr, dtype=np.int64),
    )


def fingerprints(smiles: Sequence[str]) -> NDArray[np.float32]:
    """Morgan fingerprints of radius 2 (ECFP4).

    Parameters
    ----------
    smiles
        One SMILES a molecule.

    Returns
    -------
    Array of shape (n_molecules, 1024), float32, of 0 and 1.

    Raises
    ------
    DrugError
        If rdkit refuses a SMILES; the message names it.
    MissingExtraError
        If rdkit is not installed.

    Examples
    --------
    >>> from sccello_tools.drug.molecules import fingerprints
    >>> int(fingerprints(["CCO"]).sum())
    6
    """
    molecules = _read(smiles)
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=2, fpSize=N_FINGERPRINT_BITS)
    rows = [generator.GetFingerprintAsNumPy(molecule) for molecule in molecules]
    return np.array(rows, dtype=np.float32).reshape(len(rows), N_FINGERPRINT_BITS)


def check_smiles(smiles: Sequence[str]) -> None:
    """Refuse, before any work, SMILES that are no molecules.

    Raises
    ------
    DrugError
        With those that are refused.
    """
    _read(smiles)


def _read(smiles: Sequence[str]) -> list[Any]:
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        what = "Reading molecules from SMILES"
        raise MissingExtraError(what, extra="drug") from error
    with (
        rdBase.BlockLogs()
    ):  # rdkit's own remarks go to the terminal; the error below says what matters
        molecules = [Chem.MolFromSmiles(text) if text.strip() else None for text in smiles]
    if refused := [text for text, m in zip(smiles, molecules) if m is None or m.GetNumAtoms() == 0]:
        shown = ", ".join(repr(text) for text in refused[:_MAX_SHOWN])
        msg = (
            f"{len(refused)} of {len(smiles)} SMILES are no molecule that rdkit reads: {shown}. Expected is a SMILES such as "
            "'CC(=O)Oc1ccccc1C(=O)O' (aspirin); check for a name, an InChI or a cut-off line in its place."
        )
        raise DrugError(msg)
    return molecules


def _atom_features(atom: Any) -> list[float]:
    return [
        *_one_of(atom.GetSymbol(), _ELEMENTS),
        *_up_to(atom.GetDegree(), _MAX_DEGREE),
        *_up_to(atom.GetTotalNumHs(), _MAX_HYDROGENS),
        *_one_of(str(atom.GetHybridization()), _HYBRIDS),
        float(atom.GetFormalCharge()),
        float(atom.GetIsAromatic()),
        float(atom.IsInRing()),
        float(atom.IsInRingSize(5)),
        float(atom.IsInRingSize(6)),
    ]


def _one_of(value: str, choices: Sequence[str]) -> list[float]:
    """Mark a value's place; the last place is for whatever is no choice."""
    return [float(value == choice) for choice in choices] + [float(value not in choices)]


def _up_to(value: int, most: int) -> list[float]:
    return [float(min(value, most) == i) for i in range(most + 1)]
