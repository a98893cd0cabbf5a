"""Attention on packed sequences: several backends with one signature."""

from __future__ import annotations

import importlib.util
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, cast

import torch
from torch.nn import functional

from sccello_tools._logging import logger
from sccello_tools.errors import BackendError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

AttentionName = Literal["auto", "flash", "torch_varlen", "sdpa"]
_HALF = (torch.bfloat16, torch.float16)
# wastes up to a quarter of a block's attention, for at most 57 calls at 2,048 positions
_MAX_PADDING = 1 / 8
_MULTIPLE = 8  # masks and rows of this alignment suit the tensor cores of a GPU


class AttentionFn(Protocol):
    """Bidirectional attention within each of several packed sequences."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        *,
        dropout_p: float = 0.0,
    ) -> Tensor:
        """Map (T, n_heads, head_dim) queries, keys and values to outputs of that shape.

        ``cu_seqlens`` is (B + 1,) int32, from 0 to T; ``max_seqlen`` is the longest sequence in
        tokens; ``dropout_p`` is the dropout probability of attention weights (training only).
        """
        ...


class Run(NamedTuple):
    """Consecutive sequences of equal length."""

    start: int
    """First token."""
    n_sequences: int
    length: int
    """Tokens of each sequence."""

    @property
    def stop(self) -> int:
        """First token after the run."""
        return self.start + self.n_sequences * self.length


class Block(NamedTuple):
    """Sequences of similar length that share one attention call."""

    sequences: Tensor
    """(n,) int64 indices of the sequences."""
    length: int
    """Tokens that each is padded to."""


def equal_length_runs(cu_seqlens: Tensor) -> Iterator[Run]:
    """Iterate over runs of consecutive sequences of equal length, which are views that need no padding.

    Parameters
    ----------
    cu_seqlens
        (B + 1,) int32, from 0 to T.
    """
    start = 0
    for length, group in groupby(cu_seqlens.diff().tolist()):
        run = Run(start, sum(1 for _ in group), length)
        yield run
        start = run.stop


def split_runs(x: Tensor, runs: Sequence[Run]) -> tuple[Tensor, ...]:
    """Split packed tokens, (T, ...), into those of each run.

    Slices would give the same values, but the gradient of each slice is a tensor of the size of ``x``: the backward pass would cost
    O(T) per run instead of O(T) in all.
    """
    return torch.split(x, [run.stop - run.start for run in runs])


def length_blocks(cu_seqlens: Tensor, *, max_padding: float = _MAX_PADDING) -> list[Block]:
    """Group sequences by length so that no sequence is padded by more than a fraction of the block's length.

    The number of blocks grows with the logarithm of the ratio between the longest and the shortest sequence, not with
    the number of distinct lengths.

    Parameters
    ----------
    cu_seqlens
        (B + 1,) int32, from 0 to T.
    max_padding
        Largest fraction of padding in a row, before its length is rounded up to a multiple of 8.
    """
    lengths, order = cu_seqlens.diff().sort(descending=True, stable=True)
    values, blocks, start = lengths.tolist(), list[Block](), 0
    for stop in range(1, len(values) + 1):
        if stop == len(values) or values[stop] < (1 - max_padding) * values[start]:
            padded = -(-values[start] // _MULTIPLE) * _MULTIPLE
            blocks.append(Block(order[start:stop], padded))
            start = stop
    return blocks


def sdpa_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, *, dropout_p: float = 0.0
) -> Tensor:
    """Run ``torch.nn.functional.scaled_dot_product_attention``; see :class:`AttentionFn` for the parameters.

    Works on every device and in every precision. A CPU gets one call per run of equal lengths, without padding; an
    accelerator, where launching a kernel costs more than padding, gets one call per block of similar lengths.
    """
    if q.device.type == "cpu":
        return sdpa_by_runs(q, k, v, cu_seqlens, max_seqlen, dropout_p=dropout_p)
    return sdpa_by_blocks(q, k, v, cu_seqlens, max_seqlen, dropout_p=dropout_p)


def sdpa_by_runs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,  # noqa: ARG001 - part of the common signature
    *,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attend with one call per run of equal lengths, on views of the packed tensors."""
    outputs = []
    runs = list(equal_length_runs(cu_seqlens))
    for run, *parts in zip(runs, *(split_runs(x, runs) for x in (q, k, v)), strict=True):
        shape = (run.n_sequences, run.length, *q.shape[1:])
        # (n * L, H, D) -> (n, L, H, D) -> (n, H, L, D)
        query, key, value = (x.view(shape).transpose(1, 2) for x in parts)
        out = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout_p)
        outputs.append(out.transpose(1, 2).reshape(-1, *q.shape[1:]))  # (n * L, H, D)
    if not outputs:
        return torch.empty_like(q)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def sdpa_by_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,  # noqa: ARG001 - part of the common signature
    *,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attend with one call per block of similar lengths, padded keys masked and padded queries dropped."""
    n_tokens = len(q)
    rows, places = [], []
    for block in length_blocks(cu_seqlens):
        starts = cu_seqlens[block.sequences].long()  # (n,)
        lengths = cu_seqlens[block.sequences + 1].long() - starts
        offsets = torch.arange(block.length, device=q.device)
        real = offsets < lengths[:, None]  # (n, L)
        token = starts[:, None] + offsets * real  # (n, L); padding repeats the first token
        # (T, H, D) -> (n, L, H, D) -> (n, H, L, D)
        query, key, value = (x[token].transpose(1, 2) for x in (q, k, v))
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=real[:, None, None], dropout_p=dropout_p
        )
        rows.append(out.transpose(1, 2).flatten(0, 1))  # (n, H, L, D) -> (n * L, H, D)
        places.append(torch.where(real, token, n_tokens).flatten())  # (n * L,)
    if not rows:
        return torch.empty_like(q)
    padded = torch.cat(rows)
    # The extra row takes the padded queries: selecting the others would make the host wait for the device.
    packed = padded.new_empty((n_tokens + 1, *q.shape[1:]))
    return packed.index_copy(0, torch.cat(places), padded)[:-1]


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, *, dropout_p: float = 0.0
) -> Tensor:
    """Run flash-attn's variable-length kernel; see :class:`AttentionFn` for the parameters."""
    from flash_attn import flash_attn_varlen_func

    out: Tensor = flash_attn_varlen_func(
        q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p=dropout_p
    )
    return out


