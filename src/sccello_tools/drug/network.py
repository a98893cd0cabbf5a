"""The network: a vector of the cell line, a vector of the drug, and the response of the pair."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .encoders import ENCODERS

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from .config import DrugResponseConfig
    from .encoders import DrugInputs


class DrugVectors(NamedTuple):
    """Encoded drugs."""

    offsets: torch.Tensor
    """(n_drugs,) mean response over all lines: measured, or predicted from the structure for a new drug."""
    vectors: torch.Tensor
    """(n_drugs, d)"""


class DrugResponseNetwork(nn.Module):
    r"""Predicts the responses of all cell lines of a batch to all drugs, in standard deviations of the training responses.

    .. math:: \hat y_{cd} = b_d + \frac{u_c \cdot v_d}{\sqrt{h}} + f(u_c, v_d)

    with the line vector :math:`u_c`, the drug vector :math:`v_d`, both of size :math:`h`, and a small network :math:`f`. The offset
    :math:`b_d` of a drug of the training data is its measured mean; that of a new drug is predicted from its structure.

    Parameters
    ----------
    config
        Sizes.
    n_features
        Number of features of a cell line; 0 for a network without features of cell lines.
    n_known
        Number of drugs of the training data. Each has a learned vector in addition to that of its structure.
    """

    means: torch.Tensor

    def __init__(self, config: DrugResponseConfig, *, n_features: int, n_known: int) -> None:
        super().__init__()
        d = config.hidden_size
        self.config = config
        self.line = LineEncoder(n_features, d, config.dropout)
        encoder = ENCODERS[config.drug_encoder]
        self.structure = None if encoder is None else encoder(config)
        # one more row of zeros for drugs that are not in the training data
        self.identity = nn.Embedding(n_known + 1, d, padding_idx=n_known)
        nn.init.normal_(self.identity.weight[:-1], std=0.1 if self.structure else 1.0)
        self.register_buffer("means", torch.zeros(n_known + 1))
        self.offset = nn.Linear(d, 1)
        self.pair = PairHead(d)

    def drug_vectors(self, drugs: DrugInputs) -> tuple[DrugVectors, torch.Tensor]:
        """Encode each drug once; also return the (n_drugs,) offsets predicted from the structures alone."""
        new = self.identity.num_embeddings - 1
        known = drugs.known
        if self.structure is None:
            vectors: torch.Tensor = self.identity(known)
            return DrugVectors(self.means[known], vectors), self.means[known]
        structure = self.structure(drugs.molecules)
        predicted = self.offset(structure).squeeze(1)
        offsets = torch.where(known == new, predicted, self.means[known])
        if self.training and self.config.drug_identity_dropout:
            dropped = torch.rand(len(known)) < self.config.drug_identity_dropout
            known = known.masked_fill(dropped.to(known.device), new)
        return DrugVectors(offsets, structure + self.identity(known)), predicted

    def respond(self, features: torch.Tensor, drugs: DrugVectors) -> torch.Tensor:
        """Return (n_lines, n_drugs) responses of (n_lines, n_features) cell lines to encoded drugs."""
        responses: torch.Tensor = drugs.offsets + self.pair(self.line(features), drugs.vectors)
        return responses

    def start_from_ridge(
        self, features: NDArray[np.floating[Any]], residuals: NDArray[np.floating[Any]]
    ) -> None:
        """Initialise with the ridge regression of responses on cell-line features, reduced to the rank of the vectors.

        A line's vector is then a linear map of its features, a drug's vector its column of the regression, and their scalar product
        the prediction of the regression. Trained from a random start, the network is worse than the regression.

        Parameters
        ----------
        features
            (n_lines, n_features)
        residuals
            (n_lines, n_known) responses minus the mean of the drug, 0 where not measured.
        """
        if self.line.constant is not None:
            return
        x = features.astype(np.float64)
        root = np.linalg.cholesky(x.T @ x + self.config.ridge * np.eye(x.shape[1]))
        # in the metric of the penalised problem the best low-rank solution is a truncated singular value decomposition
        target = np.linalg.solve(root, x.T @ residuals)
        left, singular, right = np.linalg.svd(target, full_matrices=False)
        rank = min(self.config.hidden_size, len(singular))
        scale = np.sqrt(singular[:rank] / self.pair.scale)
        of_lines = np.linalg.solve(root.T, left[:, :rank]) * scale
        of_drugs = right[:rank].T * scale
        with torch.no_grad():
            self.line.linear.weight.zero_()
            self.line.linear.weight[:rank] = torch.from_numpy(of_lines.T.astype(np.float32))
            self.identity.weight.zero_()
            self.identity.weight[:-1, :rank] = torch.from_numpy(of_drugs.astype(np.float32))
            nn.init.zeros_(self.line.second.weight)
            nn.init.zeros_(self.line.second.bias)
            if self.structure is not None:
                self.structure.out.weight.mul_(0.1)  # a small initial contribution
                nn.init.zeros_(self.structure.out.bias)


class LineEncoder(nn.Module):
    """A linear map of a line's features plus two layers; without features, one vector for all lines."""

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
        # there are as many features as lines: without dropout the network memorises the lines
        features = functional.dropout(features, self.dropout, self.training)
        hidden = functional.relu(self.norm(self.first(features)))
        hidden = functional.dropout(hidden, self.dropout, self.training)
        vectors: torch.Tensor = self.linear(features) + self.second(hidden)
        return vectors


class PairHead(nn.Module):
    """Response of a pair from its two vectors: scaled scalar product plus two layers on both."""

    def __init__(self, d: int) -> None:
        super().__init__()
        width = d // 2
        self.of_line, self.of_drug = nn.Linear(d, width), nn.Linear(d, width, bias=False)
        self.mixed = nn.Linear(width, width // 2)
        self.out = nn.Linear(width // 2, 1)
        # the initial prediction is the offset of the drug
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.scale = 1 / math.sqrt(d)

    def forward(self, lines: torch.Tensor, drugs: torch.Tensor) -> torch.Tensor:
        """Return (n_lines, n_drugs) from (n_lines, d) and (n_drugs, d)."""
        both = self.of_line(lines)[:, None] + self.of_drug(drugs)[None]  # (n_lines, n_drugs, d / 2)
        fused = self.out(functional.relu(self.mixed(functional.relu(both)))).squeeze(2)
        responses: torch.Tensor = lines @ drugs.T * self.scale + fused
        return responses
