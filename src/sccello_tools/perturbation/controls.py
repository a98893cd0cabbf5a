"""Effects of perturbations on a group of cells, tested against random genes of similar rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from .shifts import perturbation_shifts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from numpy.typing import NDArray

    from sccello_tools.nn import ScCelloModel
    from sccello_tools.tokens import RaggedTokens

    from .edits import Mode
    from .shifts import CellShifts, Target

_MIN_DETECTION: Final = 0.5  # of a control gene, relative to that of the gene it is compared with
_CANDIDATES: Final = 2  # control sets are drawn from this many times as many genes
N_CONTROL_CELLS: Final = 10
"""Cells in which controls are computed exactly."""


class GeneRanks(NamedTuple):
    """Ranks of the genes of some cells."""

    tokens: NDArray[np.int64]
    """(n_genes,) genes that any of the cells expresses, ascending."""
    rank: NDArray[np.float64]
    """(n_genes,) mean over the expressing cells of rank / number of genes, 0 being the highest."""
    n_cells: NDArray[np.int64]
    """(n_genes,) number of expressing cells."""

    @classmethod
    def of(cls, tokens: RaggedTokens) -> GeneRanks:
        """Compute ranks; ``<cls>`` is ignored."""
        lengths = tokens.lengths.astype(np.int64)
        position = np.arange(len(tokens.ids)) - np.repeat(tokens.indptr[:-1], lengths)
        relative = (position - 1) / np.repeat(np.maximum(lengths - 1, 1), lengths)
        genes, member = np.unique(tokens.ids[position > 0], return_inverse=True)
        counts = np.bincount(member, minlength=len(genes))
        total = np.bincount(member, weights=relative[position > 0], minlength=len(genes))
        return cls(genes.astype(np.int64), total / np.maximum(counts, 1), counts.astype(np.int64))

    def similar(self, token: int, n: int, excluded: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the ``n`` genes nearest in rank that at least half as many cells express, nearest first.

        For a gene that no cell expresses, other genes in random order are not available here; the result is empty.
        """
        index = np.searchsorted(self.tokens, token)
        if index == len(self.tokens) or self.tokens[index] != token:
            return np.zeros(0, dtype=np.int64)
        usable = self.n_cells >= max(1, _MIN_DETECTION * self.n_cells[index])
        usable &= ~np.isin(self.tokens, [*excluded, token])
        candidates = np.flatnonzero(usable)
        distance = np.abs(self.rank[candidates] - self.rank[index])
        return self.tokens[candidates[np.argsort(distance, kind="stable")[:n]]]


def control_sets(
    ranks: GeneRanks,
    tokens: Sequence[int],
    absent: NDArray[np.integer],
    n: int,
    rng: np.random.Generator,
) -> list[tuple[int, ...]]:
    """Return sets of random genes that match a set gene by gene.

    Parameters
    ----------
    ranks
        Ranks in the cells of the group.
    tokens
        The set to match. A gene that the cells express is matched by genes of similar rank (:meth:`GeneRanks.similar`); another gene
        by a random gene that they do not express.
    absent
        Genes that none of the cells expresses, to draw from.
    n
        Maximum number of sets.
    rng
        Generator.

    Returns
    -------
    Distinct sets without genes of ``tokens``; for a single gene the ``n`` genes nearest in rank, for several genes random
    combinations of their nearest ``2 n``. Fewer than ``n`` if there are not enough genes.
    """
    own = np.array(tokens, dtype=np.int64)
    pools = []
    for token in tokens:
        n_candidates = n if len(own) == 1 else _CANDIDATES * n
        pool = ranks.similar(token, n_candidates, own)
        if token not in ranks.tokens:
            others = np.setdiff1d(absent, own)
            pool = rng.permutation(others)[:n_candidates]
        if not len(pool):
            return []
        pools.append(pool)
    if len(own) == 1:
        return [(int(token),) for token in pools[0]]
    sets: dict[frozenset[int], tuple[int, ...]] = {}
    for _ in range(4 * n):
        drawn = tuple(int(rng.choice(pool)) for pool in pools)
        if len(set(drawn)) == len(drawn):
            sets.setdefault(frozenset(drawn), drawn)
        if len(sets) == n:
            break
    return list(sets.values())


def empirical_pvalue(observed: float, controls: NDArray[np.floating], *, two_sided: bool) -> float:
    r"""Return the rank of a statistic among those of controls as a p-value.

    :math:`p = (1 + \#\{c \ge x\}) / (n + 1)`; two-sided :math:`\min(1, 2 \min(p_{\ge}, p_{\le}))`. NaN without controls.
    """
    controls = controls[np.isfinite(controls)]
    if not len(controls) or not np.isfinite(observed):
        return float("nan")
    above = (1 + int((controls >= observed).sum())) / (len(controls) + 1)
    below = (1 + int((controls <= observed).sum())) / (len(controls) + 1)
    return min(1.0, 2 * min(above, below)) if two_sided else above


