"""Cross-entropy of cosines over a large table, without a (rows x table) matrix in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from typing import Any


class CrossEntropySum(NamedTuple):
    """What :func:`chunked_cross_entropy` found, summed over rows."""

    loss: torch.Tensor
    """Scalar, differentiable."""
    n_correct: torch.Tensor
    """Scalar, rows whose highest score is the target's."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient is taken in the forward pass, while a chunk's scores are at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        table: torch.Tensor,
        targets: torch.Tensor,
        scale: float,
        chunk_rows: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = any(ctx.needs_input_grad[:2])
        queries_grad = torch.zeros_like(queries) if wanted else None
        table_grad = torch.zeros_like(table) if wanted else None
        loss, n_correct = queries.new_zeros(()), queries.new_zeros(())
        for start in range(0, len(queries), chunk_rows):
            rows = slice(start, start + chunk_rows)
            q, target = queries[rows], targets[rows, None]
            scores = (q @ table.T).mul_(scale)  # (chunk, table)
            highest = scores.max(dim=1, keepdim=True)
            n_correct += (highest.indices == target).sum()
            target_score = scores.gather(1, target)
            # from here on `scores` turns into the softmax and then the gradient, in place
            total = scores.sub_(highest.values).exp_().sum(dim=1, keepdim=True)
            loss += (total.log() + highest.values - target_score).sum()
            if queries_grad is None or table_grad is None:
                continue
            scores.div_(total)
            scores.scatter_add_(1, target, torch.full_like(target_score, -1))
            queries_grad[rows] = scale * (scores @ table)
            table_grad.addmm_(scores.T, q, alpha=scale)
        ctx.save_for_backward(queries_grad, table_grad)
        ctx.mark_non_differentiable(n_correct)
        return loss, n_correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries_grad, table_grad = ctx.saved_tensors
        return queries_grad * grads[0], table_grad * grads[0], None, None, None


def chunked_cross_entropy(
    queries: torch.Tensor,
    table: torch.Tensor,
    targets: torch.Tensor,
    *,
    scale: float,
    max_logits: int,
) -> CrossEntropySum:
    """Sum the cross-entropy of ``scale * queries @ table.T`` against the targets.

    Parameters
    ----------
    queries
        (M, d).
    table
        (V, d).
    targets
        (M,) int64 rows of the table.
    scale
        What the products are multiplied by (1 / temperature).
    max_logits
        Scores that are held at a time, backward pass included; at least one row of V is.
    """
    chunk_rows = max(1, max_logits // len(table))
    # Autocast would round the scores to bfloat16, and at a low temperature they are large.
    with torch.autocast(queries.device.type, enabled=False):
        loss, n_correct = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            queries.float(), table.float(), targets, scale, chunk_rows
        )
    return CrossEntropySum(loss, n_correct)
