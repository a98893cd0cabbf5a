"""The network: a vector of the line, a vector of the drug, and what the two make of each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from .config import DrugResponseConfig
    from .drugs import DrugInputs


class DrugVectors(NamedTuple):
    """Drugs as the network sees them."""

    offsets: torch.Tensor
    """(n_drugs,) mean response of all lines: measured, or predicted from the structure for a new drug."""
    vectors: torch.Tensor
    """(n_drugs, d)"""


class DrugResponseNetwork(nn.Module):
    """Predicts the responses of all lines of a batch to all drugs at once, in units of the training responses' spread.

    A response is the drug's offset plus what the line's and the drug's vectors make of each other. The offset of a drug of the training data is
    its measured mean there; that of a new drug is read from its structure.

    Parameters
    ----------
    config
        Sizes.
    n_features
        Features of a line; 0 for a network that knows nothing of lines.
    n_drug_features
        Features of an atom (graph convolution) or of a molecule (fingerprint).
    n_known
        Drugs of the training data, each of which has a vector of its own beside what its structure says.
    """

    means: torch.Tensor

    def __init__(
        self, config: DrugResponseConfig, *, n_features: int, n_drug_features: int, n_known: int
    ) -> None:
        super().__init__()
        d = config.hidden_size
        self.config = config
        self.line = LineEncoder(n_features, d, config.dropout)
        self.structure: GraphEncoder | FingerprintEncoder | None = None
        if config.drug_encoder == "gcn":
            self.structure = GraphEncoder(
                n_drug_features, config.graph_size, config.n_graph_layers, d
            )
        elif config.drug_encoder == "fingerprint":
            self.structure = FingerprintEncoder(n_drug_features, d, config.dropout)
        # a row more, of zeros, for drugs that were not in training
        self.identity = nn.Embedding(n_known + 1, d, padding_idx=n_known)
        nn.init.normal_(self.identity.weight[:-1], std=0.1 if self.structure else 1.0)
        self.register_buffer("means", torch.zeros(n_known + 1))
        self.offset = nn.Linear(d, 1)
        self.pair = PairHead(d)

    def drug_vectors(self, drugs: DrugInputs) -> tuple[DrugVectors, torch.Tensor]:
        """Encode each drug once; also (n_drugs,) offsets as the structures alone tell them."""
        new = self.identity.num_embeddings - 1
        known = drugs.known
        if self.structure is None:
            vectors: torch.Tensor = self.identity(known)
            return DrugVectors(self.means[known], vectors), self.means[known]
        structure = self.structure(drugs)
        told = self.offset(structure).squeeze(1)
        offsets = torch.where(known == new, told, self.means[known])
        if self.training and self.config.drug_identity_dropout:
            dropped = torch.rand(len(known)) < self.config.drug_identity_dropout
            known = known.masked_fill(dropped.to(known.device), new)
        return DrugVectors(offsets, structure + self.identity(known)), told

    def respond(self, features: torch.Tensor, drugs: DrugVectors) -> torch.Tensor:
        """Return (n_lines, n_drugs) responses of (n_lines, n_features) lines to drugs that are encoded already."""
        responses: torch.Tensor = drugs.offsets + self.pair(self.line(features), drugs.vectors)
        return responses

    def start_from_ridge(
        self, features: NDArray[np.floating[Any]], residuals: NDArray[np.floating[Any]]
    ) -> None:
        """Start at the ridge regression of responses on the features of lines, reduced to the rank of the vectors.

        A line's vector is then a linear map of its features, a drug's vector that of its column of the regression, and their scalar
        product the regression's answer. Training goes on from there; from a random start it ends below the regression.

        Parameters
        ----------
        features
            (n_lines, n_features)
        residuals
            (n_lines, n_known) responses less the drug's mean, 0 where not measured.
        """
        if self.line.constant is not None:
            return
        x = features.astype(np.float64)
        root = np.linalg.cholesky(x.T @ x + self.config.ridge * np.eye(x.shape[1]))
        # in the metric of the penalised problem the best answer of low rank is a truncated singular value decomposition
        target = np.linalg.solve(root, x.T @ residuals)
        left, power, right = np.linalg.svd(target, full_matrices=False)
        rank = min(self.config.hidden_size, len(power))
        share = np.sqrt(power[:rank] / self.pair.scale)
        of_lines = np.linalg.solve(root.T, left[:, :rank]) * share
        of_drugs = right[:rank].T * share
        with torch.no_grad():
            self.line.linear.weight.zero_()
            self.line.linear.weight[:rank] = torch.from_numpy(of_lines.T.astype(np.float32))
            self.identity.weight.zero_()
            self.identity.weight[:-1, :rank] = torch.from_numpy(of_drugs.astype(np.float32))
            nn.init.zeros_(self.line.second.weight)
            nn.init.zeros_(self.line.second.bias)
            if self.structure is not None:
                self.structure.out.weight.mul_(0.1)  # the structure is heard, but not first
                nn.init.zeros_(self.structure.out.bias)


class LineEncoder(nn.Module):
    """A linear map of a line's features and two layers beside it; without features, one vector for all lines."""

    def __init__(self, n_features: int, d: int, dropout: float) -> None:
        super().__init__()
        self.constant = None if n_features else nn.Parameter(torch.randn(d))
        if n_features:
            self.linear = nn.Linear(n_features, d, bias=False)
            self.first = nn.Linear(n_features, d)
            self.norm = nn.LayerNorm(d)
            self.second = nn.Linear(d, d)
        self.dropout = dropout

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (n_lines, d)."""
        if self.constant is not None:
            return self.constant.expand(len(features), -1)
        # hundreds of lines and as many features: without this each line would be learned by heart
        features = functional.dropout(features, self.dropout, self.training)
        hidden = functional.relu(self.norm(self.first(features)))
        hidden = functional.dropout(hidden, self.dropout, self.training)
        vectors: torch.Tensor = self.linear(features) + self.second(hidden)
        return vectors


class GraphEncoder(nn.Module):
    """Graph convolutions (Kipf and Welling) with residuals; a molecule is the mean and the maximum over its atoms."""

    def __init__(self, n_features: int, width: int, n_layers: int, d: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_features, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
        self.others = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers))
        self.out = nn.Linear(2 * width, d)

    def forward(self, drugs: DrugInputs) -> torch.Tensor:
        """Return (n_drugs, d)."""
        atoms = functional.relu(self.first(drugs.features))  # (n_atoms, width)
        for own, others, norm in zip(self.own, self.others, self.norms):
            heard = torch.sparse.mm(drugs.adjacency, others(atoms))
            atoms = atoms + functional.relu(norm(own(atoms) + heard))
        n_drugs, width = len(drugs.n_atoms), atoms.shape[1]
        total = atoms.new_zeros(n_drugs, width).index_add(0, drugs.molecule, atoms)
        mean = total / drugs.n_atoms[:, None]
        place = drugs.molecule[:, None].expand(-1, width)
        # atoms are never below zero, being sums of what a ReLU let through
        most = atoms.new_zeros(n_drugs, width).scatter_reduce(0, place, atoms, "amax")
        vectors: torch.Tensor = self.out(torch.cat([mean, most], dim=1))
        return vectors


class FingerprintEncoder(nn.Module):
    """Two layers on the fingerprint of a molecule."""

    def __init__(self, n_features: int, d: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(n_features, d)
        self.norm = nn.LayerNorm(d)
        self.out = nn.Linear(d, d)
        self.dropout = dropout

    def forward(self, drugs: DrugInputs) -> torch.Tensor:
        """Return (n_drugs, d)."""
        hidden = functional.relu(self.norm(self.first(drugs.features)))
        vectors: torch.Tensor = self.out(functional.dropout(hidden, self.dropout, self.training))
        return vectors


class PairHead(nn.Module):
    """What lines and drugs make of each other: a scalar product, and two layers on both."""

    def __init__(self, d: int) -> None:
        super().__init__()
        width = d // 2
        self.of_line, self.of_drug = nn.Linear(d, width), nn.Linear(d, width, bias=False)
        self.mixed = nn.Linear(width, width // 2)
        self.out = nn.Linear(width // 2, 1)
        # nothing is known of a pair at first but the drug's offset
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.scale = 1 / math.sqrt(d)

    def forward(self, lines: torch.Tensor, drugs: torch.Tensor) -> torch.Tensor:
        """Return (n_lines, n_drugs) of (n_lines, d) and (n_drugs, d)."""
        both = self.of_line(lines)[:, None] + self.of_drug(drugs)[None]  # (n_lines, n_drugs, d / 2)
        fused = self.out(functional.relu(self.mixed(functional.relu(both)))).squeeze(2)
        responses: torch.Tensor = lines @ drugs.T * self.scale + fused
        return responses
