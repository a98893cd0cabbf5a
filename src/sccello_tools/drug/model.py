"""A drug response model: an ensemble, what it was trained on, and how well it did on what it had not seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools.errors import ConfigError, GeneMatchError, WeightsError
from sccello_tools.models import load

from .lines import embed_profiles, match_line_genes
from .scales import check_expression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any, NoReturn

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

    from .ensemble import Ensemble, Responses

_FEWEST_SHARED = 0.25  # share of the model's genes


class Prediction(NamedTuple):
    """Predicted responses of cell lines."""

    ln_ic50: pd.DataFrame
    """(n_lines, n_drugs) float32, µM: mean over the networks of the ensemble."""
    std: pd.DataFrame
    """(n_lines, n_drugs) float32: standard deviation over the networks."""


@dataclass(frozen=True, eq=False, repr=False)
class DrugResponseModel:
    """Predicts ln IC50 (µM). Make it with :func:`sccello_tools.tl.train_drug_response`, or load one with :func:`sccello_tools.models.load`."""

    name: str
    ensemble: Ensemble
    """The trained networks."""
    encoder_name: str
    """scCello model that embeds cells for it; "" if it reads expression only."""
    encoder_sha256: str
    """Hash of that model's weights."""
    split: str
    """What was held out of its training: "pairs", "cell_lines", "drugs", "both", or "" for nothing."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """On the pairs held out: the fields of :class:`sccello_tools.metrics.ResponseScore`."""
    held_out: pd.DataFrame | None = None
    """These pairs: cell_line, drug, measured, predicted, std (ln IC50, µM). Not saved."""
    sha256: str = ""
    """Hash of the weights file; "" before it was saved."""
    folder: Path | None = None
    """Where it was loaded from or saved to."""

    @property
    def drugs(self) -> tuple[str, ...]:
        """Drugs that it was trained on."""
        return self.ensemble.drugs

    @property
    def cell_lines(self) -> tuple[str, ...]:
        """Cell lines that it was trained on."""
        return self.ensemble.cell_lines

    @property
    def network(self) -> NoReturn:
        """Not there: a drug response model embeds no cells."""
        raise self._no_encoder

    @property
    def config(self) -> NoReturn:
        """Not there: a drug response model embeds no cells. Its settings are ``ensemble.config``."""
        raise self._no_encoder

    @property
    def _no_encoder(self) -> ConfigError:
        encoder = self.encoder_name or "sccello-small"
        msg = f"{self.name!r} is a drug response model, which embeds no cells. Call tl.drug_response(adata, model={self.name!r}), or pass an encoder here, such as {encoder!r}."
        return ConfigError(msg)

    @property
    def n_parameters(self) -> int:
        """Number of weights of all networks."""
        return sum(p.numel() for network in self.ensemble.networks for p in network.parameters())

    @cached_property
    def encoder(self) -> LoadedModel | None:
        """The scCello model that embeds cells for it; None if it reads expression only.

        Raises
        ------
        WeightsError
            If the model of that name here has other weights than the one it was trained with.
        """
        if not self.encoder_name:
            return None
        found = load(self.encoder_name, device="cpu")
        if found.sha256 != self.encoder_sha256:
            msg = (
                f"Drug response model {self.name!r} was trained on embeddings of {self.encoder_name!r} with weights {self.encoder_sha256[:12]}…; "
                f"here that model has {found.sha256[:12]}…. Train it anew with tl.train_drug_response, or use the version of sccello-tools that it was made with."
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
            (n_lines, n_genes) logarithm of expression on any scale, one row a line, genes by symbol or Ensembl id.
        drugs
            Names of known drugs, or a mapping of names to SMILES for new ones; all known drugs if not given.

        Returns
        -------
        ln IC50 (µM) and its standard deviation over the networks, rows as they came.

        Raises
        ------
        ResponseError
            If expression is missing, infinite or made of counts.
        GeneMatchError
            If it covers less than a quarter of the model's genes.
        DrugError
            If a drug is unknown, or a SMILES is refused.

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
            for part in (found.mean, found.spread)
        ]
        return Prediction(*frames)

    def predict_profiles(
        self,
        profiles: NDArray[np.float32],
        drugs: Sequence[str] | Mapping[str, str] | None = None,
        *,
        absent: NDArray[np.bool_] | None = None,
    ) -> Responses:
        """Predict from (n, n_genes) profiles over the model's genes; ``absent`` marks genes without a count, (n, n_genes)."""
        lines = self.ensemble.lines
        embedding = None
        if len(lines.embedding_mean) and self.encoder is not None:
            embedding = embed_profiles(profiles, lines.genes, self.encoder, absent=absent)
            # a cell of which only genes without a count are known has no embedding
            profiles = np.where(np.isfinite(embedding).all(axis=1, keepdims=True), profiles, np.nan)
        return self.ensemble.predict(profiles, embedding, drugs)

    def gene_columns(self, genes: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Find the model's genes among Ensembl ids.

        Returns
        -------
        Places in ``genes``, and of the same genes among the model's.

        Raises
        ------
        GeneMatchError
            If less than a quarter of the model's genes is there.
        """
        first: dict[str, int] = {}
        for place, gene in enumerate(genes):
            first.setdefault(gene, place)
        own = self.ensemble.lines.genes
        shared = [i for i, gene in enumerate(own) if gene in first]
        if len(shared) < _FEWEST_SHARED * len(own):
            msg = f"Only {len(shared):,} of the {len(own):,} genes that drug response model {self.name!r} reads are in the data; at least {_FEWEST_SHARED:.0%} are needed. Pass data with all genes, before any selection of variable ones."
            raise GeneMatchError(msg)
        there = np.array([first[own[i]] for i in shared], dtype=np.intp)
        return there, np.array(shared, dtype=np.intp)

    def _on_own_genes(
        self, values: NDArray[np.float32], genes: tuple[str, ...]
    ) -> NDArray[np.float32]:
        there, own = self.gene_columns(genes)
        profiles = np.tile(self.ensemble.lines.mean, (len(values), 1))
        profiles[:, own] = values[:, there]
        return profiles

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{key} {self.scores[key]:.3f}"
            for key in ("pearson", "pearson_by_drug")
            if key in self.scores
        )
        held = f", held out ({self.split}): {scores}" if scores else ""
        return (
            f"DrugResponseModel({self.name!r}, {len(self.ensemble.networks)} networks, {len(self.drugs)} drugs, "
            f"{len(self.cell_lines)} cell lines{held})"
        )

    def info(self) -> dict[str, Any]:
        """Return what it is as plain values, for ``adata.uns``."""
        return {
            "model": self.name,
            "weights_sha256": self.sha256,
            "encoder": self.encoder_name,
            "encoder_sha256": self.encoder_sha256,
            "unit": "ln IC50, µM",
        }
