"""Attention over packed sequences: several kernels behind one signature."""

from __future__ import annotations

import importlib.util
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, cast

import torch
from torch.nn import functional

from sccello_tools._logging import logger
from sccello_tools.errors import BackendError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

AttentionName = Literal["auto", "flash", "torch_varlen", "sdpa"]
_HALF = (torch.bfloat16, torch.float16)


class AttentionFn(Protocol):
    """Bidirectional attention within each of several packed sequences."""

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        *,
        dropout_p: float = 0.0,
    ) -> torch.Tensor:
        """Map (T, n_heads, head_dim) queries, keys and values to outputs of that shape.

        ``cu_seqlens`` is (B + 1,) int32, from 0 to T; ``max_seqlen`` is the longest sequence in
        tokens; ``dropout_p`` is the share of attention weights to drop (training only).
        """
        ...


class Run(NamedTuple):
    """Neighbouring sequences of one length."""

    start: int
    """First token."""
    n_sequences: int
    length: int
    """Tokens of each sequence."""

    @property
    def stop(self) -> int:
        """First token after the run."""
        return self.start + self.n_sequences * self.length


def equal_length_runs(cu_seqlens: torch.Tensor) -> Iterator[Run]:
    """Walk over runs of neighbouring sequences that have the same length.

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


def sdpa_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,  # noqa: ARG001 - part of the signature that every backend shares
    *,
    dropout_p: float = 0.0,
) -> torch.Tensor:
    """Run torch's fused attention on views of the packed tensors, one call for each run of lengths.

    See :class:`AttentionFn` for the parameters. Works on every device and in every precision; no
    sequence is padded.
    """
    outputs = []
    for start, n_sequences, length in equal_length_runs(cu_seqlens):
        stop = start + n_sequences * length
        shape = (n_sequences, length, *q.shape[1:])
        query, key, value = (x[start:stop].view(shape).transpose(1, 2) for x in (q, k, v))
        out = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout_p
        )  # (n, H, L, D)
        outputs.append(out.transpose(1, 2).reshape(-1, *q.shape[1:]))  # (n * L, H, D)
    if not outputs:
        return torch.empty_like(q)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def flash_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    dropout_p: float = 0.0,
) -> torch.Tensor:
    """Run flash-attn's variable-length kernel; see :class:`AttentionFn` for the parameters."""
    from flash_attn import flash_attn_varlen_func

    out: torch.Tensor = flash_attn_varlen_func(
        q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p=dropout_p
    )
    return out


def torch_varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    dropout_p: float = 0.0,
) -> torch.Tensor:
    """Run torch's own variable-length kernel; see :class:`AttentionFn` for the parameters.

    Raises
    ------
    BackendError
        If dropout is asked for: this kernel has none.
    """
    if dropout_p:
        msg = f"torch_varlen cannot drop attention weights, dropout is {dropout_p}. Use 'flash' or 'sdpa', or attention_dropout=0."
        raise BackendError(msg)
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
    return cast("torch.Tensor", out)


BACKENDS: dict[str, AttentionFn] = {
    "flash": flash_attention,
    "torch_varlen": torch_varlen_attention,
    "sdpa": sdpa_attention,
}
"""Every backend by name, best first."""

_said: set[tuple[str, str]] = set()


def available_backends(
    device: torch.device | str, dtype: torch.dtype, *, dropout_p: float = 0.0
) -> list[str]:
    """Return the names of the backends that work here, best first.

    Parameters
    ----------
    device
        Where the tensors will be.
    dtype
        Precision of queries, keys and values.
    dropout_p
        Share of attention weights to be dropped.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.attention import available_backends
    >>> available_backends("cpu", torch.float32)
    ['sdpa']
    """
    return [
        name for name in BACKENDS if _obstacle(name, torch.device(device), dtype, dropout_p) is None
    ]


def resolve_attention(
    name: AttentionName, device: torch.device | str, dtype: torch.dtype, *, dropout_p: float = 0.0
) -> AttentionFn:
    """Return the attention backend of that name, or with ``"auto"`` the best that works here.

    Parameters
    ----------
    name
        ``"flash"``, ``"torch_varlen"``, ``"sdpa"`` or ``"auto"``, which is logged once.
    device
        Where the tensors will be.
    dtype
        Precision of queries, keys and values.
    dropout_p
        Share of attention weights that training will drop; not every backend can.

    Raises
    ------
    MissingExtraError
        If ``"flash"`` is asked for and flash-attn is not installed.
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
        if (chosen, str(device)) not in _said:
            _said.add((chosen, str(device)))
            logger.info("attention: %s on %s", chosen, device)
        return BACKENDS[chosen]
    if name not in BACKENDS:
        msg = f"Attention backend {name!r} is unknown; expected 'auto' or one of {list(BACKENDS)}."
        raise BackendError(msg)
    if obstacle := _obstacle(name, device, dtype, dropout_p):
        raise obstacle
    return BACKENDS[name]


def _obstacle(
    name: str, device: torch.device, dtype: torch.dtype, dropout_p: float
) -> Exception | None:
    """Say what keeps a backend from running, or None."""
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
        return BackendError(
            f"attention='torch_varlen' cannot drop attention weights, dropout is {dropout_p}. "
            "Use 'flash' or 'sdpa', or attention_dropout=0."
        )
    return None
