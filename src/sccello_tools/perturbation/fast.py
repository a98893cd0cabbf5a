"""In-silico perturbation, approximate: one walk for all tokens of a cell at once, and a few gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional

from ._clean_pass import attended_along, heads_of, input_along, walk

if TYPE_CHECKING:
    from sccello_tools.nn import Encoder, EncoderLayer

    from ._clean_pass import CleanLayer, Heads

_LIGHTEST = 1e-6  # least share of a softmax that is left to divide by, where attention is sharp
_HEAVIEST = 1e6  # most weight of a new key over the old ones together


def fast_scores(encoder: Encoder, ids: torch.Tensor, *, n_directions: int) -> torch.Tensor:
    """Approximate :func:`~sccello_tools.perturbation.exact.exact_scores` for every gene of a cell at the cost of a few passes.

    In each copy two rows move far, that of the masked token and ``<cls>``; both are followed through every layer, nonlinear as they
    are, against the other rows of the unchanged cell. The other rows change a little and all together matter as much. Their change
    is computed where the masked token differs most from what it was, in the first layer (the softmax term of one key), and carried
    to ``<cls>`` by the gradient of the unchanged cell with its attention weights held, along ``n_directions`` directions of the
    ``<cls>`` row: the principal ones of the first part, each copy's counted with length 1, for else the few genes that move the
    cell most would choose them all. Left out are the curvature of the other rows' changes, their changes in deeper layers, and what
    lies outside of the directions.

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
    layers = cast("list[EncoderLayer]", list(encoder.layers))
    cu_seqlens = torch.tensor([0, length], dtype=torch.int32, device=ids.device)
    with torch.inference_mode():
        clean = encoder.embed(ids, cu_seqlens, length)
        mask = torch.full_like(ids, encoder.config.mask_token_id)
        masked = encoder.embed(mask, cu_seqlens, length)[1:]
        states, cls = walk(layers, clean)
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
                gradient = input_along(layer, state, gradient)  # (K, L, d)
            along = attended_along(layers[0], states[0], gradient)[1]
            difference += _through_others(states[0], token, along) @ directions.T
        scores: torch.Tensor = difference.square().sum(-1).mul(0.5)
        return scores


def _principal(difference: torch.Tensor, n_directions: int) -> torch.Tensor:
    """Orthonormal (d, K) that hold most of the rows' directions, whatever the rows' lengths."""
    rows = functional.normalize(difference, dim=-1)
    axes: torch.Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return axes[:, -n_directions:]


def _follow(
    layers: list[EncoderLayer], states: list[CleanLayer], clean: torch.Tensor, masked: torch.Tensor
) -> tuple[torch.Tensor, Heads]:
    """Take the masked token's row and that of ``<cls>`` through the layers; return the latter, (n, d), and the former's first heads.

    Copy ``c`` is the one in which token ``c + 1`` is masked, so that its own entry of a matrix over copies and tokens lies on the
    first diagonal above the main one.
    """
    own, cls = masked, clean[:1]  # of `<cls>` one row, until the copies differ in it
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
    """Attend from the masked token of each copy to the clean keys, with its own and that of ``<cls>`` replaced."""
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
    """Attend from ``<cls>`` of each copy. Its query moves little, so that a first-order step serves for the clean keys.

    With weights ``w`` and output ``O`` of the clean query, a step ``s`` adds ``s · Cov_w(k, v)`` to ``O``, which costs the same for
    any number of keys; then the terms of the two replaced keys are exchanged.
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
        ratio = clean * (first.q * (new.k - k)).sum(-1, keepdim=True).exp().clamp(max=_HEAVIEST)
        attended = attended - clean * v + ratio * new.v
        total = total - clean + ratio
    return attended / total.clamp_(min=_LIGHTEST)


def _through_others(state: CleanLayer, token: Heads, along: torch.Tensor) -> torch.Tensor:
    """Effect of the masked tokens' keys and values, by way of the other rows, along each direction: (n, K).

    ``along`` is (H, L, K, head_dim), the gradients at the layer's attention outputs.
    """
    n_heads, _, n_directions, head_dim = along.shape
    logsumexp = (state.q @ state.k.mT).logsumexp(-1, keepdim=True)  # (H, L, 1)
    r = (state.q @ token.k.mT).sub_(logsumexp).exp_().clamp_(max=_HEAVIEST)  # (H, L, n)
    p = state.weights[..., 1:]
    total = (r - p).add_(1).clamp_(min=_LIGHTEST)
    r, p = r.div_(total), p / total
    for weight in (p, r):  # the two rows that are followed on their own
        weight[:, 0] = 0
        weight.diagonal(-1, -2, -1).zero_()
    flat = along.flatten(2)
    shape = (n_heads, -1, n_directions, head_dim)
    effect = ((r.mT @ flat).view(shape) * token.v[:, :, None]).sum((0, 3))
    effect -= ((p.mT @ flat).view(shape) * state.v[:, 1:, None]).sum((0, 3))
    output = (along * state.output[:, :, None]).sum(-1)  # (H, L, K)
    return effect.add_((p.sub_(r).mT @ output).sum(0))
