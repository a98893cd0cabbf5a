"""The encoder's forward pass in less memory: what the backward pass needs is computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

from sccello_tools.nn.attention import equal_length_runs

if TYPE_CHECKING:
    from sccello_tools.nn import AttentionFn, Encoder


def encode_hidden(
    encoder: Encoder,
    ids: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    attention: AttentionFn,
    cls_only: bool = False,
    recompute: bool = False,
) -> torch.Tensor:
    """Return last hidden states, as the encoder does.

    Parameters
    ----------
    encoder
        The encoder; other parameters are those of its ``forward``.
    ids, cu_seqlens, max_seqlen, attention, cls_only
        See :class:`~sccello_tools.nn.Encoder`.
    recompute
        Keep only each layer's input, and run the layer again in the backward pass.
    """
    if not recompute:
        out: torch.Tensor = encoder(
            ids, cu_seqlens, max_seqlen, attention=attention, cls_only=cls_only
        )
        return out
    x = checkpoint(encoder.embed, ids, cu_seqlens, max_seqlen, use_reentrant=False)
    for number, layer in enumerate(encoder.layers, start=1):
        if cls_only and number == len(encoder.layers):
            x = checkpoint(layer.forward_first, x, cu_seqlens, max_seqlen, use_reentrant=False)
        else:
            x = checkpoint(layer, x, cu_seqlens, max_seqlen, attention, use_reentrant=False)
    hidden: torch.Tensor = x
    return hidden


def cell_by_cell(attention: AttentionFn) -> AttentionFn:
    """Run an attention backend on one cell at a time and again in the backward pass.

    For a backend that holds a (length x length) matrix for each head and cell, such as torch's on a CPU with dropout: it then holds those
    of one cell.

    Parameters
    ----------
    attention
        The backend.
    """

    def run(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        *,
        dropout_p: float = 0.0,
    ) -> torch.Tensor:
        del max_seqlen
        outputs = []
        for cells in equal_length_runs(cu_seqlens):
            alone = torch.tensor([0, cells.length], dtype=torch.int32, device=q.device)
            for start in range(cells.start, cells.stop, cells.length):
                part = slice(start, start + cells.length)
                outputs.append(
                    checkpoint(
                        attention,
                        q[part],
                        k[part],
                        v[part],
                        alone,
                        cells.length,
                        dropout_p=dropout_p,
                        use_reentrant=False,
                    )
                )
        return torch.cat(outputs)

    return run
