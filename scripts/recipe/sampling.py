"""Training batches: altered measured cells and synthetic cells drawn from profiles, ranked into tokens.

Everything happens on counts, in compiled code. A batch depends on the seed and its step only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

from sccello_tools.tokens import CLS_ID, VOCABULARY_SIZE, GeneVocabulary

if TYPE_CHECKING:
    from recipe.sources import Cells, Profiles, Styles

_N_NOISE = 1 << 20  # log-normal factors that are drawn once and reused at random offsets
_MIN_TOKENS = 10
_MIN_EXPECTED = 2e-7  # a gene below this fraction is not drawn in any cell


@dataclass(frozen=True)
class SamplingConfig:
    """What a batch consists of and how cells are altered."""

    synthetic: float = 0.5
    """Fraction of synthetic cells."""
    study_power: float = 0.5
    """Studies are sampled proportionally to their number of cells to this power."""
    type_power: float = 0.5
    """Types of a study are sampled proportionally to their number of cells to this power."""
    profile_power: float = 0.3
    """Types of profiles are sampled proportionally to their number of profiles to this power."""
    thinning: float = 0.3
    """Fraction of measured cells whose counts are thinned."""
    thinned_to: tuple[float, float] = (300.0, 3000.0)
    """Total counts after thinning, log-uniform."""
    panel: float = 0.15
    """Fraction of cells that are restricted to a random gene panel."""
    panel_genes: tuple[float, float] = (50.0, 4000.0)
    """Genes of a panel, log-uniform; frequently expressed genes are more likely."""
    noise: tuple[float, float] = (0.5, 1.2)
    """Range of the standard deviation of the log-normal noise on each gene of a synthetic cell."""
    style: float = 0.6
    """Fraction of synthetic cells whose profile is changed to the style of a measured study."""


class Batch(NamedTuple):
    """Ranked cells."""

    ids: np.ndarray
    """(n_cells, max_length) int32 tokens, 0 after the end of a cell."""
    lengths: np.ndarray
    """(n_cells,)"""
    labels: np.ndarray
    """(n_cells,) index of the label."""
    counts: np.ndarray
    """(n_cells, max_length) float32 counts of the tokens, if they were asked for, else of shape (1, 1)."""


class Sampler:
    """Draws batches.

    Parameters
    ----------
    cells, profiles
        What may train.
    cell_labels, profile_labels
        Index of the label of each cell and profile.
    styles
        Of the profiles.
    config
        Proportions and ranges.
    max_length
        Tokens of a cell, with `<cls>`.
    seed
        Of all draws.
    """

    def __init__(self, cells: Cells, profiles: Profiles, cell_labels: np.ndarray, profile_labels: np.ndarray, styles: Styles, config: SamplingConfig, *, max_length: int, seed: int) -> None:  # fmt: skip
        self.config, self.max_length, self.seed = config, max_length, seed
        self.cell_labels, self.profile_labels, self.styles = cell_labels, profile_labels, styles
        self.medians = GeneVocabulary.load().median_of_token
        counts, expected = cells.counts, profiles.expected.copy()
        expected.data[expected.data < _MIN_EXPECTED] = 0
        expected.eliminate_zeros()
        expected.sort_indices()
        self.counts, self.expected = _arrays(counts), _arrays(expected)
        self.totals = np.asarray(counts.sum(1)).ravel()
        _, study = np.unique(cells.obs.study.to_numpy(), return_inverse=True)
        p = _within(study, cell_labels, config.type_power)
        p *= (np.bincount(study).astype(float) ** config.study_power)[study]
        self.p_cells = p / p.sum()
        q = np.bincount(profile_labels)[profile_labels].astype(float) ** (config.profile_power - 1)
        self.p_profiles = q / q.sum()
        self.sources = profiles.obs.source.to_numpy()
        expressed = _detected(counts) + _detected(expected)
        self.panel_pool = np.flatnonzero(expressed)
        self.p_panel = expressed[self.panel_pool] / expressed.sum()
        levels = np.linspace(*config.noise, 6)
        normal = np.random.default_rng((seed, 991)).standard_normal(_N_NOISE)
        self.noise = np.exp(levels[:, None] * normal).astype(np.float32)

    def __call__(self, step: int, n_cells: int, *, counts: bool = False) -> Batch:
        """Draw the batch of a step; cells with too few tokens are dropped."""
        config, rng = self.config, np.random.default_rng((self.seed, step))
        n_synthetic = rng.binomial(n_cells, config.synthetic)
        rows = rng.choice(len(self.p_cells), n_cells - n_synthetic, p=self.p_cells)
        profiles = rng.choice(len(self.p_profiles), n_synthetic, p=self.p_profiles)
        labels = np.concatenate([self.cell_labels[rows], self.profile_labels[profiles]])
        panels = self._panels(rng, n_cells)
        ids = np.zeros((n_cells, self.max_length), np.int32)
        lengths = np.zeros(n_cells, np.int64)
        found = np.zeros(ids.shape if counts else (1, 1), np.float32)
        n = len(rows)
        _thin(
            int(rng.integers(2**31)), rows, *self.counts, self._thinned_totals(rng, rows), *_of(panels, slice(n)),
            self.medians, ids[:n], lengths[:n], found[:n],
        )  # fmt: skip
        _draw(
            int(rng.integers(2**31)), profiles, *self.expected, _depths(rng, n_synthetic), rng.integers(len(self.noise), size=n_synthetic), self.noise,
            self._styles(rng, profiles), self.styles.factors, *_of(panels, slice(n, None)), self.medians, ids[n:], lengths[n:], found[n:] if counts else found,
        )  # fmt: skip
        kept = lengths > _MIN_TOKENS
        return Batch(ids[kept], lengths[kept], labels[kept], found[kept] if counts else found)

    def _thinned_totals(self, rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        """Total counts to thin cells to; 0 for cells that stay as they are."""
        target = np.exp(rng.uniform(*np.log(self.config.thinned_to), len(rows)))
        thinned = (rng.random(len(rows)) < self.config.thinning) & (target < self.totals[rows])
        return np.where(thinned, target, 0.0)

    def _styles(self, rng: np.random.Generator, profiles: np.ndarray) -> np.ndarray:
        """Row of the style of each synthetic cell, or -1."""
        found = np.full(len(profiles), -1)
        for i in np.flatnonzero(rng.random(len(profiles)) < self.config.style):
            styles = self.styles.of_source.get(self.sources[profiles[i]])
            if styles is not None:
                found[i] = rng.choice(styles)
        return found

    def _panels(self, rng: np.random.Generator, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Row of each cell's panel, or -1, and the panels as masks over tokens."""
        of_cell = np.full(n_cells, -1)
        on_panel = np.flatnonzero(rng.random(n_cells) < self.config.panel)
        of_cell[on_panel] = np.arange(len(on_panel))
        masks = np.zeros((max(1, len(on_panel)), VOCABULARY_SIZE), bool)
        for mask in masks[: len(on_panel)]:
            size = int(np.exp(rng.uniform(*np.log(self.config.panel_genes))))
            size = min(size, len(self.panel_pool))
            mask[rng.choice(self.panel_pool, size, replace=False, p=self.p_panel)] = True
        return of_cell, masks


