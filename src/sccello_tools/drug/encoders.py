"""Drug encoders: SMILES in, one vector per drug out. To add an encoder, change this module only.

An encoder is a :class:`DrugEncoder` with an entry in :data:`ENCODERS` and in :data:`DrugEncoderName`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sccello_tools._messages import listed, quoted
from sccello_tools.errors import DrugError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from numpy.typing import NDArray

DrugEncoderName = Literal["gcn", "fingerprint", "none"]

# elements of the drugs of GDSC and of similar drugs; all others share the last position of the one-hot vector
_ELEMENTS: Final = ("C", "N", "O", "S", "F", "Cl", "Br", "I", "P", "B", "Si", "Pt", "Na")
_HYBRIDIZATIONS: Final = ("S", "SP", "SP2", "SP3", "SP3D", "SP3D2")
_MAX_DEGREE: Final = 4
_MAX_HYDROGENS: Final = 3
N_ATOM_FEATURES: Final = (
    len(_ELEMENTS) + 1 + _MAX_DEGREE + 1 + _MAX_HYDROGENS + 1 + len(_HYBRIDIZATIONS) + 1 + 5
)
N_FINGERPRINT_BITS: Final = 1024


class EncoderSizes(Protocol):
    """Settings that encoders use; see :class:`~sccello_tools.drug.DrugResponseConfig`."""

    @property
    def hidden_size(self) -> int: ...  # noqa: D102
    @property
    def graph_size(self) -> int: ...  # noqa: D102
    @property
    def n_graph_layers(self) -> int: ...  # noqa: D102
    @property
    def dropout(self) -> float: ...  # noqa: D102


class DrugEncoder(nn.Module, ABC):
    """Base of encoders that read molecular structure.

    Parameters
    ----------
    sizes
        Settings; the output has ``sizes.hidden_size`` dimensions.
    """

    out: nn.Linear
    """Last layer."""

    @abstractmethod
    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()

    @staticmethod
    @abstractmethod
    def read(smiles: Sequence[str]) -> dict[str, torch.Tensor]:
        """Compute the input tensors of several drugs."""

    @abstractmethod
    def forward(self, molecules: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Encode the drugs of :meth:`read`; returns (n_drugs, hidden_size)."""