def adjusted(pvals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini-Hochberg correction that keeps NaN."""
    out = np.full_like(pvals, np.nan)
    tested = np.isfinite(pvals)
    if tested.any():
        out[tested] = stats.false_discovery_control(pvals[tested])
    return out


class Effects(NamedTuple):
    """Mean effect of each set on a group of cells, and its rank among control sets; arrays of shape (n_sets,)."""

    mean: NDArray[np.float64]
    """Mean over the changed cells; NaN if there are none."""
    control: NDArray[np.float64]
    """Median over the control sets of their means."""
    pvals: NDArray[np.float64]
    fdr: NDArray[np.float64]
    """Benjamini-Hochberg correction over the sets."""


class GroupEffects(NamedTuple):
    """Effects on a group of cells."""

    n_changed: NDArray[np.int64]
    """(n_sets,) number of cells whose tokens a set changes."""
    shift: Effects
    """One-sided p-values: a larger shift than by random genes."""
    toward: Effects
    """Two-sided p-values."""


def group_effects(
    network: ScCelloModel,
    tokens: RaggedTokens,
    sets: Sequence[Sequence[int]],
    shifts: CellShifts,
    *,
    mode: Mode,
    target: Target | None,
    n_controls: int,
    absent: NDArray[np.integer],
    seed: int,
    **options: Any,
) -> GroupEffects:
    """Compare the mean shift of a group of cells with that by random genes of similar rank.

    The statistic is the mean over the cells that a set changes. For masking of single genes, it is computed with ``method="fast"`` in
    all cells, for the gene and for its controls. In all other cases it is computed exactly in up to ten cells that the set changes.

    Parameters
    ----------
    network
        The model.
    tokens
        Tokens of the cells of the group.
    sets
        Gene sets.
    shifts
        Their shifts of these cells.
    mode, target
        As in :func:`~sccello_tools.perturbation.perturbation_shifts`.
    n_controls
        Number of control sets of each set; the smallest possible p-value is ``1 / (n_controls + 1)``. 0 for none.
    absent
        Genes to draw controls of unexpressed genes from.
    seed
        Seed of the cells and control sets. Those of a set do not depend on the other sets.
    options
        Further options of :func:`~sccello_tools.perturbation.perturbation_shifts`.
    """
    n_changed = np.isfinite(shifts.shift).sum(axis=0)
    if not n_controls:
        nan = np.full(len(sets), np.nan)
        return GroupEffects(
            n_changed, *(Effects(_mean(values), nan, nan, nan) for values in shifts)
        )
    approximate = mode == "mask" and all(len(genes) == 1 for genes in sets)
    ranks = GeneRanks.of(tokens)
    order = np.random.default_rng(seed).permutation(len(tokens))
    statistic = np.full((2, len(sets)), np.nan)
    controls = np.full((2, len(sets), n_controls), np.nan)
    # sets that change the same cells share these cells, and the computation of common controls
    by_cells: dict[tuple[int, ...], list[int]] = {}
    for p in range(len(sets)):
        own = order[np.isfinite(shifts.shift[order, p])]
        if len(own):
            kept = range(len(tokens)) if approximate else np.sort(own[:N_CONTROL_CELLS])
            by_cells.setdefault(tuple(int(cell) for cell in kept), []).append(p)
    for cells, members in by_cells.items():
        rows = np.array(cells)
        drawn = {
            p: control_sets(
                ranks,
                sets[p],
                absent,
                n_controls,
                np.random.default_rng([seed, *sorted(map(int, sets[p]))]),
            )
            for p in members
        }
        unique = {
            genes: i for i, genes in enumerate(dict.fromkeys(g for d in drawn.values() for g in d))
        }
        observed = [tuple(sets[p]) for p in members] if approximate else []
        found = perturbation_shifts(
            network,
            tokens.take(rows),
            [*unique, *observed],
            mode=mode,
            method="fast" if approximate else "perturb",
            target=target,
            **options,
        )
        for k, (exact, values) in enumerate(zip(shifts, found)):
            means = _mean(values[:, : len(unique)])
            tested = values[:, len(unique) :] if approximate else exact[rows][:, members]
            statistic[k, members] = _mean(tested)
            for p in members:
                controls[k, p, : len(drawn[p])] = means[[unique[genes] for genes in drawn[p]]]
    effects = []
    for k, two_sided in enumerate((False, True)):
        pvals = np.array(
            [
                empirical_pvalue(float(x), own, two_sided=two_sided)
                for x, own in zip(statistic[k], controls[k])
            ]
        )
        effects.append(Effects(_mean(shifts[k]), _median(controls[k]), pvals, adjusted(pvals)))
    return GroupEffects(n_changed, *effects)


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of each row, ignoring NaN; NaN for rows without values."""
    out = np.full(len(values), np.nan)
    known = np.isfinite(values).any(axis=1)
    out[known] = np.nanmedian(values[known], axis=1)
    return out


def _mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean over rows, ignoring NaN; NaN for columns without values."""
    counts = np.isfinite(values).sum(axis=0)
    total = np.nansum(values, axis=0, dtype=np.float64)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
