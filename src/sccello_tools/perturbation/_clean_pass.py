"""The unchanged cell, layer by layer, and the gradients of its last ``<cls>`` row, many directions in one walk back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from sccello_tools.nn import EncoderLayer


class Heads(NamedTuple):
    """Queries (scaled), keys and values of some rows, each (H, n, head_dim)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


class Normed(NamedTuple):
    """What the gradient of a LayerNorm needs."""

    x: torch.Tensor
    """(n, d) its output before weight and bias."""
    scale: torch.Tensor
    """(n, 1) one over the standard deviation of its input."""


class CleanLayer(NamedTuple):
    """One layer of the cell as it is, with what its gradients are taken by; n is L, in the last layer 1 for ``<cls>``."""

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
    """(n, intermediate) where the feed-forward unit is on."""
    feed_forward: Normed


def heads_of(layer: EncoderLayer, x: torch.Tensor) -> Heads:
    """Project the (n, d) input of a layer."""
    shape = (len(x), 3, layer.n_heads, layer.head_dim)
    q, k, v = layer.qkv(x).view(shape).permute(1, 2, 0, 3).unbind(0)  # (H, n, head_dim)
    return Heads(q * layer.head_dim**-0.5, k, v)


def walk(layers: list[EncoderLayer], x: torch.Tensor) -> tuple[list[CleanLayer], torch.Tensor]:
    """Take the (L, d) embedded cell through the layers; return each and the last ``<cls>`` row, (1, d)."""
    states = []
    for layer in layers:
        state, x = _layer(layer, x, cls_only=layer is layers[-1])
        states.append(state)
    return states, x


def attended_along(
    layer: EncoderLayer, state: CleanLayer, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take gradients (K, n, d) at a layer's output back to its attention.

    Returns
    -------
    Gradients at the layer's input by way of the residual, (K, n, d), and at the attention's output, (H, n, K, head_dim).
    """
    g = _through_norm(gradient, layer.feed_forward_norm, state.feed_forward)
    h = (g @ layer.feed_forward_out.weight).mul_(state.active)
    g = g.add_(h @ layer.feed_forward_in.weight)
    g = _through_norm(g, layer.attention_norm, state.attention)
    shape = (*g.shape[:2], layer.n_heads, layer.head_dim)
    return g, (g @ layer.attention_out.weight).view(shape).permute(2, 1, 0, 3).contiguous()


def input_along(layer: EncoderLayer, state: CleanLayer, gradient: torch.Tensor) -> torch.Tensor:
    """Take gradients (K, n, d) at a layer's output back to its input, (K, L, d), with the attention weights held."""
    residual, attended = attended_along(layer, state, gradient)
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
    along = (g * state.x).mean(-1, keepdim=True)
    return g.sub_(g.mean(-1, keepdim=True)).sub_(state.x * along).mul_(state.scale)
