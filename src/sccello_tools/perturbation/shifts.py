"""Shifts of cells by chosen genes and gene sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from sccello_tools._validation import check_choice
from sccello_tools.errors import ArgumentError

from .edits import MODES, perturbed
from .exact import half_squared_distance
from .scores import METHODS, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName, ScCelloModel
    from sccello_tools.tokens import RaggedTokens

    from .edits import Mode
    from .exact import PerturbedRows

ShiftMethod = Literal["perturb", "fast"]


class Target(NamedTuple):
    """Where cells may move to: the mean of the target cells, or the prototype of a cell type."""

    vector: NDArray[np.float32]
    """(d,) unit vector."""
    representation: Literal["cls", "cell"]
    """Representation that the vector belongs to."""


class CellShifts(NamedTuple):
    """Shifts of cells; NaN where a perturbation does not change the tokens of a cell."""

    shift: NDArray[np.float32]
    """(n_cells, n_sets) 1 - cosine of the ``<cls>`` rows, in [0, 2]."""
    toward: NDArray[np.float32]
    """(n_cells, n_sets) component of the change in the direction of the target; NaN without target."""


def perturbation_shifts(
    network: ScCelloModel,
    tokens: RaggedTokens,
    sets: Sequence[Sequence[int]],
    *,
    mode: Mode = "mask",
    method: ShiftMethod = "perturb",
    target: Target | None = None,
    max_length: int | None = None,
    batch_tokens: int | Literal["auto"] = "auto",
    precision: Precision = "float32",
    attention: AttentionName = "auto",
    n_directions: int = 4,
    on_progress: Callable[[int], None] | None = None,
) -> CellShifts:
    r"""Compute the shift of each cell by each gene set.

    With :math:`u` and :math:`u'` the unit vectors of a cell before and after, and :math:`t` that of the target,

    .. math:: \mathrm{shift} = 1 - u \cdot u', \qquad \mathrm{toward} = (u' - u) \cdot \frac{t - u}{\lVert t - u \rVert}.

    Parameters
    ----------
    network
        The model, on the device to run on.
    tokens
        Tokens of the cells.
    sets
        Token ids of genes that are perturbed jointly; single genes are sets of one.
    mode
        See :func:`~sccello_tools.perturbation.edits.perturbed`.
    method
        ``"perturb"``: exact. ``"fast"``: approximation for masking single genes.
    target
        Target, for ``toward``.
    max_length
        Maximum length of a perturbed cell; by default the number of positions of the model.
    batch_tokens, precision, attention, n_directions, on_progress
        See :func:`~sccello_tools.perturbation.perturbation_scores`.

    Raises
    ------
    ArgumentError
        If ``mode`` or ``method`` is unknown, or ``method="fast"`` is combined with another mode or with gene sets.
    WeightsError
        If the model has no trained mask token and ``mode="mask"``.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> from sccello_tools.perturbation import perturbation_shifts
    >>> network = sccello.models.load("sccello-small").network
    >>> tokens = sccello.pp.tokenize(sccello.datasets.pancreas_tritschler()[:2], max_length=64)
    >>> first, second = tokens[0][1:3]
    >>> perturbation_shifts(network, tokens, [(first,), (first, second)], mode="delete").shift.shape
    (2, 2)
    """
    check_choice("mode", mode, MODES)
    check_choice("method", method, METHODS[:2])
    single = all(len(genes) == 1 for genes in sets)
    if method == "fast" and (mode != "mask" or not single):
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
    limit = network.config.max_positions if max_length is None else max_length
    genes = [np.array(tuple(members), dtype=np.int64) for members in sets]
    shift = np.full((len(tokens), len(sets)), np.nan, dtype=np.float32)
    toward = np.full_like(shift, np.nan)
    with runner:
        for cell in range(len(tokens)):
            ids = tokens[cell].astype(np.int64)
            if len(ids) > 1 and genes:
                changed, found = (
                    _masked(runner, ids, np.concatenate(genes), method)
                    if mode == "mask" and single
                    else _edited(runner, ids, genes, mode, limit)
                )
                if len(changed):
                    shift[cell, changed] = half_squared_distance(found.clean, found.rows).cpu()
                    if target is not None:
                        toward[cell, changed] = _toward(runner.network, found, target)
            if on_progress:
                on_progress(1)
    return CellShifts(shift, toward)


def _masked(
    runner: Runner, ids: NDArray[np.int64], genes: NDArray[np.int64], method: ShiftMethod
) -> tuple[NDArray[np.intp], PerturbedRows]:
    """Mask single genes; return which of them the cell expresses, and the rows for these."""
    order = np.argsort(ids)
    position = order[np.clip(np.searchsorted(ids, genes, sorter=order), 0, len(ids) - 1)]
    expressed = np.flatnonzero((ids[position] == genes) & (position > 0))
    which = position[expressed]
    if method == "perturb":
        return expressed, runner.masked(ids, which)
    found = runner.fast(ids)
    index = torch.from_numpy(which - 1).to(found.rows.device)
    return expressed, found._replace(rows=found.rows[index])


def _edited(
    runner: Runner,
    ids: NDArray[np.int64],
    sets: Sequence[NDArray[np.int64]],
    mode: Mode,
    max_length: int,
) -> tuple[NDArray[np.intp], PerturbedRows]:
    """Edit sets of genes; return which of the sets change the cell, and the rows for these."""
    mask_id = runner.network.config.mask_token_id
    copies = [perturbed(ids, s, mode, mask_id=mask_id, max_length=max_length) for s in sets]
    changed = [i for i, copy in enumerate(copies) if copy is not None]
    return np.array(changed, dtype=np.intp), runner.edited(
        ids, [copy for copy in copies if copy is not None]
    )


def _toward(network: ScCelloModel, found: PerturbedRows, target: Target) -> NDArray[np.float64]:
    """Component of the change of the unit vectors in the direction of the target, shape (n,)."""
    rows = torch.cat([found.clean[None], found.rows])
    if target.representation == "cell":
        with torch.inference_mode():
            rows = network.cell_representation(rows.float())
    units = functional.normalize(rows.double(), dim=-1).cpu().numpy()  # (1 + n, d)
    direction = target.vector.astype(np.float64) - units[0]
    direction /= max(float(np.linalg.norm(direction)), 1e-12)
    component: NDArray[np.float64] = (units[1:] - units[0]) @ direction
    return component