class GraphEncoder(DrugEncoder):
    """Graph convolutions with residual connections; mean and maximum over the atoms of a molecule.

    Kipf and Welling, Semi-supervised classification with graph convolutional networks, ICLR 2017, as in DeepCDR.
    """

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__(sizes)
        width, n_layers = sizes.graph_size, sizes.n_graph_layers
        self.first = nn.Linear(N_ATOM_FEATURES, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
        self.others = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers))
        self.out = nn.Linear(2 * width, sizes.hidden_size)

    @staticmethod
    def read(smiles: Sequence[str]) -> dict[str, torch.Tensor]:
        """Read molecules as packed graphs.

        Returns
        -------
        ``atoms`` (n_atoms, N_ATOM_FEATURES) float32; ``adjacency`` (n_atoms, n_atoms) sparse float32, bond orders divided by the
        square root of the product of both atoms' degrees; ``molecule`` (n_atoms,) int64, index of each atom's drug; ``n_atoms``
        (n_drugs,) float32.
        """
        graphs = molecular_graphs(smiles)
        source, target = graphs.bonds
        n_atoms = np.diff(graphs.indptr)
        # each atom is its own neighbour in the normalisation, as in Kipf and Welling
        degree = 1 + np.bincount(target, weights=graphs.orders, minlength=len(graphs.atoms))
        weights = graphs.orders / np.sqrt(degree[source] * degree[target])
        return {
            "atoms": torch.from_numpy(graphs.atoms),
            "adjacency": torch.sparse_coo_tensor(
                torch.from_numpy(graphs.bonds),
                torch.from_numpy(weights.astype(np.float32)),
                (len(graphs.atoms), len(graphs.atoms)),
                check_invariants=True,
            ).coalesce(),
            "molecule": torch.from_numpy(np.repeat(np.arange(len(n_atoms)), n_atoms)),
            "n_atoms": torch.from_numpy(n_atoms.astype(np.float32)),
        }

    def forward(self, molecules: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return (n_drugs, hidden_size)."""
        atoms = functional.relu(self.first(molecules["atoms"]))  # (n_atoms, width)
        for own, others, norm in zip(self.own, self.others, self.norms):
            messages = torch.sparse.mm(molecules["adjacency"], others(atoms))
            atoms = atoms + functional.relu(norm(own(atoms) + messages))
        n_drugs, width = len(molecules["n_atoms"]), atoms.shape[1]
        total = atoms.new_zeros(n_drugs, width).index_add(0, molecules["molecule"], atoms)
        mean = total / molecules["n_atoms"][:, None]
        index = molecules["molecule"][:, None].expand(-1, width)
        # starting from zero is right for the maximum: atoms are sums of ReLU outputs and never negative
        maximum = atoms.new_zeros(n_drugs, width).scatter_reduce(0, index, atoms, "amax")
        vectors: torch.Tensor = self.out(torch.cat([mean, maximum], dim=1))
        return vectors


class FingerprintEncoder(DrugEncoder):
    """Two layers on the Morgan fingerprint of a molecule."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__(sizes)
        self.first = nn.Linear(N_FINGERPRINT_BITS, sizes.hidden_size)
        self.norm = nn.LayerNorm(sizes.hidden_size)
        self.out = nn.Linear(sizes.hidden_size, sizes.hidden_size)
        self.dropout = sizes.dropout

    @staticmethod
    def read(smiles: Sequence[str]) -> dict[str, torch.Tensor]:
        """Compute fingerprints: ``bits`` (n_drugs, N_FINGERPRINT_BITS) float32."""
        return {"bits": torch.from_numpy(fingerprints(smiles))}

    def forward(self, molecules: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return (n_drugs, hidden_size)."""
        hidden = functional.relu(self.norm(self.first(molecules["bits"])))
        vectors: torch.Tensor = self.out(functional.dropout(hidden, self.dropout, self.training))
        return vectors


ENCODERS: Final[Mapping[str, type[DrugEncoder] | None]] = {
    "gcn": GraphEncoder,
    "fingerprint": FingerprintEncoder,
    "none": None,
}
"""Encoder classes by name; "none" reads no structure and cannot predict for new drugs."""


class DrugInputs(NamedTuple):
    """Drugs as input of a network."""

    known: torch.Tensor
    """(n_drugs,) int64: index among the drugs of the training data, or their number for a new drug."""
    molecules: dict[str, torch.Tensor]
    """Output of :meth:`DrugEncoder.read`; empty for encoder "none"."""


def drug_inputs(name: DrugEncoderName, smiles: Sequence[str], known: Sequence[int]) -> DrugInputs:
    """Read drugs for an encoder.

    Parameters
    ----------
    name
        Name of the encoder.
    smiles
        (n_drugs,) SMILES; ignored by encoder "none".
    known
        (n_drugs,) index of each among the drugs of the training data, or their number.

    Raises
    ------
    DrugError
        If rdkit cannot parse a SMILES.
    MissingExtraError
        If rdkit is not installed.
    """
    encoder = ENCODERS[name]
    index = torch.tensor(list(known), dtype=torch.int64)
    return DrugInputs(index, {} if encoder is None else encoder.read(smiles))


class MolecularGraphs(NamedTuple):
    """Packed molecules: molecule ``i`` consists of atoms ``indptr[i]:indptr[i + 1]``."""

    atoms: NDArray[np.float32]
    """(n_atoms, N_ATOM_FEATURES): element, degree, hydrogens, hybridisation, charge, aromaticity, rings."""
    bonds: NDArray[np.int64]
    """(2, 2 n_bonds): pairs of bonded atoms, each bond in both directions."""
    orders: NDArray[np.float32]
    """(2 n_bonds,) bond orders, 1.5 if aromatic."""
    indptr: NDArray[np.int64]
    """(n_molecules + 1,)"""

    def __len__(self) -> int:
        return len(self.indptr) - 1


def molecular_graphs(smiles: Sequence[str]) -> MolecularGraphs:
    """Parse molecules to graphs of their heavy atoms.

    Parameters
    ----------
    smiles
        One SMILES per molecule.

    Raises
    ------
    DrugError
        If rdkit cannot parse a SMILES.
    MissingExtraError
        If rdkit is not installed.

    Examples
    --------
    >>> from sccello_tools.drug.encoders import molecular_graphs
    >>> ethanol, water = "CCO", "O"
    >>> molecular_graphs([ethanol, water]).indptr.tolist()
    [0, 3, 4]
    """
    atoms, sources, targets, orders, indptr = [], [], [], [], [0]
    for molecule in _parse(smiles):
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
    """Compute Morgan fingerprints of radius 2 (ECFP4).

    Parameters
    ----------
    smiles
        One SMILES per molecule.

    Returns
    -------
    Array of shape (n_molecules, 1024), float32, 0 or 1.

    Raises
    ------
    DrugError
        If rdkit cannot parse a SMILES.
    MissingExtraError
        If rdkit is not installed.

    Examples
    --------
    >>> from sccello_tools.drug.encoders import fingerprints
    >>> int(fingerprints(["CCO"]).sum())
    6
    """
    molecules = _parse(smiles)
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=2, fpSize=N_FINGERPRINT_BITS)
    rows = [generator.GetFingerprintAsNumPy(molecule) for molecule in molecules]
    return np.array(rows, dtype=np.float32).reshape(len(rows), N_FINGERPRINT_BITS)


def check_smiles(drugs: Mapping[str, object]) -> dict[str, str]:
    """Return SMILES by name after checking that all are present and can be parsed.

    Raises
    ------
    DrugError
        With the names of drugs whose SMILES is missing or cannot be parsed.
    MissingExtraError
        If rdkit is not installed.
    """
    if missing := [
        name for name, text in drugs.items() if not isinstance(text, str) or not text.strip()
    ]:
        msg = f"{len(missing)} of {len(drugs)} drugs have no SMILES: {quoted(missing)}. Pass a mapping of names to SMILES without missing values."
        raise DrugError(msg)
    checked = {str(name): str(text) for name, text in drugs.items()}
    _parse(list(checked.values()), list(checked))
    return checked


def _parse(smiles: Sequence[str], names: Sequence[str] | None = None) -> list[Any]:
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        what = "Reading molecules from SMILES"
        raise MissingExtraError(what, extra="drug") from error
    with rdBase.BlockLogs():  # rdkit prints to the terminal
        molecules = [Chem.MolFromSmiles(text) if text.strip() else None for text in smiles]
    invalid = [i for i, m in enumerate(molecules) if m is None or m.GetNumAtoms() == 0]
    if invalid:
        shown = listed(f"{smiles[i]!r}" + (f" ({names[i]})" if names else "") for i in invalid)
        msg = (
            f"rdkit cannot parse {len(invalid)} of {len(smiles)} SMILES: {shown}. Pass SMILES such as 'CC(=O)Oc1ccccc1C(=O)O' (aspirin), "
            "not names, InChI or truncated lines."
        )
        raise DrugError(msg)
    return molecules


def _atom_features(atom: Any) -> list[float]:
    return [
        *_one_hot(atom.GetSymbol(), _ELEMENTS),
        *_clipped_one_hot(atom.GetDegree(), _MAX_DEGREE),
        *_clipped_one_hot(atom.GetTotalNumHs(), _MAX_HYDROGENS),
        *_one_hot(str(atom.GetHybridization()), _HYBRIDIZATIONS),
        float(atom.GetFormalCharge()),
        float(atom.GetIsAromatic()),
        float(atom.IsInRing()),
        float(atom.IsInRingSize(5)),
        float(atom.IsInRingSize(6)),
    ]


def _one_hot(value: str, choices: Sequence[str]) -> list[float]:
    """One-hot vector with a last position for all other values."""
    return [float(value == choice) for choice in choices] + [float(value not in choices)]


def _clipped_one_hot(value: int, maximum: int) -> list[float]:
    return [float(min(value, maximum) == i) for i in range(maximum + 1)]
