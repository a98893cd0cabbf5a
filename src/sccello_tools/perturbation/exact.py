"""Exact perturbation of a cell: every perturbed copy passes through the encoder, sharing what the copies have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sccello_tools.nn import AttentionFn, Encoder, EncoderLayer

# Above this attention weight, removing a key from a softmax by subtraction loses digits; such keys are excluded from the start.
_LARGE_WEIGHT = 0.5


class PerturbedRows(NamedTuple):
    """Last hidden states at ``<cls>`` of one cell."""

    clean: torch.Tensor
    """(d,) of the unchanged cell."""
    rows: torch.Tensor
    """(n, d) of its perturbed copies."""


def half_squared_distance(clean: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """Return ``1 - cosine`` of each row to one vector, accurate also for tiny values.

    For unit vectors ``1 - u · v = |u - v|² / 2``. In float32 the left side loses everything below 1e-7, the right side does not.

    Parameters
    ----------
    clean
        Vector of shape (d,).
    changed
        Rows, shape (n, d).

    Returns
    -------
    Tensor of shape (n,), float32, in [0, 2].
    """
    difference = functional.normalize(changed.double(), dim=-1) - functional.normalize(
        clean.double(), dim=-1
    )
    return difference.square().sum(-1).mul(0.5).float()


def exact_scores(
    encoder: Encoder,
    ids: torch.Tensor,
    which: torch.Tensor,
    *,
    attention: AttentionFn,
    batch_tokens: int,
) -> torch.Tensor:
    """Compute ``1 - cosine`` of a cell's ``<cls>`` row with and without ``<mask>`` in place of each of some tokens.

    Parameters as for :func:`masked_rows`.

    Returns
    -------
    Tensor of shape (n,), float32.
    """
    found = masked_rows(encoder, ids, which, attention=attention, batch_tokens=batch_tokens)
    return half_squared_distance(found.clean, found.rows)


def masked_rows(
    encoder: Encoder,
    ids: torch.Tensor,
    which: torch.Tensor,
    *,
    attention: AttentionFn,
    batch_tokens: int,
) -> PerturbedRows:
    """Mask each of some tokens of a cell in turn.

    Embeddings are looked up once, the attention of the first layer is updated instead of computed (:class:`SharedFirstLayer`), the
    middle layers process batches of copies of equal length, and the last layer computes the ``<cls>`` row only.

    Parameters
    ----------
    encoder
        Encoder in evaluation mode.
    ids
        Tokens of the cell, ``<cls>`` first, shape (L,), int64.
    which
        Positions to mask, none of them 0, shape (n,), int64.
    attention
        Backend of the middle layers.
    batch_tokens
        Maximum number of tokens in a batch of copies; a batch has at least one copy.
    """
    length = len(ids)
    layers = cast("list[EncoderLayer]", list(encoder.layers))
    cu_seqlens = torch.tensor([0, length], dtype=torch.int32, device=ids.device)
    clean = encoder.embed(ids, cu_seqlens, length)
    masked = encoder.embed(torch.full_like(ids, encoder.config.mask_token_id), cu_seqlens, length)
    cls = encoder(ids, cu_seqlens, length, attention=attention, cls_only=True)[0]
    if not len(which):
        return PerturbedRows(cls, cls[None][:0])
    first = SharedFirstLayer(layers[0], clean, masked) if len(layers) > 1 else None
    rows = []
    for part in torch.split(which, max(1, batch_tokens // length)):
        n = len(part)
        bounds = torch.arange(n + 1, dtype=torch.int32, device=ids.device) * length
        if first is None:
            x = clean.repeat(n, 1)
            x[bounds[:-1] + part] = masked[part]
        else:
            x = first.copies(part)
        for layer in layers[1:-1]:
            x = layer(x, bounds, length, attention)
        rows.append(layers[-1].forward_first(x, bounds, length))
    return PerturbedRows(cls, torch.cat(rows))


def edited_rows(
    encoder: Encoder,
    ids: NDArray[np.integer],
    copies: Sequence[NDArray[np.integer]],
    *,
    attention: AttentionFn,
    batch_tokens: int,
    device: torch.device,
) -> PerturbedRows:
    """Encode arbitrary copies of a cell, such as with deleted, inserted or several masked tokens.

    Copies are sorted by length and batched without padding; nothing else is shared, since a shifted position changes every token.

    Parameters
    ----------
    encoder
        Encoder in evaluation mode.
    ids
        Tokens of the cell, ``<cls>`` first.
    copies
        Tokens of each copy, ``<cls>`` first.
    attention
        Backend.
    batch_tokens
        Maximum number of tokens in a batch; a batch has at least one copy.
    device
        Device of the encoder.
    """

    def encode(sequences: Sequence[NDArray[np.integer]]) -> torch.Tensor:
        lengths = [len(sequence) for sequence in sequences]
        flat = torch.from_numpy(np.concatenate(sequences).astype(np.int64)).to(device)
        bounds = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        rows: torch.Tensor = encoder(
            flat, bounds.to(device), max(lengths), attention=attention, cls_only=True
        )
        return rows

    clean = encode([ids])[0]
    if not copies:
        return PerturbedRows(clean, clean[None][:0])
    rows = clean.new_zeros(len(copies), len(clean))
    order = np.argsort([-len(copy) for copy in copies], kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // len(copies[order[start]]))
        part = order[start : start + size]
        rows[torch.from_numpy(part).to(device)] = encode([copies[i] for i in part]).to(rows.dtype)
        start += len(part)
    return PerturbedRows(clean, rows)


class _WithoutLargest(NamedTuple):
    """Attention of each query without its key of largest weight."""

    key: torch.Tensor
    """(H, L) index of that key; -1 if its weight is not large."""
    logsumexp: torch.Tensor
    """(H, L) over the other keys."""
    output: torch.Tensor
    """(H, L, head_dim) mean of the other values."""


class SharedFirstLayer:
    r"""First layer for copies of one cell that differ in a single token.

    In copy :math:`j` only token :math:`j` differs. For every other query the softmax changes in one term: with :math:`p` the clean
    weight of key :math:`j`, :math:`o` the clean output and :math:`s'` the score of the new key, the output without key :math:`j` is
    :math:`o + \frac{p}{1 - p}(o - v_j)`, and the new key enters with weight :math:`\sigma(s' - \log \sum_{i \ne j} e^{s_i})`. Only query
    :math:`j` attends anew. This costs :math:`O(L d)` per copy instead of :math:`O(L^2 d)`.

    Parameters
    ----------
    layer
        The first layer.
    clean
        Its input for the unchanged cell, shape (L, d).
    masked
        Its input at each position if the token there is ``<mask>``, shape (L, d).
    """

    def __init__(self, layer: EncoderLayer, clean: torch.Tensor, masked: torch.Tensor) -> None:
        self.layer, self.clean, self.masked = layer, clean, masked
        with torch.autocast(clean.device.type, enabled=False):
            self._q, self._k, self._v = self._project(clean)  # (H, L, head_dim)
            self._q_new, self._k_new, self._v_new = self._project(masked)
            self._q, self._q_new = (q * layer.head_dim**-0.5 for q in (self._q, self._q_new))
            scores = self._q @ self._k.mT  # (H, L, L)
            self._logsumexp = scores.logsumexp(-1)  # (H, L)
            self._output = (scores - self._logsumexp[..., None]).exp() @ self._v
            self._without_largest = self._exclude_largest(scores)

    def copies(self, which: torch.Tensor) -> torch.Tensor:
        """Return the input of the second layer, (n * L, d), for copies whose tokens ``which`` (n,) are masked."""
        n, length = len(which), len(self.clean)
        rows = torch.arange(n, device=which.device)
        with torch.autocast(self.clean.device.type, enabled=False):
            attended = self._other_queries(which)  # (n, L, H, head_dim)
            attended[rows, which] = self._masked_query(which)
        x = self.clean.expand(n, length, -1).clone()
        x[rows, which] = self.masked[which]
        return self.layer.after_attention(attended.view(n * length, -1), x.view(n * length, -1))

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shape = (len(x), 3, self.layer.n_heads, self.layer.head_dim)
        qkv = functional.linear(x, self.layer.qkv.weight, self.layer.qkv.bias).view(shape)
        return qkv.permute(1, 2, 0, 3).contiguous().unbind(0)  # each (H, L, head_dim)

    def _exclude_largest(self, scores: torch.Tensor) -> _WithoutLargest | None:
        top = scores.max(-1)
        large = (top.values - self._logsumexp).exp() > _LARGE_WEIGHT
        if not large.any():
            return None
        others = scores.scatter(-1, top.indices[..., None], -math.inf)
        logsumexp = others.logsumexp(-1)
        output = (others - logsumexp[..., None]).exp() @ self._v
        return _WithoutLargest(top.indices.masked_fill(~large, -1), logsumexp, output)

    def _other_queries(self, which: torch.Tensor) -> torch.Tensor:
        """Attention outputs (n, L, H, head_dim), correct for all queries but the masked one."""
        old, new = self._v[:, which], self._v_new[:, which]  # (H, n, head_dim)
        p = (self._q @ self._k[:, which].mT - self._logsumexp[..., None]).exp_()  # (H, L, n)
        logsumexp = self._logsumexp[..., None]
        large = (
            None if self._without_largest is None else self._without_largest.key[..., None] == which
        )
        if large is not None and self._without_largest is not None:
            p = p.masked_fill_(large, 0)
            rest = torch.where(
                large, self._without_largest.logsumexp[..., None], logsumexp + (-p).log1p()
            )
        else:
            rest = logsumexp + (-p).log1p()
        # (H, L, n) weight of the new key
        weight = torch.sigmoid(self._q @ self._k_new[:, which].mT - rest)
        keep = (1 - weight) / (1 - p)
        out = self._by_copy(keep) * self._output.transpose(0, 1)  # (n, L, H, head_dim)
        out.addcmul_(self._by_copy(keep * p), self._values_by_copy(old), value=-1)
        out.addcmul_(self._by_copy(weight), self._values_by_copy(new))
        if large is not None and self._without_largest is not None:
            head, query, copy = large.nonzero(as_tuple=True)
            out[copy, query, head] = torch.lerp(
                self._without_largest.output[head, query],
                new[head, copy],
                weight[head, query, copy, None],
            )
        return out

    def _masked_query(self, which: torch.Tensor) -> torch.Tensor:
        """Attention output (n, H, head_dim) of the masked token."""
        index = which[None, :, None]
        scores = self._q_new[:, which] @ self._k.mT  # (H, n, L)
        own = (self._q_new[:, which] * self._k_new[:, which]).sum(-1, keepdim=True)
        weights = scores.scatter(-1, index.expand_as(own), own).softmax(-1)
        own_weight = weights.gather(-1, index.expand_as(own))
        others = weights.scatter(-1, index.expand_as(own), torch.zeros_like(own))
        return (others @ self._v + own_weight * self._v_new[:, which]).transpose(0, 1)

    @staticmethod
    def _by_copy(x: torch.Tensor) -> torch.Tensor:
        return x.permute(2, 1, 0).contiguous().unsqueeze(-1)  # (H, L, n) -> (n, L, H, 1)

    @staticmethod
    def _values_by_copy(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1).unsqueeze(1)  # (H, n, head_dim) -> (n, 1, H, head_dim)
