"""In-silico perturbation, approximate: one walk for all tokens of a cell at once, and a few gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from sccello_tools.nn import Encoder
    from sccello_tools.nn.encoder import EncoderLayer


class _Clean(NamedTuple):
    """One layer of the cell as it is, with what the gradients are taken by."""

    q: torch.Tensor
    """(H, L, head_dim), scaled."""
    k: torch.Tensor
    v: torch.Tensor
    weights: torch.Tensor
    """(H, L, L) softmax."""
    logsumexp: torch.Tensor
    """(H, L)."""
    output: torch.Tensor
    """(H, L, head_dim)."""


class _Heads(NamedTuple):
    """Queries (scaled), keys and values of some rows, each (H, n, head_dim)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


def fast_scores(encoder: Encoder, ids: torch.Tensor, *, n_directions: int) -> torch.Tensor:
    """Approximate :func:`~sccello_tools.perturb.exact.exact_scores` for every gene of a cell at the cost of a few passes.

    In each copy two rows move far, that of the masked token and ``<cls>``; both are followed exactly through every layer, nonlinear
    as they are, against the other rows of the unchanged cell. What the masked token does to the other rows is computed exactly
    where it happens (the softmax term of one key), and carried from there to ``<cls>`` by the gradient of the unchanged cell, along
    the ``n_directions`` principal directions of the first part. Left out are the curvature of the other rows' small changes and
    their part outside of those directions.

    Parameters
    ----------
    encoder
        In evaluation mode.
    ids
        (L,) int64 tokens of the cell, ``<cls>`` first.
    n_directions
        Gradients to take; 0 leaves out the way over other rows.

    Returns
    -------
    (L - 1,) float32 scores of the tokens after ``<cls>``.
    """
    length = len(ids)
    which = torch.arange(1, length, device=ids.device)
    layers = cast("list[EncoderLayer]", list(encoder.layers))
    cu_seqlens = torch.tensor([0, length], dtype=torch.int32, device=ids.device)
    with torch.no_grad():
        clean = encoder.embed(ids, cu_seqlens, length)
        masked = encoder.embed(
            torch.full_like(ids, encoder.config.mask_token_id), cu_seqlens, length
        )[which]
    x = clean
    states: list[_Clean] = []
    with torch.set_grad_enabled(n_directions > 0):
        for layer in layers:
            last = layer is layers[-1]
            state, x = _clean_layer(layer, x, last=last, tracked=n_directions > 0)
            states.append(state)
    unit = functional.normalize(x[0], dim=-1)

    with torch.no_grad():
        moved, rows = _follow(layers, states, clean, masked, which)
        difference = functional.normalize(moved.double(), dim=-1) - unit.detach().double()
        difference = difference.float()
    n_directions = min(n_directions, len(which), len(unit))
    if n_directions == 0 or len(layers) == 1:
        return difference.square().sum(-1).mul(0.5)
    directions = torch.linalg.eigh(difference.T @ difference).eigenvectors[:, -n_directions:]
    outputs = [state.output for state in states[:-1]]
    gradients = [
        torch.autograd.grad(unit @ directions[:, i], outputs, retain_graph=i + 1 < n_directions)
        for i in range(n_directions)
    ]
    with torch.no_grad():
        for depth, (state, row) in enumerate(zip(states[:-1], rows)):
            gradient = torch.stack([g[depth] for g in gradients])  # (K, H, L, head_dim)
            difference += _through_others(state, row, gradient, which) @ directions.T
    return difference.square().sum(-1).mul(0.5)


def _project(layer: EncoderLayer, x: torch.Tensor) -> _Heads:
    shape = (len(x), 3, layer.n_heads, layer.head_dim)
    q, k, v = layer.qkv(x).view(shape).permute(1, 2, 0, 3).unbind(0)  # (H, n, head_dim)
    return _Heads(q * layer.head_dim**-0.5, k, v)


def _finish(layer: EncoderLayer, output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return layer._after_attention(output.transpose(0, 1).reshape(x.shape), x)


def _clean_layer(
    layer: EncoderLayer, x: torch.Tensor, *, last: bool, tracked: bool
) -> tuple[_Clean, torch.Tensor]:
    q, k, v = _project(layer, x)
    scores = (q[:, :1] if last else q) @ k.mT
    logsumexp = scores.logsumexp(-1)
    weights = (scores - logsumexp[..., None]).exp()
    output = weights @ v
    if tracked and not output.requires_grad:
        output.requires_grad_()  # weights that are frozen leave nothing to differentiate by
    state = _Clean(q, k, v, weights, logsumexp, output)
    return state, _finish(layer, output, x[:1] if last else x)


def _follow(
    layers: list[EncoderLayer],
    states: list[_Clean],
    clean: torch.Tensor,
    masked: torch.Tensor,
    which: torch.Tensor,
) -> tuple[torch.Tensor, list[_Heads]]:
    """Take the masked token's row and that of ``<cls>`` through the layers; returns the latter, (n, d), and the former's heads."""
    own, cls = masked, clean[:1].expand_as(masked)
    rows: list[_Heads] = []
    for layer, state in zip(layers, states):
        token, first = _project(layer, own), _project(layer, cls)
        rows.append(token)
        if layer is not layers[-1]:
            own = _finish(layer, _attend(token.q, state, token, first, which), own)
        cls = _finish(layer, _attend(first.q, state, token, first, which), cls)
    return cls, rows


def _attend(
    q: torch.Tensor, state: _Clean, token: _Heads, first: _Heads, which: torch.Tensor
) -> torch.Tensor:
    """Attend from one row of each copy to the clean keys, with those of the masked token and of ``<cls>`` replaced."""
    scores = q @ state.k.mT  # (H, n, L)
    index = torch.stack([torch.zeros_like(which), which], -1).expand(len(q), -1, -1)  # (H, n, 2)
    new = torch.stack([(q * first.k).sum(-1), (q * token.k).sum(-1)], -1)
    weights = scores.scatter_(-1, index, new).softmax(-1)
    share = weights.gather(-1, index)
    weights.scatter_(-1, index, torch.zeros_like(share))
    return weights @ state.v + share[..., :1] * first.v + share[..., 1:] * token.v


def _through_others(
    state: _Clean, token: _Heads, gradient: torch.Tensor, which: torch.Tensor
) -> torch.Tensor:
    """Effect of the masked tokens' keys and values at one layer, by way of the other rows, along each direction: (n, K)."""
    p = state.weights[:, :, which]  # (H, L, n)
    r = (state.q @ token.k.mT - state.logsumexp[..., None]).exp()
    r.clamp_(max=1e6)
    total = (1 - p).clamp_(min=1e-6) + r
    p, r = p / total, r / total
    # the two rows that are followed on their own
    copies = torch.arange(len(which), device=which.device)
    for weight in (p, r):
        weight[:, 0] = 0
        weight[:, which, copies] = 0
    along = (gradient * state.output).sum(-1)  # (K, H, L)
    old, new = (weight.mT @ gradient for weight in (p, r))  # (K, H, n, head_dim)
    effect = (new * token.v).sum((1, 3)) - (old * state.v[:, which]).sum((1, 3))
    effect += (along[:, :, None] @ (p - r)).sum((1, 2))
    return effect.T
