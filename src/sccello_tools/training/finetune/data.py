"""Batches for fine-tuning: rows of cached embeddings, or packed tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sccello_tools.engine import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sccello_tools.tokens import RaggedTokens

    from .split import Split

_STILL = 8  # a validation batch may hold more cells: it keeps nothing for a gradient


class FeatureBatch(NamedTuple):
    """Cells as the frozen encoder sees them."""

    features: torch.Tensor
    """(B, d) float32 ``<cls>`` rows."""
    codes: torch.Tensor
    """(B,) int64 label of each cell."""


class TokenBatch(NamedTuple):
    """Cells laid out flat, longest first."""

    ids: torch.Tensor
    """(T,) int64 token ids."""
    cu_seqlens: torch.Tensor
    """(B + 1,) int32 bounds of the cells."""
    max_seqlen: int
    codes: torch.Tensor
    """(B,) int64 label of each cell."""


class _Rows(Dataset[int]):
    """Row numbers: what a loader shuffles and shares out to devices; cells are looked up when a batch is made."""

    def __init__(self, rows: NDArray[np.intp]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return int(self.rows[index])


class FinetuneData(L.LightningDataModule):
    """Training and held-out cells.

    Parameters
    ----------
    cells
        (n_cells, d) ``<cls>`` rows, or the tokens of the cells.
    codes
        (n_cells,) label of each cell.
    split
        Which cells train and which are held out.
    batch_cells
        Cells of a training step.
    seed
        Of the order of cells.
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
        """Return the training cells, in another order each epoch."""
        return self._loader(self.split.train, self.batch_cells, shuffle=True)

    def val_dataloader(self) -> DataLoader[int]:
        """Return the held-out cells."""
        return self._loader(self.split.held_out, _STILL * self.batch_cells, shuffle=False)

    def _loader(
        self, rows: NDArray[np.intp], batch_cells: int, *, shuffle: bool
    ) -> DataLoader[int]:
        return DataLoader(
            _Rows(rows),
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
        # cells of equal length stand together, so that attention can take them at once
        chosen = chosen[np.argsort(-self.cells.lengths[chosen], kind="stable")]
        ids, cu_seqlens, max_seqlen = pack(self.cells, chosen, torch.device("cpu"))
        return TokenBatch(ids, cu_seqlens, max_seqlen, torch.from_numpy(self.codes[chosen]))
