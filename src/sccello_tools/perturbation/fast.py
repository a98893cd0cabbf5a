"""Approximate masking of all genes of a cell: one pass for all of them and a few gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from sccello_tools.nn import Encoder, EncoderLayer

_MIN_TOTAL = 1e-6  # lower bound of the remaining softmax total, for sharp attention
_MAX_RATIO = 1e6  # upper bound of the weight of a new key relative to the old ones


def fast_scores(encoder: Encoder, ids: torch.Tensor, *, n_directions: int) -> torch.Tensor:
    """Approximate :func:`~sccello_tools.perturbation.exact.exact_scores` for all genes of a cell at the cost of a few passes.

    Parameters as for :func:`fast_differences`.

    Returns
    -------
    Tensor of shape (L - 1,), float32: scores of the tokens after ``<cls>``.
    """
    _, difference = fast_differences(encoder, ids, n_directions=n_directions)
    return difference.square().sum(-1).mul(0.5)


def fast_differences(
    encoder: Encoder, ids: torch.Tensor, *, n_directions: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Approximate the change of a cell's normalised ``<cls>`` row when each of its genes is masked.

    In each copy two rows change strongly, that of the masked token and ``<cls>``. Both are passed through all layers with their
    nonlinearities, against the other rows of the unchanged cell. The other rows change little, but their sum matters as much. Their
    change is computed in the first layer, where the masked token differs most (the softmax term of one key), and propagated to
    ``<cls>`` by gradients of the unchanged cell with fixed attention weights, along ``n_directions`` directions of the ``<cls>`` row:
    the principal directions of the first part, with all copies scaled to length 1, because a few genes of large effect would
    determine them otherwise. Neglected are second-order effects of the other rows, their changes in deeper layers, and components
    outside of the directions.

    Parameters
    ----------
    encoder
        Encoder in evaluation mode.
    ids
        Tokens of the cell, ``<cls>`` first, shape (L,), int64.
    n_directions
        Number of gradients; 0 neglects the effect through other rows.

    Returns
    -------
    The normalised ``<cls>`` row, shape (d,), and its change for each token after ``<cls>``, shape (L - 1, d), float32.
    """
    length = len(ids)
    layers = cast("list[EncoderLayer]", list(encoder.layers))
    cu_seqlens = torch.tensor([0, length], dtype=torch.int32, device=ids.device)
    with torch.inference_mode():
        clean = encoder.embed(ids, cu_seqlens, length)
        mask = torch.full_like(ids, encoder.config.mask_token_id)
        masked = encoder.embed(mask, cu_seqlens, length)[1:]
        states, cls = clean_pass(layers, clean)
        unit = functional.normalize(cls, dim=-1)  # (1, d)
        moved, token = _follow(layers, states, clean, masked)
        difference = functional.normalize(moved.double(), dim=-1) - unit.double()
        difference = difference.float()  # (n, d)
        n_directions = min(n_directions, length - 1, unit.shape[-1])
        if n_directions and len(layers) > 1:
            directions = _principal(difference, n_directions)  # (d, K)
            tangent = directions - unit.T @ (unit @ directions)  # of the unit vector
            gradient = (tangent / cls.norm()).T[:, None]  # (K, 1, d)
            for layer, state in zip(layers[:0:-1], states[:0:-1]):
                gradient = backward_to_input(layer, state, gradient)  # (K, L, d)
            along = backward_to_attention(layers[0], states[0], gradient)[1]
            difference += _through_others(states[0], token, along) @ directions.T
        return unit[0], difference


def _principal(difference: torch.Tensor, n_directions: int) -> torch.Tensor:
    """Return the (d, K) orthonormal principal directions of the rows, scaled to length 1."""
    rows = functional.normalize(difference, dim=-1)
    axes: torch.Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return axes[:, -n_directions:]


def _follow(
    layers: list[EncoderLayer], states: list[CleanLayer], clean: torch.Tensor, masked: torch.Tensor
) -> tuple[torch.Tensor, Heads]:
    """Pass the rows of the masked token and of ``<cls>`` through the layers; return the latter, (n, d), and the former's first heads.

    In copy ``c`` token ``c + 1`` is masked, so its entry of a matrix over copies and tokens is on the first superdiagonal.
    """
    own, cls = masked, clean[:1]  # one row of <cls>, until the copies differ in it
    tokens: list[Heads] = []
    for layer, state in zip(layers, states):
        token, first = heads_of(layer, own), heads_of(layer, cls)
        tokens.append(token)
        if layer is not layers[-1]:
            own = _finish(layer, _attend(state, token, first), own)
        cls = _finish(layer, _attend_from_first(state, token, first), cls.expand_as(masked))
    return cls, tokens[0]


