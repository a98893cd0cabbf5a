"""Several networks that answer together; how far they disagree says how sure they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sccello_tools.errors import DrugError

from .data import _examples
from .drugs import drug_inputs
from .molecules import check_smiles
from .names import Matcher, clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .config import DrugResponseConfig
    from .lines import LineFeatures
    from .network import DrugResponseNetwork, DrugVectors

_CHUNK = 512  # lines at a time, which bounds the memory of pairs


class Responses(NamedTuple):
    """Predicted responses."""

    drugs: tuple[str, ...]
    """Names, (n_drugs,)."""
    mean: NDArray[np.float32]
    """(n, n_drugs) ln IC50, µM: mean over the networks."""
    spread: NDArray[np.float32]
    """(n, n_drugs) standard deviation over the networks, ln IC50; 0 for a single network."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained networks with what they need to read lines and drugs."""

    config: DrugResponseConfig
    networks: tuple[DrugResponseNetwork, ...]
    """In evaluation mode."""
    lines: LineFeatures
    drugs: tuple[str, ...]
    """Drugs of the training data, sorted as the networks know them."""
    smiles: tuple[str, ...]
    """Their SMILES; "" where there is none."""
    cell_lines: tuple[str, ...]
    """Cell lines of the training data."""
    centre: float
    """Mean training response, ln IC50 (µM)."""
    spread: float
    """Standard deviation of the training responses."""
    losses: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """(n_members, n_epochs) mean squared error in training, in units of the responses' variance."""
    known_vectors: tuple[DrugVectors, ...] = ()
    """The known drugs as each network sees them, so that predicting for them takes no rdkit."""

    def with_vectors(self) -> Ensemble:
        """Return the ensemble with its known drugs encoded."""
        if self.known_vectors:
            return self
        from dataclasses import replace

        return replace(self, known_vectors=self._encode(self.smiles, range(len(self.drugs))))

    def resolve(
        self, drugs: Sequence[str] | Mapping[str, str] | None
    ) -> tuple[list[int], dict[str, str]]:
        """Find the drugs that are asked for.

        Parameters
        ----------
        drugs
            Names of known drugs, or SMILES of new ones by name; all known drugs if not given.

        Returns
        -------
        Places of known drugs, and SMILES of the others by name.

        Raises
        ------
        DrugError
            If a name is unknown, a SMILES is refused, or the model cannot read new drugs.
        """
        if drugs is None:
            return list(range(len(self.drugs))), {}
        if isinstance(drugs, str):
            drugs = [drugs]
        if not isinstance(drugs, dict):
            names = [clean(name) for name in drugs]
            if not names:
                msg = "drugs is empty. Name some, or leave it out for all that the model knows."
                raise DrugError(msg)
            keys = {Matcher.key(name): i for i, name in enumerate(self.drugs)}
            if unknown := [name for name in names if Matcher.key(name) not in keys]:
                raise DrugError(self._unknown(unknown))
            return list(dict.fromkeys(keys[Matcher.key(name)] for name in names)), {}
        if self.config.drug_encoder == "none":
            msg = f"This model was trained with drug_encoder='none' and reads no molecules: it cannot answer for {_examples(list(drugs))}. Train one with drug_encoder='gcn' or 'fingerprint'."
            raise DrugError(msg)
        check_smiles(list(drugs.values()))
        return [], dict(drugs)

    def predict(
        self,
        profiles: NDArray[np.float32],
        embedding: NDArray[np.float32] | None,
        drugs: Sequence[str] | Mapping[str, str] | None = None,
    ) -> Responses:
        """Predict responses of profiles.

        Parameters
        ----------
        profiles
            (n, n_genes) over ``lines.genes``; rows with NaN give NaN.
        embedding
            (n, d) as :func:`embed_profiles` makes them; None if the networks do not read it.
        drugs
            See :meth:`resolve`.

        Returns
        -------
        Mean and standard deviation of the networks' answers.
        """
        places, new = self.resolve(drugs)
        ensemble = self.with_vectors()
        if new:
            vectors = self._encode(list(new.values()), [len(self.drugs)] * len(new))
            names = tuple(new)
        else:
            names = tuple(self.drugs[i] for i in places)
            vectors = tuple(
                type(v)(v.offsets[places], v.vectors[places]) for v in ensemble.known_vectors
            )
        usable = np.isfinite(profiles).all(axis=1)
        features = self.lines(profiles[usable], None if embedding is None else embedding[usable])
        mean = np.full((len(profiles), len(names)), np.nan, dtype=np.float32)
        spread = np.full_like(mean, np.nan)
        rows = np.flatnonzero(usable)
        for start in range(0, len(rows), _CHUNK):
            part = torch.from_numpy(features[start : start + _CHUNK])
            with torch.inference_mode():
                answers = torch.stack(
                    [net.respond(part, v) for net, v in zip(self.networks, vectors)]
                ).numpy()  # (n_members, n, n_drugs)
            answers = answers * self.spread + self.centre
            mean[rows[start : start + _CHUNK]] = answers.mean(axis=0)
            spread[rows[start : start + _CHUNK]] = answers.std(axis=0)
        return Responses(names, mean, spread)

    def _encode(self, smiles: Sequence[str], known: Sequence[int]) -> tuple[DrugVectors, ...]:
        inputs = drug_inputs(self.config.drug_encoder, smiles, known)
        with torch.inference_mode():
            return tuple(network.drug_vectors(inputs)[0] for network in self.networks)

    def _unknown(self, names: Sequence[str]) -> str:
        import difflib

        close = difflib.get_close_matches(names[0], self.drugs, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return (
            f"The model does not know {len(names)} of the drugs: {_examples(names)}.{hint} It knows {len(self.drugs)}: {_examples(self.drugs)}. "
            "For a new drug, give its SMILES: drugs={'name': 'SMILES'}."
        )
