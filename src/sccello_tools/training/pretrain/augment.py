"""Cells drawn in each step: augmented counts of measured cells, and synthetic cells from expression profiles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sccello_tools.errors import LabelError
from sccello_tools.tokens import GeneVocabulary, Tokenizer, match_gene_names

from .sources import LabelledTokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from sccello_tools.tokens import GeneMatch

    from .config import PretrainConfig

MIN_GENES = 10
"""Cells that have fewer expressed genes after augmentation are used without it."""
_N_FREQUENCY = 2_000  # cells of a source from which the frequencies of genes are estimated


class CountSampler(Protocol):
    """Raw counts of cells, fixed or drawn in each step; columns are the 25,424 genes in the order of the vocabulary."""

    @property
    def identity(self) -> str:
        """Hash of the data, stored in checkpoints."""
        ...

    def sample(self, cells: NDArray[np.int64], rng: np.random.Generator) -> csr_array:
        """Return the counts of some cells, an array of shape (n_cells, 25424) that may be modified."""
        ...


@dataclass(frozen=True, eq=False)
class MeasuredCounts:
    """Counts of measured cells."""

    matrix: csr_array
    """Raw counts, array of shape (n_cells, 25424)."""

    @property
    def identity(self) -> str:
        """Hash of the counts."""
        return _hash(self.matrix.indptr, self.matrix.indices, self.matrix.data)

    def sample(self, cells: NDArray[np.int64], rng: np.random.Generator) -> csr_array:
        """Return the counts of some cells."""
        del rng
        return self.matrix[cells]


@dataclass(frozen=True, eq=False)
class Profiles:
    r"""Expression profiles of cell types or clusters, from which synthetic cells are drawn.

    The count of gene g in a cell is :math:`\mathrm{Poisson}(d\, q_g / \sum_h q_h)` with :math:`q_g = p_g e^{\sigma z_g}` and
    :math:`\log d \sim N(\log d_0, s^2)`, where p is the profile and z is standard normal. The last three fields are numbers, or arrays of
    shape (n_profiles,), for instance to give each platform its depth.
    """

    expression: csr_array
    """Mean expression p on a linear scale, array of shape (n_profiles, 25424)."""
    depth: float | NDArray[np.float64] = 2_500.0
    """Median total count d_0 of a synthetic cell."""
    depth_sd: float | NDArray[np.float64] = 0.6
    """Standard deviation s of the log total count."""
    dispersion: float | NDArray[np.float64] = 0.5
    """Standard deviation sigma of the log expression of each gene between cells."""

    @property
    def identity(self) -> str:
        """Hash of the profiles and their parameters."""
        table = self.expression
        parameters = (np.asarray(x) for x in (self.depth, self.depth_sd, self.dispersion))
        return _hash(table.indptr, table.indices, table.data, *parameters)

    def sample(self, cells: NDArray[np.int64], rng: np.random.Generator) -> csr_array:
        """Draw one synthetic cell from each of some profiles."""
        n, rows = len(self.expression.indptr) - 1, self.expression[cells]
        depth, depth_sd, dispersion = (
            np.broadcast_to(x, n)[cells] for x in (self.depth, self.depth_sd, self.dispersion)
        )
        sizes = np.diff(rows.indptr)
        row = np.repeat(np.arange(len(cells)), sizes)
        mean = rows.data * np.exp(dispersion[row] * rng.standard_normal(len(row)))
        total = np.bincount(row, weights=mean, minlength=len(cells))
        drawn = depth * np.exp(depth_sd * rng.standard_normal(len(cells)))
        rows.data = rng.poisson(mean * (drawn / np.maximum(total, 1e-12))[row]).astype(np.float32)
        return rows


def synthetic_cells(
    profiles: Profiles, cell_types: NDArray[np.str_], *, source: str = "profiles", seed: int = 0
) -> LabelledTokens:
    """Return profiles as a source of training cells, of which a new cell is drawn each time.

    Parameters
    ----------
    profiles
        Expression and parameters.
    cell_types
        Cell Ontology id of each profile, array of shape (n_profiles,).
    source
        Name of the source.
    seed
        Seed of one fixed cell per profile, used for the initial gene embeddings and for validation.

    Returns
    -------
    A source for :func:`sccello_tools.tl.pretrain`.

    Raises
    ------
    LabelError
        If the number of labels differs from the number of profiles.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from sccello_tools.training import Profiles, synthetic_cells
    >>> expression = sparse.random_array((2, 25424), density=0.1, rng=0, format="csr")
    >>> cells = synthetic_cells(Profiles(expression, depth=500), np.array(["CL:0000084", "CL:0000236"]))
    >>> len(cells.tokens), bool((cells.tokens.lengths > 100).all())
    (2, True)
    """
    n = len(profiles.expression.indptr) - 1
    if n != len(cell_types):
        msg = f"{source}: {n} profiles, but {len(cell_types)} cell types"
        raise LabelError(msg)
    counts = profiles.sample(np.arange(n), np.random.default_rng(seed))
    tokens = Tokenizer(_vocabulary_match())(counts)
    return LabelledTokens(tokens, cell_types, source, counts=profiles)


class Augmentation:
    """Draws the counts of cells, thins them and restricts them to gene panels, and tokenizes the result.

    Parameters
    ----------
    sources
        Cells with or without counts; those without are returned as they are.
    config
        Probabilities and ranges of the augmentations; ``max_length``.
    """

    def __init__(self, sources: Sequence[LabelledTokens], config: PretrainConfig) -> None:
        self._config, self._sources = config, sources
        self._tokenizer = Tokenizer(_vocabulary_match(), config.max_length)
        rng = np.random.default_rng(config.seed)
        n_cells = np.zeros(self._tokenizer.gene_match.n_columns)
        for source in sources:
            if source.counts is not None:
                some = rng.permutation(len(source.tokens))[:_N_FREQUENCY]
                counts = source.counts.sample(some, rng)
                n_cells += (counts > 0).sum(axis=0) * (len(source.tokens) / len(some))
        self._genes = np.flatnonzero(n_cells)
        self._probabilities = n_cells[self._genes] / n_cells.sum()

    def __call__(
        self, source: int, cells: NDArray[np.int64], rng: np.random.Generator
    ) -> list[NDArray[np.int32]]:
        """Return token ids of some cells of a source."""
        of = self._sources[source]
        originals = [of.tokens[int(cell)][: self._config.max_length] for cell in cells]
        if of.counts is None:
            return originals
        rows = of.counts.sample(cells, rng)
        rows.data = self._augmented(rows, rng)
        tokens = self._tokenizer(rows)
        return [
            drawn if len(drawn := tokens[i]) > MIN_GENES else original
            for i, original in enumerate(originals)
        ]

    def _augmented(self, rows: csr_array, rng: np.random.Generator) -> NDArray[np.float32]:
        config, n_cells = self._config, rows.shape[0]
        totals = np.asarray(rows.sum(axis=1)).ravel()
        thinned = rng.random(n_cells) < config.thinning
        target = _log_uniform(rng, config.thinning_min, config.thinning_max, n_cells)
        kept = np.where(thinned & (target < totals), target / np.maximum(totals, 1), 1.0)
        on_panel = rng.random(n_cells) < config.gene_dropout
        n_genes = _log_uniform(rng, config.panel_min, config.panel_max, n_cells)
        data = rows.data
        for cell in np.flatnonzero((kept < 1) | on_panel):
            span = slice(rows.indptr[cell], rows.indptr[cell + 1])
            if kept[cell] < 1:
                counts = np.rint(data[span])
                counts[(counts == 0) & (data[span] > 0)] = 1  # fractional counts
                data[span] = rng.binomial(counts.astype(np.int64), kept[cell])
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


def _hash(*arrays: NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
