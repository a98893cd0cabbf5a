"""Ensembles of networks: mean prediction and its standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sccello_tools._messages import quoted
from sccello_tools.errors import DrugError

from .checks import NameMatcher, clean
from .encoders import check_smiles, drug_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .config import DrugResponseConfig
    from .network import DrugResponseNetwork, DrugVectors
    from .profiles import LineFeatures

_CHUNK = 512  # lines at a time, which bounds memory


class Responses(NamedTuple):
    """Predicted responses."""

    drugs: tuple[str, ...]
    """Names, (n_drugs,)."""
    mean: NDArray[np.float32]
    """(n, n_drugs) ln IC50 (µM), mean over the networks."""
    std: NDArray[np.float32]
    """(n, n_drugs) standard deviation over the networks, ln IC50; 0 for a single network."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained networks with the transformations of their inputs and outputs."""

    config: DrugResponseConfig
    networks: tuple[DrugResponseNetwork, ...]
    """In evaluation mode."""
    lines: LineFeatures
    drugs: tuple[str, ...]
    """Drugs of the training data, in the order of the networks."""
    smiles: tuple[str, ...]
    """Their SMILES; "" if unknown."""
    cell_lines: tuple[str, ...]
    """Cell lines of the training data."""
    mean: float
    """Mean training response, ln IC50 (µM)."""
    std: float
    """Standard deviation of the training responses."""
    losses: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """(n_members, n_epochs) mean squared training error, in units of the variance of responses."""
    known_vectors: tuple[DrugVectors, ...] = ()
    """Encoded known drugs of each network, so that predictions for them do not require rdkit."""

    def with_vectors(self) -> Ensemble:
        """Return the ensemble with encoded known drugs."""
        if self.known_vectors:
            return self
        return replace(self, known_vectors=self._encode(self.smiles, range(len(self.drugs))))

    def resolve(
        self, drugs: Sequence[str] | Mapping[str, str] | None
    ) -> tuple[list[int], dict[str, str]]:
        """Resolve the requested drugs.

        Parameters
        ----------
        drugs
            Names of known drugs, or a mapping of names to SMILES for new ones; by default all known drugs.

        Returns
        -------
        Indices of known drugs, and SMILES of new ones by name.

        Raises
        ------
        DrugError
            If a name is unknown, a SMILES is missing or invalid, or the model cannot predict for new drugs.
        """
        if drugs is None:
            return list(range(len(self.drugs))), {}
        if isinstance(drugs, str):
            drugs = [drugs]
        if not isinstance(drugs, Mapping):
            names = [clean(name) for name in drugs]
            if not names:
                msg = "drugs is empty. Pass names, or None for all drugs of the model."
                raise DrugError(msg)
            keys = {NameMatcher.key(name): i for i, name in enumerate(self.drugs)}
            if unknown := [name for name in names if NameMatcher.key(name) not in keys]:
                raise DrugError(self._unknown(unknown))
            return list(dict.fromkeys(keys[NameMatcher.key(name)] for name in names)), {}
        if self.config.drug_encoder == "none":
            msg = f"The model was trained with drug_encoder='none' and cannot predict for new drugs ({quoted(drugs)}). Train one with drug_encoder='gcn' or 'fingerprint'."
            raise DrugError(msg)
        return [], check_smiles(drugs)

    def predict(
        self,
        profiles: NDArray[np.float32],
        embedding: NDArray[np.float32] | None,
        drugs: Sequence[str] | Mapping[str, str] | None = None,
    ) -> Responses:
        """Predict the responses of profiles.

        Parameters
        ----------
        profiles
            Array of shape (n, n_genes) over ``lines.genes``; rows with NaN give NaN.
        embedding
            Output of :func:`embed_profiles`, shape (n, d); None if it is not a feature.
        drugs
            See :meth:`resolve`.

        Returns
        -------
        Mean and standard deviation over the networks.
        """
        known, new = self.resolve(drugs)
        ensemble = self.with_vectors()
        if new:
            vectors = self._encode(list(new.values()), [len(self.drugs)] * len(new))
            names = tuple(new)
        else:
            names = tuple(self.drugs[i] for i in known)
            vectors = tuple(
                type(v)(v.offsets[known], v.vectors[known]) for v in ensemble.known_vectors
            )
        usable = np.isfinite(profiles).all(axis=1)
        features = self.lines(profiles[usable], None if embedding is None else embedding[usable])
        mean = np.full((len(profiles), len(names)), np.nan, dtype=np.float32)
        std = np.full_like(mean, np.nan)
        rows = np.flatnonzero(usable)
        for start in range(0, len(rows), _CHUNK):
            part = torch.from_numpy(features[start : start + _CHUNK])
            with torch.inference_mode():
                predictions = torch.stack(
                    [net.respond(part, v) for net, v in zip(self.networks, vectors)]
                ).numpy()  # (n_members, n, n_drugs)
            predictions = predictions * self.std + self.mean
            mean[rows[start : start + _CHUNK]] = predictions.mean(axis=0)
            std[rows[start : start + _CHUNK]] = predictions.std(axis=0)
        return Responses(names, mean, std)

    def _encode(self, smiles: Sequence[str], known: Sequence[int]) -> tuple[DrugVectors, ...]:
        inputs = drug_inputs(self.config.drug_encoder, smiles, known)
        with torch.inference_mode():
            return tuple(network.drug_vectors(inputs)[0] for network in self.networks)

    def _unknown(self, names: Sequence[str]) -> str:
        import difflib

        close = difflib.get_close_matches(names[0], self.drugs, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return (
            f"{len(names)} drugs are not known to the model: {quoted(names)}.{hint} It has {len(self.drugs)} drugs: {quoted(self.drugs)}. "
            "For a new drug, pass its SMILES: drugs={'name': 'SMILES'}."
        )
