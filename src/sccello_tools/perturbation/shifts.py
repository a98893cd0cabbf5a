"""Shifts of cells by chosen genes and gene sets, and by random genes of similar rank as controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch.nn import functional

from sccello_tools.errors import ArgumentError

from .edits import MODES, control_sets, perturbed
from .exact import half_squared_distance
from .scores import METHODS, Runner, check_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, Literal

    import torch
    from numpy.typing import NDArray

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName, ScCelloModel
    from sccello_tools.tokens import RaggedTokens

    from .edits import Mode, Perturbation
    from .exact import PerturbedRows

N_MATCHED: Final = 5
"""Controls of each perturbation in each cell."""


class Target(NamedTuple):
    """Where cells may move to: the mean of the target cells, or the prototype of a cell type."""

    vector: NDArray[np.float32]
    """(d,) unit vector."""
    representation: Literal["cls", "cell"]
    """Representation that the vector belongs to."""


class CellShifts(NamedTuple):
    """Shifts of cells; NaN where a perturbation does not change the tokens of a cell."""

    shift: NDArray[np.float32]
    """(n_cells, n_perturbations) 1 - cosine of the ``<cls>`` rows, in [0, 2]."""
    toward: NDArray[np.float32]
    """(n_cells, n_perturbations) component of the change in the direction of the target; NaN without target."""
    control_shift: NDArray[np.float32]
    """(n_cells, n_perturbations, n_controls) shifts by random genes of similar rank."""
    control_toward: NDArray[np.float32]
    """(n_cells, n_perturbations, n_controls)"""


def perturbation_shifts(
    network: ScCelloModel,
    tokens: RaggedTokens,
    perturbations: Sequence[Perturbation],
    *,
    mode: Mode = "mask",
    method: Literal["perturb", "fast"] = "perturb",
    target: Target | None = None,
    n_controls: int = 25,
    max_length: int | None = None,
    seeds: NDArray[np.integer] | None = None,
    batch_tokens: int | Literal["auto"] = "auto",
    precision: Precision = "float32",
    attention: AttentionName = "auto",
    n_directions: int = 4,
    on_progress: Callable[[int], None] | None = None,
) -> CellShifts:
    r"""Compute the shift of each cell by each perturbation.

    With :math:`u` and :math:`u'` the unit vectors of a cell before and after, and :math:`t` that of the target,

    .. math:: \mathrm{shift} = 1 - u \cdot u', \qquad \mathrm{toward} = (u' - u) \cdot \frac{t - u}{\lVert t - u \rVert}.

    Controls of single genes that the cell expresses come from a pool of ``n_controls`` genes per cell, spread over all ranks: the five
    nearest in rank. They cost the same for any number of perturbations. Sets, and genes that the cell does not express, have five
    matched random sets of their own in each cell. Controls do not depend on what else is perturbed.

    Parameters
    ----------
    network
        The model, on the device to run on.
    tokens
        Tokens of the cells.
    perturbations
        Genes and gene sets.
    mode
        See :func:`~sccello_tools.perturbation.edits.perturbed`.
    method
        ``"perturb"``: exact. ``"fast"``: approximation for masking single genes; all genes of the cell are then the pool of controls.
    target
        Target, for ``toward``.
    n_controls
        Size of the pool; 0 for no controls.
    max_length
        Maximum length of a perturbed cell; by default the number of positions of the model.
    seeds
        Seed of the controls of each cell, shape (n_cells,); by default 0, 1, ...
    batch_tokens, precision, attention, n_directions, on_progress
        See :func:`~sccello_tools.perturbation.perturbation_scores`.

    Raises
    ------
    ArgumentError
        If ``mode`` or ``method`` is unknown, or ``method="fast"`` is combined with another mode or with gene sets.
    WeightsError
        If the model has no trained mask token and ``mode="mask"``.
    """
    check_choice("mode", mode, MODES)
    check_choice("method", method, METHODS[:2])
    if method == "fast" and (mode != "mask" or any(len(p.tokens) > 1 for p in perturbations)):
        msg = "method='fast' approximates masking of single genes only. Use method='perturb' for gene sets and other modes."
        raise ArgumentError(msg)
    runner = Runner(
        network,
        batch_tokens=batch_tokens,
        precision=precision,
        attention=attention,
        n_directions=n_directions,
    )
    if mode == "mask":
        runner.check_mask_token()
    n_kept = min(N_MATCHED, n_controls)
    values = np.full((len(tokens), len(perturbations), 1 + n_kept, 2), np.nan, dtype=np.float32)
    cells = _Cells(
        runner,
        [np.array(p.tokens, dtype=np.int64) for p in perturbations],
        mode,
        target,
        n_controls,
        network.config.max_positions if max_length is None else max_length,
        np.setdiff1d(tokens.ids, [network.config.cls_token_id]),
    )
    with runner:
        for cell in range(len(tokens)):
            seed = cell if seeds is None else int(seeds[cell])
            if len(tokens[cell]) > 1:
                measure = cells.fast if method == "fast" else cells.exact
                values[cell] = measure(tokens[cell].astype(np.int64), seed)
            if on_progress:
                on_progress(1)
    return CellShifts(
        values[:, :, 0, 0], values[:, :, 0, 1], values[:, :, 1:, 0], values[:, :, 1:, 1]
    )


class _Cells(NamedTuple):
    """Shifts of single cells: arrays of shape (n_perturbations, 1 + n_controls, 2), the last axis being shift and toward."""

    runner: Runner
    sets: list[NDArray[np.int64]]
    mode: Mode
    target: Target | None
    n_controls: int
    max_length: int
    expressed: NDArray[np.int64]

    def fast(self, ids: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """All genes of the cell are masked approximately at once."""
        del seed
        found = self._measure(self.runner.fast(ids))  # (L - 1, 2)
        every = np.arange(1, len(ids))
        return self._by_position(ids, {i: found[i - 1] for i in every.tolist()}, every)

    def exact(self, ids: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """Genes and their controls pass through the model; identical copies once."""
        rng = np.random.default_rng(seed)
        n_genes = len(ids) - 1
        pool = 1 + np.unique(
            (np.arange(self.n_controls) + rng.random(self.n_controls))
            * n_genes
            / max(self.n_controls, 1)
        ).astype(np.int64)  # one gene at random of each stratum of ranks
        pool = np.unique(pool)
        position = {int(token): i for i, token in enumerate(ids)}
        single = [len(s) == 1 and int(s[0]) in position for s in self.sets]
        own = [position[int(s[0])] for s, one in zip(self.sets, single) if one]
        positions = np.union1d(own, pool if own else []).astype(np.int64)
        measured = dict(zip(positions.tolist(), self._of_positions(ids, positions)))
        out = self._by_position(ids, measured, pool)
        for p, (tokens, one) in enumerate(zip(self.sets, single)):
            if not one:
                out[p] = self._of_set(ids, tokens, seed)
        return out

    def _of_positions(
        self, ids: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if not len(positions):
            return np.zeros((0, 2), dtype=np.float32)
        if self.mode == "mask":
            return self._measure(self.runner.masked(ids, positions))
        copies = [self._copy(ids, ids[i : i + 1]) for i in positions]
        return self._measure_copies(ids, copies)

    def _of_set(
        self, ids: NDArray[np.int64], tokens: NDArray[np.int64], seed: int
    ) -> NDArray[np.float32]:
        n_kept = min(N_MATCHED, self.n_controls)
        out = np.full((1 + n_kept, 2), np.nan, dtype=np.float32)
        copy = self._copy(ids, tokens)
        if copy is None:
            return out
        rng = np.random.default_rng([seed, *sorted(tokens.tolist())])
        controls = control_sets(ids, tokens, self.expressed, rng, n_kept) if n_kept else []
        measured = self._measure_copies(ids, [copy, *(self._copy(ids, c) for c in controls)])
        out[: len(measured)] = measured
        return out

    def _by_position(
        self,
        ids: NDArray[np.int64],
        measured: dict[int, NDArray[np.float32]],
        pool: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Collect the values of single genes, and of the genes of the pool that are nearest in rank."""
        n_kept = min(N_MATCHED, self.n_controls)
        out = np.full((len(self.sets), 1 + n_kept, 2), np.nan, dtype=np.float32)
        position = {int(token): i for i, token in enumerate(ids)}
        for p, tokens in enumerate(self.sets):
            at = position.get(int(tokens[0]))
            if len(tokens) > 1 or at is None:
                continue
            out[p, 0] = measured[at]
            others = pool[pool != at]
            nearest = others[np.argsort(np.abs(others - at), kind="stable")[:n_kept]]
            for k, other in enumerate(nearest.tolist()):
                out[p, 1 + k] = measured[other]
        return out

    def _copy(self, ids: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64] | None:
        mask_id = self.runner.network.config.mask_token_id
        return perturbed(ids, tokens, self.mode, mask_id=mask_id, max_length=self.max_length)

    def _measure_copies(
        self, ids: NDArray[np.int64], copies: Sequence[NDArray[np.int64] | None]
    ) -> NDArray[np.float32]:
        """(n_copies, 2); NaN for copies that are None."""
        out = np.full((len(copies), 2), np.nan, dtype=np.float32)
        kept = [i for i, copy in enumerate(copies) if copy is not None]
        if kept:
            changed = [copy for copy in copies if copy is not None]
            out[kept] = self._measure(self.runner.edited(ids, changed))
        return out

    def _measure(self, found: PerturbedRows) -> NDArray[np.float32]:
        """(n, 2) shift, and component toward the target."""
        shift = half_squared_distance(found.clean, found.rows).cpu().numpy()
        out = np.full((len(shift), 2), np.nan, dtype=np.float32)
        out[:, 0] = shift
        if self.target is not None:
            u, moved = (self._unit(x) for x in (found.clean[None], found.rows))
            direction = self.target.vector.astype(np.float64) - u[0]
            direction /= max(float(np.linalg.norm(direction)), 1e-12)
            out[:, 1] = (moved - u) @ direction
        return out

    def _unit(self, rows: torch.Tensor) -> NDArray[np.float64]:
        if self.target is not None and self.target.representation == "cell":
            import torch

            with torch.inference_mode():
                rows = self.runner.network.cell_representation(rows.float())
        found: NDArray[np.float64] = functional.normalize(rows.double(), dim=-1).cpu().numpy()
        return found
