"""The neural network: arrays of tokens in, tensors out; nothing but torch."""

from __future__ import annotations

from .attention import (
    AttentionFn,
    AttentionName,
    available_backends,
    resolve_attention,
    sdpa_attention,
)
from .checkpoint import load_checkpoint, save_checkpoint
from .config import EncoderConfig
from .encoder import Encoder
from .model import Representation, ScCelloModel

__all__ = [
    "AttentionFn",
    "AttentionName",
    "Encoder",
    "EncoderConfig",
    "Representation",
    "ScCelloModel",
    "available_backends",
    "load_checkpoint",
    "resolve_attention",
    "save_checkpoint",
    "sdpa_attention",
]