def rank_cells(cells: Cells, max_length: int, *, counts: bool = False) -> Batch:
    """Rank measured cells as they are; the labels of the batch are empty."""
    n = cells.counts.shape[0]
    ids, lengths = np.zeros((n, max_length), np.int32), np.zeros(n, np.int64)
    found = np.zeros(ids.shape if counts else (1, 1), np.float32)
    _thin(
        0, np.arange(n), *_arrays(cells.counts), np.zeros(n), np.full(n, -1), np.zeros((1, VOCABULARY_SIZE), bool),
        GeneVocabulary.load().median_of_token, ids, lengths, found,
    )  # fmt: skip
    return Batch(ids, lengths, np.empty(0, np.int64), found)


def _of(panels: tuple[np.ndarray, np.ndarray], rows: slice) -> tuple[np.ndarray, np.ndarray]:
    return panels[0][rows], panels[1]


def _arrays(matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32)  # fmt: skip


def _detected(matrix) -> np.ndarray:
    return np.asarray((matrix > 0).mean(0)).ravel()


def _within(group: np.ndarray, label: np.ndarray, power: float) -> np.ndarray:
    """Probability of each row within its group."""
    pairs = np.stack([group, label])
    _, index, sizes = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
    weights = sizes[index.ravel()].astype(float) ** (power - 1)
    return weights / np.bincount(group, weights=weights)[group]


def _depths(rng: np.random.Generator, n_cells: int) -> np.ndarray:
    """Total counts of synthetic cells: shallow droplets, 10x, large cells on 10x, plates."""
    centre = np.array([900.0, 2500.0, 6000.0, 20000.0])
    centre = centre[rng.choice(4, n_cells, p=[0.3, 0.4, 0.2, 0.1])]
    return np.maximum(centre * rng.lognormal(0, 0.5, n_cells), 200)


