"""What several processes must share, so that their losses are those of one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import distributed

if TYPE_CHECKING:
    from typing import Any


class Gathered(NamedTuple):
    """Rows of all processes."""

    rows: torch.Tensor
    """(B, ...): those of rank 0, then rank 1, and so on."""
    first: int
    """Place of this process's first row among them."""


def n_processes() -> int:
    """Return the number of processes that train together; 1 where nothing is distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return 1


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Add up a tensor over all processes; it takes no part in the gradient."""
    total = values.detach().clone()
    if n_processes() > 1:
        distributed.all_reduce(total)
    return total


def wait_for_main() -> None:
    """Wait until all processes are here: the main one may be writing what the others are about to read."""
    if n_processes() > 1:
        distributed.barrier()


def gather_rows(rows: torch.Tensor) -> Gathered:
    """Collect the rows of all processes, differentiably, however many each has.

    The backward pass hands each process the sum of what all processes want changed in its rows.

    Parameters
    ----------
    rows
        (b, ...) of this process.
    """
    if n_processes() == 1:
        return Gathered(rows, 0)
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(n_processes())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    first = sum(sizes[: distributed.get_rank()])
    out: torch.Tensor = _Gather.apply(rows, sizes, first)  # type: ignore[no-untyped-call]
    return Gathered(out, first)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, sizes: list[int], first: int) -> torch.Tensor:
        ctx.mine = slice(first, first + len(rows))
        # every backend can gather tensors of one size only
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        total = grads[0].contiguous().clone()
        distributed.all_reduce(total)
        return total[ctx.mine], None, None
