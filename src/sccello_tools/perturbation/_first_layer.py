"""The first layer for copies of one cell that differ in a single token, without attention of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from sccello_tools.nn import EncoderLayer

# Above this weight, taking a key out of a softmax by subtraction would lose digits; there it is left out from the start.
_HEAVY = 0.5


class _Rest(NamedTuple):
    """What one query sees without its heaviest key."""

    key: torch.Tensor
    """(H, L) index of that key; -1 where no key is heavy."""
    logsumexp: torch.Tensor
    """(H, L) over the other keys."""
    output: torch.Tensor
    """(H, L, head_dim) mean of the other values."""


class FirstLayer:
    """What the copies of a cell share in the attention of the first layer.

    In copy j only token j is another one. For every other query i the softmax changes by the term of one key: with ``p`` the clean
    weight of key j, ``O`` the clean output and ``s'`` the new score, the output without key j is ``O + p / (1 - p) (O - v_j)``, and
    the new key enters it with weight ``sigmoid(s' - log of the sum of the other terms)``. Only query j attends anew.

    Parameters
    ----------
    layer
        The first layer.
    clean
        (L, d) its input for the cell as it is.
    masked
        (L, d) its input at each token if that token is ``<mask>``.
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
            self._rest = self._without_heaviest(scores)

    def copies(self, which: torch.Tensor) -> torch.Tensor:
        """Return the second layer's input, (n * L, d), for the copies whose tokens ``which`` (n,) are masked."""
        n, length = len(which), len(self.clean)
        rows = torch.arange(n, device=which.device)
        with torch.autocast(self.clean.device.type, enabled=False):
            attended = self._others(which)  # (n, L, H, head_dim)
            attended[rows, which] = self._own(which)
        x = self.clean.expand(n, length, -1).clone()
        x[rows, which] = self.masked[which]
        return self.layer.after_attention(attended.view(n * length, -1), x.view(n * length, -1))

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shape = (len(x), 3, self.layer.n_heads, self.layer.head_dim)
        qkv = functional.linear(x, self.layer.qkv.weight, self.layer.qkv.bias).view(shape)
        return qkv.permute(1, 2, 0, 3).contiguous().unbind(0)  # each (H, L, head_dim)

    def _without_heaviest(self, scores: torch.Tensor) -> _Rest | None:
        top = scores.max(-1)
        heavy = (top.values - self._logsumexp).exp() > _HEAVY
        if not heavy.any():
            return None
        others = scores.scatter(-1, top.indices[..., None], -math.inf)
        logsumexp = others.logsumexp(-1)
        output = (others - logsumexp[..., None]).exp() @ self._v
        return _Rest(top.indices.masked_fill(~heavy, -1), logsumexp, output)

    def _others(self, which: torch.Tensor) -> torch.Tensor:
        """Attention outputs (n, L, H, head_dim) of every query, right for all but the masked token's own."""
        old, new = self._v[:, which], self._v_new[:, which]  # (H, n, head_dim)
        p = (self._q @ self._k[:, which].mT - self._logsumexp[..., None]).exp_()  # (H, L, n)
        logsumexp = self._logsumexp[..., None]
        heavy = None if self._rest is None else self._rest.key[..., None] == which
        if heavy is not None and self._rest is not None:
            p = p.masked_fill_(heavy, 0)
            rest = torch.where(heavy, self._rest.logsumexp[..., None], logsumexp + (-p).log1p())
        else:
            rest = logsumexp + (-p).log1p()
        weight = torch.sigmoid(
            self._q @ self._k_new[:, which].mT - rest
        )  # (H, L, n), of the new key
        keep = (1 - weight) / (1 - p)
        out = self._spread(keep) * self._output.transpose(0, 1)  # (n, L, H, head_dim)
        out.addcmul_(self._spread(keep * p), self._row(old), value=-1)
        out.addcmul_(self._spread(weight), self._row(new))
        if heavy is not None and self._rest is not None:
            head, query, copy = heavy.nonzero(as_tuple=True)
            share = weight[head, query, copy, None]
            out[copy, query, head] = torch.lerp(
                self._rest.output[head, query], new[head, copy], share
            )
        return out

    def _own(self, which: torch.Tensor) -> torch.Tensor:
        """Attention output (n, H, head_dim) of the masked token itself."""
        index = which[None, :, None]
        scores = self._q_new[:, which] @ self._k.mT  # (H, n, L)
        own = (self._q_new[:, which] * self._k_new[:, which]).sum(-1, keepdim=True)
        weights = scores.scatter(-1, index.expand_as(own), own).softmax(-1)
        share = weights.gather(-1, index.expand_as(own))
        others = weights.scatter(-1, index.expand_as(own), torch.zeros_like(own))
        return (others @ self._v + share * self._v_new[:, which]).transpose(0, 1)

    @staticmethod
    def _spread(x: torch.Tensor) -> torch.Tensor:
        return x.permute(2, 1, 0).contiguous().unsqueeze(-1)  # (n, L, H, 1)

    @staticmethod
    def _row(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1).unsqueeze(1)  # (n, 1, H, head_dim)