def torch_varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, *, dropout_p: float = 0.0
) -> Tensor:
    """Run torch's own variable-length kernel; see :class:`AttentionFn` for the parameters.

    Raises
    ------
    BackendError
        If ``dropout_p`` is not 0: this kernel has no dropout.
    """
    if dropout_p:
        raise _no_dropout(dropout_p)
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
    return cast("Tensor", out)


BACKENDS: dict[str, AttentionFn] = {
    "flash": flash_attention,
    "torch_varlen": torch_varlen_attention,
    "sdpa": sdpa_attention,
}
"""All backends by name, fastest first."""

_logged: set[tuple[str, str]] = set()


def available_backends(
    device: torch.device | str, dtype: torch.dtype, *, dropout_p: float = 0.0
) -> list[str]:
    """Return the names of the backends available for a device and precision, fastest first.

    Parameters
    ----------
    device
        Device of the tensors.
    dtype
        Precision of queries, keys and values.
    dropout_p
        Dropout probability of attention weights.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.attention import available_backends
    >>> available_backends("cpu", torch.float32)
    ['sdpa']
    """
    return [
        name
        for name in BACKENDS
        if _unavailable(name, torch.device(device), dtype, dropout_p) is None
    ]


def resolve_attention(
    name: AttentionName, device: torch.device | str, dtype: torch.dtype, *, dropout_p: float = 0.0
) -> AttentionFn:
    """Return an attention backend by name, or the fastest available one with ``"auto"``.

    Parameters
    ----------
    name
        ``"flash"``, ``"torch_varlen"``, ``"sdpa"`` or ``"auto"``; the choice of ``"auto"`` is logged once.
    device
        Device of the tensors.
    dtype
        Precision of queries, keys and values.
    dropout_p
        Dropout probability of attention weights; not every backend supports it.

    Raises
    ------
    MissingExtraError
        If the name is ``"flash"`` and flash-attn is not installed.
    BackendError
        If the backend is unknown or cannot run on this device or in this precision.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.attention import resolve_attention, sdpa_attention
    >>> resolve_attention("auto", "cpu", torch.float32) is sdpa_attention
    True
    """
    device = torch.device(device)
    if name == "auto":
        chosen = available_backends(device, dtype, dropout_p=dropout_p)[0]
        if (chosen, str(device)) not in _logged:
            _logged.add((chosen, str(device)))
            logger.info("attention: %s on %s", chosen, device)
        return BACKENDS[chosen]
    if name not in BACKENDS:
        msg = f"Unknown attention backend {name!r}; must be 'auto' or one of {list(BACKENDS)}."
        raise BackendError(msg)
    if error := _unavailable(name, device, dtype, dropout_p):
        raise error
    return BACKENDS[name]


def _unavailable(
    name: str, device: torch.device, dtype: torch.dtype, dropout_p: float
) -> Exception | None:
    """Return the error that explains why a backend cannot run, or None."""
    if name == "sdpa":
        return None
    if name == "flash" and importlib.util.find_spec("flash_attn") is None:
        return MissingExtraError("attention='flash'", extra="flash")
    if device.type != "cuda":
        return BackendError(
            f"attention={name!r} needs a CUDA device, found {device.type!r}. Use 'sdpa' or 'auto'."
        )
    if name == "torch_varlen" and importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return BackendError(
            f"attention='torch_varlen' needs torch 2.10 or later, found {torch.__version__}. Use 'sdpa'."
        )
    if dtype not in _HALF:
        return BackendError(
            f"attention={name!r} needs bfloat16 or float16, found {dtype}. Use 'sdpa' or 'auto'."
        )
    if name == "torch_varlen" and dropout_p:
        return _no_dropout(dropout_p)
    return None


def _no_dropout(dropout_p: float) -> BackendError:
    return BackendError(
        f"attention='torch_varlen' does not support attention dropout, found {dropout_p}. Use 'flash' or 'sdpa', or attention_dropout=0."
    )
