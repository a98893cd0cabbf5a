"""Drug response models: an ensemble with provenance and validation scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools.errors import GeneMatchError, WeightsError
from sccello_tools.models import load

from .checks import check_expression
from .profiles import embed_profiles, match_line_genes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

    from .ensemble import Ensemble, Responses

_MIN_SHARED = 0.25  # fraction of the genes of the model


class Prediction(NamedTuple):
    """Predicted responses of cell lines."""

    ln_ic50: pd.DataFrame
    """(n_lines, n_drugs) float32, ln IC50 (µM), mean over the networks of the ensemble."""
    std: pd.DataFrame
    """(n_lines, n_drugs) float32, standard deviation over the networks."""


@dataclass(frozen=True, eq=False, repr=False)
class DrugResponseModel:
    """Predicts ln IC50 (µM). Train one with :func:`sccello_tools.tl.train_drug_response` or load one with :func:`sccello_tools.drug.load`."""

    name: str
    ensemble: Ensemble
    """The trained networks."""
    encoder_name: str
    """scCello model whose embedding it uses; "" if it uses expression only."""
    encoder_sha256: str
    """sha256 of the weights of that model."""
    split: str
    """Type of the validation split: "pairs", "cell_lines", "drugs", "both", or "" without validation."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores on the validation pairs: the fields of :class:`sccello_tools.metrics.ResponseScore`."""
    validation: pd.DataFrame | None = None
    """Validation pairs: cell_line, drug, measured, predicted, std (ln IC50, µM). Not saved."""
    sha256: str = ""
    """sha256 of the weights file; "" if it was not saved."""
    folder: Path | None = None
    """Folder that it was loaded from or saved to."""
    device: str = "cpu"
    """Device of the encoder, which embeds cells; the networks always run on the CPU."""

    @property
    def drugs(self) -> tuple[str, ...]:
        """Drugs of the training data."""
        return self.ensemble.drugs

    @property
    def cell_lines(self) -> tuple[str, ...]:
        """Cell lines of the training data."""
        return self.ensemble.cell_lines

    @property
    def n_parameters(self) -> int:
        """Number of weights of all networks."""
        return sum(p.numel() for network in self.ensemble.networks for p in network.parameters())

    @cached_property
    def encoder(self) -> LoadedModel | None:
        """The scCello model whose embedding it uses; None if it uses expression only.

        Raises
        ------
        WeightsError
            If the weights differ from those of training.
        """
        if not self.encoder_name:
            return None
        found = load(self.encoder_name, device=self.device)
        if found.sha256 != self.encoder_sha256:
            msg = (
                f"Drug response model {self.name!r} was trained with weights {self.encoder_sha256[:12]}… of {self.encoder_name!r}, which now has "
                f"{found.sha256[:12]}…. Train it again with tl.train_drug_response, or use the version of sccello-tools that created it."
            )
            raise WeightsError(msg)
        return found

    def predict(
        self,
        expression: pd.DataFrame,
        drugs: Sequence[str] | Mapping[str, str] | None = None,
    ) -> Prediction:
        """Predict the response of cell lines from their bulk expression.

        Parameters
        ----------
        expression
            Log expression on any scale, shape (n_lines, n_genes), genes as symbols or Ensembl ids.
        drugs
            Names of known drugs, or a mapping of names to SMILES for new ones; by default all known drugs.

        Returns
        -------
        ln IC50 (µM) and its standard deviation over the networks, rows in input order.

        Raises
        ------
        ResponseError
            If expression is missing, infinite or counts.
        GeneMatchError
            If it contains less than a quarter of the genes of the model.
        DrugError
            If a drug is unknown, or a SMILES is missing or invalid.

        Examples
        --------
        >>> import sccello_tools as sccello
        >>> data = sccello.datasets.gdsc()
        >>> model = sccello.tl.train_drug_response(data, cell_features=("expression",), n_members=1)
        >>> model.predict(data.expression.iloc[:2], ["Erlotinib"]).ln_ic50.shape
        (2, 1)
        """
        values = check_expression(expression)
        columns, genes = match_line_genes(list(values.columns))
        profiles = self._on_own_genes(values.to_numpy(dtype=np.float32)[:, columns], genes)
        found = self.predict_profiles(profiles, drugs)
        frames = [
            pd.DataFrame(part, index=expression.index, columns=list(found.drugs))
            for part in (found.mean, found.std)
        ]
        return Prediction(*frames)

    def predict_profiles(
        self,
        profiles: NDArray[np.float32],
        drugs: Sequence[str] | Mapping[str, str] | None = None,
        *,
        absent: NDArray[np.bool_] | None = None,
    ) -> Responses:
        """Predict from (n, n_genes) profiles over the genes of the model; ``absent`` marks genes without counts, (n, n_genes)."""
        lines = self.ensemble.lines
        embedding = None
        if len(lines.embedding_mean) and self.encoder is not None:
            embedding = embed_profiles(profiles, lines.genes, self.encoder, absent=absent)
            # no embedding if all genes of the model have no counts
            profiles = np.where(np.isfinite(embedding).all(axis=1, keepdims=True), profiles, np.nan)
        return self.ensemble.predict(profiles, embedding, drugs)

    def gene_columns(self, genes: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Match Ensembl ids to the genes of the model.

        Returns
        -------
        Indices into ``genes``, and of the same genes among those of the model.

        Raises
        ------
        GeneMatchError
            If less than a quarter of the genes of the model match.
        """
        first: dict[str, int] = {}
        for index, gene in enumerate(genes):
            first.setdefault(gene, index)
        own = self.ensemble.lines.genes
        shared = [i for i, gene in enumerate(own) if gene in first]
        if len(shared) < _MIN_SHARED * len(own):
            msg = f"The data contain {len(shared):,} of the {len(own):,} genes of drug response model {self.name!r}; at least {_MIN_SHARED:.0%} are required. Pass data with all genes, not only highly variable ones."
            raise GeneMatchError(msg)
        found = np.array([first[own[i]] for i in shared], dtype=np.intp)
        return found, np.array(shared, dtype=np.intp)

    def _on_own_genes(
        self, values: NDArray[np.float32], genes: tuple[str, ...]
    ) -> NDArray[np.float32]:
        found, own = self.gene_columns(genes)
        profiles = np.tile(self.ensemble.lines.mean, (len(values), 1))
        profiles[:, own] = values[:, found]
        return profiles

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{key} {self.scores[key]:.3f}"
            for key in ("pearson", "pearson_by_drug")
            if key in self.scores
        )
        validation = f", validation ({self.split}): {scores}" if scores else ""
        return (
            f"DrugResponseModel({self.name!r}, {len(self.ensemble.networks)} networks, {len(self.drugs)} drugs, "
            f"{len(self.cell_lines)} cell lines{validation})"
        )

    def info(self) -> dict[str, Any]:
        """Return its provenance as plain values, for ``adata.uns``."""
        return {
            "model": self.name,
            "weights_sha256": self.sha256,
            "encoder": self.encoder_name,
            "encoder_sha256": self.encoder_sha256,
            "unit": "ln IC50, µM",
        }
