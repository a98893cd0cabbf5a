"""Augmentation of counts: random thinning and random gene panels, drawn in each step."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.tokens import GeneVocabulary, Tokenizer, match_gene_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from sccello_tools.tokens import GeneMatch

    from .config import PretrainConfig
    from .sources import LabelledTokens

MIN_GENES = 10
"""Cells that have fewer expressed genes after augmentation are used without it."""


class Augmentation:
    """Thins counts and restricts cells to gene panels, then tokenizes them.

    Parameters
    ----------
    sources
        Cells with counts.
    config
        Probabilities and ranges of the augmentations; ``max_length``.
    """

    def __init__(self, sources: Sequence[LabelledTokens], config: PretrainConfig) -> None:
        self._config, self._sources = config, sources
        self._tokenizer = Tokenizer(_vocabulary_match(), config.max_length)
        self._counts = [source.counts for source in sources if source.counts is not None]
        expressed = np.sum([(counts > 0).sum(axis=0) for counts in self._counts], axis=0)
        self._genes = np.flatnonzero(expressed)
        self._probabilities = expressed[self._genes] / expressed.sum()

    def __call__(
        self, source: int, cells: NDArray[np.int64], rng: np.random.Generator
    ) -> list[NDArray[np.int32]]:
        """Return token ids of some cells of a source after augmentation."""
        rows = self._counts[source][cells]
        rows.data = self._augmented(rows, rng)
        tokens = self._tokenizer(rows)
        originals = self._sources[source].tokens
        return [
            augmented
            if len(augmented := tokens[i]) > MIN_GENES
            else originals[int(cell)][: self._config.max_length]
            for i, cell in enumerate(cells)
        ]

    def _augmented(self, rows: csr_array, rng: np.random.Generator) -> NDArray[np.float32]:
        config, n_cells = self._config, rows.shape[0]
        totals = np.asarray(rows.sum(axis=1)).ravel()
        thinned = rng.random(n_cells) < config.thinning
        target = _log_uniform(rng, config.thinning_min, config.thinning_max, n_cells)
        kept = np.where(thinned & (target < totals), target / np.maximum(totals, 1), 1.0)
        on_panel = rng.random(n_cells) < config.gene_dropout
        n_genes = _log_uniform(rng, config.panel_min, config.panel_max, n_cells)
        data = rows.data.copy()
        for cell in np.flatnonzero((kept < 1) | on_panel):
            span = slice(rows.indptr[cell], rows.indptr[cell + 1])
            if kept[cell] < 1:
                # fractional counts are rounded, to at least one
                counts = np.maximum(np.rint(data[span]), 1).astype(np.int64)
                data[span] = rng.binomial(counts, kept[cell])
            if on_panel[cell]:
                size = min(int(n_genes[cell]), len(self._genes))
                panel = np.zeros(rows.shape[1], dtype=bool)
                panel[rng.choice(self._genes, size, replace=False, p=self._probabilities)] = True
                data[span][~panel[rows.indices[span]]] = 0
        return data


def _log_uniform(rng: np.random.Generator, low: float, high: float, n: int) -> NDArray[np.float64]:
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


@cache
def _vocabulary_match() -> GeneMatch:
    return match_gene_names(GeneVocabulary.load().gene_ids.tolist())
