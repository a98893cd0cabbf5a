"""Communication between processes, so that their losses equal those of a single large batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import distributed

if TYPE_CHECKING:
    from typing import Any


class Gathered(NamedTuple):
    """Rows of all processes."""

    rows: torch.Tensor
    """(B, ...) rows of rank 0, then rank 1, and so on."""
    first: int
    """Index of this process's first row."""


def n_processes() -> int:
    """Return the number of training processes; 1 if training is not distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return 1


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, without gradient."""
    total = values.detach().clone()
    if n_processes() > 1:
        distributed.all_reduce(total)
    return total


def wait_for_main() -> None:
    """Wait until all processes have reached this point, for instance until the main one has written a file."""
    if n_processes() > 1:
        distributed.barrier()


def gather_rows(rows: torch.Tensor) -> Gathered:
    """Concatenate the rows of all processes, differentiably; their numbers may differ.

    In the backward pass each process receives the sum over all processes of the gradients of its rows.

    Parameters
    ----------
    rows
        (b, ...) rows of this process.
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
        ctx.own = slice(first, first + len(rows))
        # not every backend can gather tensors of different sizes
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        total = grads[0].contiguous().clone()
        distributed.all_reduce(total)
        return total[ctx.own], None, None
