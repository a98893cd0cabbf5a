"""Attention of each sequence's first token alone, which needs neither keys nor values."""

from __future__ import annotations

import torch
from torch.nn import functional

from .attention import equal_length_runs


def attend_from_first(
    x: torch.Tensor,
    qkv_weight: torch.Tensor,
    qkv_bias: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    n_heads: int,
    dropout_p: float = 0.0,
) -> torch.Tensor:
    """Attend from each sequence's first token to its whole sequence.

    With one query per sequence the products can be taken in another order: a score
    ``q · (W_k x + b_k)`` is ``(W_k^T q) · x`` plus a constant that the softmax takes out, and a
    weighted mean of ``W_v x + b_v`` is ``W_v`` times the weighted mean of ``x``, plus ``b_v``. So no
    key and no value is ever computed: (n_heads · d) products a token rather than (2 · d · d).

    Parameters
    ----------
    x
        (T, d) hidden states of the packed sequences, none of them empty.
    qkv_weight
        (3 · d, d): the fused projection to queries, keys and values.
    qkv_bias
        (3 · d,).
    cu_seqlens
        (B + 1,) int32, from 0 to T.
    max_seqlen
        Longest sequence in tokens.
    n_heads
        Attention heads.
    dropout_p
        Share of attention weights to drop.

    Returns
    -------
    (B, d): the heads' outputs side by side, before the output projection.
    """
    # All of it in float32, whatever the precision of the rest: it is a small part of the work, and
    # scores rounded to bfloat16 before the softmax would be the coarsest numbers of the model.
    with torch.autocast(x.device.type, enabled=False):
        out = _attend_from_first(
            x.float(),
            qkv_weight.float(),
            qkv_bias.float(),
            cu_seqlens,
            max_seqlen,
            n_heads=n_heads,
            dropout_p=dropout_p,
        )
    return out.to(qkv_weight.dtype)


def _attend_from_first(
    x: torch.Tensor,
    qkv_weight: torch.Tensor,
    qkv_bias: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    n_heads: int,
    dropout_p: float,
) -> torch.Tensor:
    d = x.shape[1]
    head_dim = d // n_heads
    w_q, w_k, w_v = qkv_weight.chunk(3)
    b_q, _, b_v = qkv_bias.chunk(3)
    first = x[cu_seqlens[:-1].long()]
    q = functional.linear(first, w_q, b_q).view(-1, n_heads, head_dim) * head_dim**-0.5
    # W_k^T q, head by head
    queries = torch.einsum("bhe,hed->bhd", q, w_k.view(n_heads, head_dim, d))  # (B, n_heads, d)
    pool = _pool_by_runs if x.device.type == "cpu" else _pool_padded
    pooled = pool(x, queries, cu_seqlens, max_seqlen, dropout_p)  # (B, n_heads, d)
    out: torch.Tensor = torch.einsum("bhd,hed->bhe", pooled, w_v.view(n_heads, head_dim, d))
    return out.reshape(-1, d) + b_v


def _weighted_mean(
    queries: torch.Tensor, x: torch.Tensor, dropout_p: float, mask: torch.Tensor | None
) -> torch.Tensor:
    scores = queries @ x.transpose(1, 2)  # (n, n_heads, L)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], float("-inf"))
    weights = functional.dropout(scores.softmax(-1), dropout_p, training=dropout_p > 0)
    return weights @ x  # (n, n_heads, d)


def _pool_by_runs(
    x: torch.Tensor,
    queries: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,  # noqa: ARG001 - the other way needs it
    dropout_p: float,
) -> torch.Tensor:
    """Pool without padding, one call for each run of equal lengths."""
    pooled, done = [], 0
    for run in equal_length_runs(cu_seqlens):
        tokens = x[run.start : run.stop].view(run.n_sequences, run.length, -1)
        pooled.append(
            _weighted_mean(queries[done : done + run.n_sequences], tokens, dropout_p, None)
        )
        done += run.n_sequences
    return torch.cat(pooled)


def _pool_padded(
    x: torch.Tensor,
    queries: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    dropout_p: float,
) -> torch.Tensor:
    """Pool in a few large calls: on an accelerator launches cost more than padded rows."""
    offsets = torch.arange(max_seqlen, device=x.device)
    index = cu_seqlens[:-1, None] + offsets  # (B, max_seqlen)
    mask = offsets < cu_seqlens.diff()[:, None]
    return _weighted_mean(queries, x[index.clamp(max=len(x) - 1)], dropout_p, mask)