@numba.njit(nogil=True, cache=True)
def _rank(tokens, counts, n, medians, out_ids, out_counts):
    """Write `<cls>` and the tokens by decreasing count / median; ties by token. Returns the length."""
    keys = np.empty(n, np.uint64)
    scaled = np.empty(1, np.float32)
    bits = scaled.view(np.uint32)
    for i in range(n):
        scaled[0] = counts[i] / medians[tokens[i]]
        # positive floats sort like their bits
        keys[i] = (np.uint64(np.uint32(~bits[0])) << np.uint64(32)) | np.uint64(tokens[i])
    keys = np.sort(keys)
    out_ids[0] = CLS_ID
    m = min(n, len(out_ids) - 1)
    for i in range(m):
        token = np.int32(keys[i] & np.uint64(0xFFFFFFFF))
        out_ids[1 + i] = token
        if len(out_counts) > 1:
            bits[0] = ~np.uint32(keys[i] >> np.uint64(32))
            out_counts[1 + i] = scaled[0] * medians[token]
    return m + 1


@numba.njit(nogil=True, cache=True)
def _binomial(n, p):
    if n >= 60:
        k = np.round(n * p + np.sqrt(n * p * (1 - p)) * np.random.normal())
        return int(max(0, min(n, k)))
    k = 0
    for _ in range(n):
        if np.random.random() < p:
            k += 1
    return k


@numba.njit(nogil=True, cache=True)
def _thin(seed, rows, indptr, indices, data, thinned_totals, panel_of, panels, medians, out_ids, out_lengths, out_counts):  # fmt: skip
    """Rank measured cells after thinning and restriction to panels."""
    np.random.seed(seed)
    tokens = np.empty(VOCABULARY_SIZE, np.int32)
    counts = np.empty(VOCABULARY_SIZE, np.float32)
    for b in range(len(rows)):
        first, last, panel = indptr[rows[b]], indptr[rows[b] + 1], panel_of[b]
        p = 1.0
        if thinned_totals[b] > 0:
            p = min(1.0, thinned_totals[b] / data[first:last].sum())
        n = 0
        for j in range(first, last):
            if panel >= 0 and not panels[panel, indices[j]]:
                continue
            count = data[j]
            if p < 1.0:
                count = np.float32(_binomial(max(int(count), 1), p))
            if count > 0:
                tokens[n], counts[n] = indices[j], count
                n += 1
        if n:
            out_lengths[b] = _rank(tokens, counts, n, medians, out_ids[b], out_counts[min(b, len(out_counts) - 1)])  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _draw(seed, rows, indptr, indices, expected, depths, level, noise, style_of, styles, panel_of, panels, medians, out_ids, out_lengths, out_counts):  # fmt: skip
    """Rank synthetic cells: profile x style x noise, then a multinomial draw of the cell's depth."""
    np.random.seed(seed)
    tokens = np.empty(VOCABULARY_SIZE, np.int32)
    counts = np.empty(VOCABULARY_SIZE, np.float32)
    gene = np.empty(VOCABULARY_SIZE, np.int32)
    cumulative = np.empty(VOCABULARY_SIZE, np.float64)
    for b in range(len(rows)):
        panel, style = panel_of[b], style_of[b]
        offset = np.random.randint(0, noise.shape[1] - VOCABULARY_SIZE)
        n_genes, total = 0, 0.0
        for j in range(indptr[rows[b]], indptr[rows[b] + 1]):
            token = indices[j]
            if panel >= 0 and not panels[panel, token]:
                continue
            value = expected[j] * noise[level[b], offset + token]
            if style >= 0:
                value *= styles[style, token]
            total += value
            gene[n_genes], cumulative[n_genes] = token, total
            n_genes += 1
        if not n_genes:
            continue
        # sorted uniforms from exponential spacings find the gene of each count in one pass
        n, g, k, u = 0, 0, 0, 0.0
        depth = int(depths[b])
        for i in range(depth):
            u = 1 - (1 - u) * np.exp(np.log(np.random.random() + 1e-300) / (depth - i))
            if cumulative[g] < u * total:
                if k:
                    tokens[n], counts[n] = gene[g], k
                    n += 1
                    k = 0
                while g < n_genes - 1 and cumulative[g] < u * total:
                    g += 1
            k += 1
        if k:
            tokens[n], counts[n] = gene[g], k
            n += 1
        out_lengths[b] = _rank(tokens, counts, n, medians, out_ids[b], out_counts[min(b, len(out_counts) - 1)])  # fmt: skip
