"""In-silico perturbation, exact: every copy of a cell goes through the encoder, sharing what copies share."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional

from ._first_layer import FirstLayer

if TYPE_CHECKING:
    from sccello_tools.nn import AttentionFn, Encoder, EncoderLayer


def half_squared_distance(clean: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """Return ``1 - cosine`` of each row to one vector, right to all digits also where it is tiny.

    For unit vectors ``1 - u · v = |u - v|² / 2``; the left side loses everything below 1e-7 in float32, the right side does not.

    Parameters
    ----------
    clean
        (d,).
    changed
        (n, d).

    Returns
    -------
    (n,) float32, in [0, 2].
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
    """Score tokens of one cell: ``1 - cosine`` of the cell's ``<cls>`` row without and with ``<mask>`` in the token's place.

    The embedding is looked up once, the attention of the first layer is updated rather than computed (:class:`FirstLayer`), the
    middle layers see batches of copies of one length, and the last layer computes ``<cls>`` only.

    Parameters
    ----------
    encoder
        In evaluation mode.
    ids
        (L,) int64 tokens of the cell, ``<cls>`` first.
    which
        (n,) int64 positions to mask, none of them 0.
    attention
        Backend for the middle layers.
    batch_tokens
        Most tokens in a batch of copies; at least one copy is.

    Returns
    -------
    (n,) float32 scores.
    """
    length = len(ids)
    layers = cast("list[EncoderLayer]", list(encoder.layers))
    cu_seqlens = torch.tensor([0, length], dtype=torch.int32, device=ids.device)
    clean = encoder.embed(ids, cu_seqlens, length)
    masked = encoder.embed(torch.full_like(ids, encoder.config.mask_token_id), cu_seqlens, length)
    cls = encoder(ids, cu_seqlens, length, attention=attention, cls_only=True)[0]
    first = FirstLayer(layers[0], clean, masked) if len(layers) > 1 else None

    scores = []
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
        scores.append(half_squared_distance(cls, layers[-1].forward_first(x, bounds, length)))
    return torch.cat(scores) if scores else torch.zeros(0, device=ids.device)
