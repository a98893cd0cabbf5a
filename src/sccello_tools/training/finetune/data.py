"""Cells for fine-tuning: the validation split, and batches of cached embeddings or packed tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from sccello_tools.engine import pack
from sccello_tools.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from numpy.typing import NDArray

    from sccello_tools.tokens import RaggedTokens

_N_ORDERS: Final = 200  # random orders of the groups that are tried; dozens are usually sufficient
_VALIDATION_FACTOR: Final = 8  # validation batches can be larger: nothing is stored for a gradient


class Split(NamedTuple):
    """Rows for training and validation."""

    train: NDArray[np.intp]
    """Rows to train on."""
    validation: NDArray[np.intp]
    """Rows held out."""
    groups: tuple[str, ...] = ()
    """Groups that are held out whole; empty if single cells were held out."""


def hold_out(
    codes: NDArray[np.intp],
    *,
    validation: float,
    groups: NDArray[np.str_] | None = None,
    labels: Sequence[str] = (),
    seed: int = 0,
) -> Split:
    """Split cells into training and validation cells.

    Parameters
    ----------
    codes
        (n_cells,) label of each cell, from 0. A label with a single cell is trained on.
    validation
        Approximate fraction of cells to hold out.
    groups
        (n_cells,) donor, sample or study of each cell. Whole groups are held out such that each label remains in the training cells and
        as many labels as possible occur in the validation cells. Without groups, the fraction is held out of each label.
    labels
        Names of the labels, for messages.
    seed
        Seed of the random choice.

    Raises
    ------
    GroupError
        If there is only one group, or each group is the only one with some label.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.training.finetune.data import hold_out
    >>> groups = np.repeat(["a", "b", "c"], 4)
    >>> split = hold_out(np.tile([0, 1], 6), validation=0.3, groups=groups)
    >>> len(split.groups), len(split.train), len(split.validation)
    (1, 8, 4)
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        held = _cells_of_each_label(codes, validation, rng)
        return Split(np.flatnonzero(~held), np.flatnonzero(held))
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        msg = f"All cells belong to one batch ({str(names[0])!r}), which cannot be held out. Omit batch_key to hold out cells instead."
        raise GroupError(msg)
    cells = np.zeros((len(names), int(codes.max()) + 1), dtype=np.int64)  # group by label
    np.add.at(cells, (member, codes), 1)
    chosen = _choose_groups(cells, validation, rng)
    if chosen is None:
        unique = np.flatnonzero((cells > 0).sum(axis=0) == 1)
        named = ", ".join(repr(labels[i] if labels else str(i)) for i in unique[:5])
        msg = (
            f"No batch can be held out: each of the {len(names)} contains all cells of some label (such as {named}). "
            "Omit batch_key to hold out cells instead, or exclude rare labels."
        )
        raise GroupError(msg)
    held = np.isin(member, chosen)
    return Split(
        np.flatnonzero(~held), np.flatnonzero(held), tuple(str(names[i]) for i in sorted(chosen))
    )


def _cells_of_each_label(
    codes: NDArray[np.intp], validation: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    held = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        held[rows[: min(len(rows) - 1, max(1, round(validation * len(rows))))]] = True
    return held


def _choose_groups(
    cells: NDArray[np.int64], validation: float, rng: np.random.Generator
) -> NDArray[np.intp] | None:
    """Choose groups that contain no label completely, many labels, and about the requested fraction of cells."""
    best, best_score = None, -np.inf
    used = cells.sum(axis=0) > 0
    for _ in range(_N_ORDERS):
        order = rng.permutation(len(cells))
        held = np.cumsum(cells[order], axis=0)[:-1]  # row k: the first k + 1 groups together
        possible = ((cells.sum(axis=0) - held)[:, used] > 0).all(axis=1)
        covered = (held[:, used] > 0).mean(axis=1)
        # covering another tenth of the labels is worth a deviation of a tenth from the fraction
        scores = np.where(
            possible, covered - np.abs(held.sum(axis=1) / cells.sum() - validation), -np.inf
        )
        if scores.max() > best_score:
            best, best_score = order[: scores.argmax() + 1], float(scores.max())
    return best


class FeatureBatch(NamedTuple):
    """Cells as embedded by the frozen encoder."""

    features: torch.Tensor
    """(B, d) float32 ``<cls>`` embeddings."""
    codes: torch.Tensor
    """(B,) int64 label of each cell."""


class TokenBatch(NamedTuple):
    """Packed cells, sorted by decreasing length."""

    ids: torch.Tensor
    """(T,) int64 token ids."""
    cu_seqlens: torch.Tensor
    """(B + 1,) int32 boundaries of the cells."""
    max_seqlen: int
    """Number of tokens of the longest cell."""
    codes: torch.Tensor
    """(B,) int64 label of each cell."""


class FinetuneData(L.LightningDataModule):
    """Training and validation cells.

    Parameters
    ----------
    cells
        (n_cells, d) ``<cls>`` embeddings, or the tokens of the cells.
    codes
        (n_cells,) label of each cell.
    split
        Rows for training and validation.
    batch_cells
        Cells per training step.
    seed
        Seed of the order of cells.
    """

    def __init__(
        self,
        cells: NDArray[np.float32] | RaggedTokens,
        codes: NDArray[np.intp],
        split: Split,
        *,
        batch_cells: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.cells, self.codes, self.split = cells, codes.astype(np.int64), split
        self.batch_cells, self.seed = batch_cells, seed

    def train_dataloader(self) -> DataLoader[int]:
        """Return the training cells, shuffled in each epoch."""
        return self._loader(self.split.train, self.batch_cells, shuffle=True)

    def val_dataloader(self) -> DataLoader[int]:
        """Return the validation cells."""
        return self._loader(
            self.split.validation, _VALIDATION_FACTOR * self.batch_cells, shuffle=False
        )

    def _loader(
        self, rows: NDArray[np.intp], batch_cells: int, *, shuffle: bool
    ) -> DataLoader[int]:
        return DataLoader(
            rows.tolist(),  # cells are looked up when a batch is built
            batch_size=batch_cells,
            shuffle=shuffle,
            generator=torch.Generator().manual_seed(self.seed),
            collate_fn=self._batch,
        )

    def _batch(self, rows: Sequence[int]) -> FeatureBatch | TokenBatch:
        chosen = np.asarray(rows, dtype=np.int64)
        if isinstance(self.cells, np.ndarray):
            return FeatureBatch(
                torch.from_numpy(self.cells[chosen]), torch.from_numpy(self.codes[chosen])
            )
        # adjacent cells of equal length can be processed by attention at once
        chosen = chosen[np.argsort(-self.cells.lengths[chosen], kind="stable")]
        ids, cu_seqlens, max_seqlen = pack(self.cells, chosen, torch.device("cpu"))
        return TokenBatch(ids, cu_seqlens, max_seqlen, torch.from_numpy(self.codes[chosen]))