def _finish(layer: EncoderLayer, output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return layer.after_attention(output.transpose(0, 1).reshape(x.shape), x)


def _attend(state: CleanLayer, token: Heads, first: Heads) -> torch.Tensor:
    """Attention of the masked token of each copy to the clean keys, with its own key and that of ``<cls>`` replaced."""
    q = token.q
    scores = q @ state.k.mT  # (H, n, L)
    scores[..., 0] = (q * first.k).sum(-1)
    scores.diagonal(1, -2, -1).copy_((q * token.k).sum(-1))
    weights = scores.softmax(-1)
    of_first = weights[..., :1].clone()
    of_token = weights.diagonal(1, -2, -1).clone()[..., None]
    weights[..., 0] = 0
    weights.diagonal(1, -2, -1).zero_()
    return (weights @ state.v).addcmul_(of_first, first.v).addcmul_(of_token, token.v)


def _attend_from_first(state: CleanLayer, token: Heads, first: Heads) -> torch.Tensor:
    """Attention of ``<cls>`` of each copy. Its query changes little, so a first-order step suffices for the clean keys.

    With weights ``w`` and output ``o`` of the clean query, a step ``s`` adds ``s · Cov_w(k, v)`` to ``o``, at a cost independent of
    the number of keys; then the terms of the two replaced keys are exchanged.
    """
    query, weights, output = state.q[:, :1], state.weights[:, :1], state.output[:, :1]
    step = first.q - query  # (H, n or 1, head_dim)
    mean = weights @ state.k  # (H, 1, head_dim)
    covariance = (state.k * weights.mT).mT @ state.v - mean.mT @ output  # (H, head_dim, head_dim)
    attended, total = output + step @ covariance, torch.ones_like(step[..., :1])
    old = [
        (state.k[:, 1:], state.v[:, 1:], weights[:, 0, 1:]),
        (state.k[:, :1], state.v[:, :1], weights[:, 0, :1]),
    ]
    for (k, v, weight), new in zip(old, (token, first)):
        clean = weight[..., None] * (step * (k - mean)).sum(-1, keepdim=True).exp()
        ratio = clean * (first.q * (new.k - k)).sum(-1, keepdim=True).exp().clamp(max=_MAX_RATIO)
        attended = attended - clean * v + ratio * new.v
        total = total - clean + ratio
    return attended / total.clamp_(min=_MIN_TOTAL)


def _through_others(state: CleanLayer, token: Heads, along: torch.Tensor) -> torch.Tensor:
    """Effect of the keys and values of the masked tokens through the other rows, along each direction: (n, K).

    ``along`` are the gradients at the attention outputs, (H, L, K, head_dim).
    """
    n_heads, _, n_directions, head_dim = along.shape
    logsumexp = (state.q @ state.k.mT).logsumexp(-1, keepdim=True)  # (H, L, 1)
    r = (state.q @ token.k.mT).sub_(logsumexp).exp_().clamp_(max=_MAX_RATIO)  # (H, L, n)
    p = state.weights[..., 1:]
    total = (r - p).add_(1).clamp_(min=_MIN_TOTAL)
    r, p = r.div_(total), p / total
    for weight in (p, r):  # rows that _follow computes
        weight[:, 0] = 0
        weight.diagonal(-1, -2, -1).zero_()
    flat = along.flatten(2)
    shape = (n_heads, -1, n_directions, head_dim)
    effect = ((r.mT @ flat).view(shape) * token.v[:, :, None]).sum((0, 3))
    effect -= ((p.mT @ flat).view(shape) * state.v[:, 1:, None]).sum((0, 3))
    output = (along * state.output[:, :, None]).sum(-1)  # (H, L, K)
    return effect.add_((p.sub_(r).mT @ output).sum(0))


class Heads(NamedTuple):
    """Queries (scaled), keys and values of some rows, each (H, n, head_dim)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


class Normed(NamedTuple):
    """State of a LayerNorm for its gradient."""

    x: torch.Tensor
    """(n, d) output before weight and bias."""
    scale: torch.Tensor
    """(n, 1) reciprocal of the standard deviation of the input."""


class CleanLayer(NamedTuple):
    """State of a layer for the unchanged cell; n is L, or 1 (``<cls>``) in the last layer."""

    q: torch.Tensor
    """(H, n, head_dim), scaled."""
    k: torch.Tensor
    """(H, L, head_dim)."""
    v: torch.Tensor
    weights: torch.Tensor
    """(H, n, L) softmax."""
    output: torch.Tensor
    """(H, n, head_dim)."""
    attention: Normed
    active: torch.Tensor
    """(n, intermediate) which feed-forward units are active."""
    feed_forward: Normed


def heads_of(layer: EncoderLayer, x: torch.Tensor) -> Heads:
    """Project the (n, d) input of a layer."""
    shape = (len(x), 3, layer.n_heads, layer.head_dim)
    q, k, v = layer.qkv(x).view(shape).permute(1, 2, 0, 3).unbind(0)  # (H, n, head_dim)
    return Heads(q * layer.head_dim**-0.5, k, v)


def clean_pass(
    layers: list[EncoderLayer], x: torch.Tensor
) -> tuple[list[CleanLayer], torch.Tensor]:
    """Pass the (L, d) embedded cell through the layers; return the state of each layer and the last ``<cls>`` row, (1, d)."""
    states = []
    for layer in layers:
        state, x = _layer(layer, x, cls_only=layer is layers[-1])
        states.append(state)
    return states, x


def backward_to_attention(
    layer: EncoderLayer, state: CleanLayer, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Propagate gradients (K, n, d) at a layer's output back to its attention.

    Returns
    -------
    Gradients at the layer's input through the residual connection, (K, n, d), and at the attention output, (H, n, K, head_dim).
    """
    g = _through_norm(gradient, layer.feed_forward_norm, state.feed_forward)
    h = (g @ layer.feed_forward_out.weight).mul_(state.active)
    g = g.add_(h @ layer.feed_forward_in.weight)
    g = _through_norm(g, layer.attention_norm, state.attention)
    shape = (*g.shape[:2], layer.n_heads, layer.head_dim)
    return g, (g @ layer.attention_out.weight).view(shape).permute(2, 1, 0, 3).contiguous()


def backward_to_input(
    layer: EncoderLayer, state: CleanLayer, gradient: torch.Tensor
) -> torch.Tensor:
    """Propagate gradients (K, n, d) at a layer's output back to its input, (K, L, d), with fixed attention weights."""
    residual, attended = backward_to_attention(layer, state, gradient)
    n_directions, n, width = residual.shape
    values = state.weights.mT @ attended.flatten(2)  # (H, L, K * head_dim)
    values = values.view(layer.n_heads, -1, n_directions, layer.head_dim)
    values = values.permute(2, 1, 0, 3).reshape(n_directions, -1, width)  # (K, L, d)
    out = values @ layer.qkv.weight[2 * width :]
    out[:, :n] += residual
    return out


def _layer(
    layer: EncoderLayer, x: torch.Tensor, *, cls_only: bool
) -> tuple[CleanLayer, torch.Tensor]:
    q, k, v = heads_of(layer, x)
    if cls_only:
        q, x = q[:, :1], x[:1]
    weights = (q @ k.mT).softmax(-1)
    output = weights @ v
    attended = layer.attention_out(output.transpose(0, 1).reshape(x.shape))
    x, attention = _norm(attended.add_(x), layer.attention_norm)
    h = layer.feed_forward_in(x)
    active = h > 0
    x, feed_forward = _norm(layer.feed_forward_out(h.relu_()).add_(x), layer.feed_forward_norm)
    return CleanLayer(q, k, v, weights, output, attention, active, feed_forward), x


def _norm(x: torch.Tensor, norm: torch.nn.LayerNorm) -> tuple[torch.Tensor, Normed]:
    out, mean, scale = torch.native_layer_norm(
        x, norm.normalized_shape, norm.weight, norm.bias, norm.eps
    )
    return out, Normed(x.sub(mean).mul_(scale), scale)


def _through_norm(g: torch.Tensor, norm: torch.nn.LayerNorm, state: Normed) -> torch.Tensor:
    g = g * norm.weight
    projection = (g * state.x).mean(-1, keepdim=True)
    return g.sub_(g.mean(-1, keepdim=True)).sub_(state.x * projection).mul_(state.scale)
