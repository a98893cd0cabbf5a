"""The neural network: tokens to hidden states, embeddings and losses. Depends on torch only."""

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
from .losses import (
    LossAndAccuracy,
    MaskedTokens,
    coherence_loss,
    mask_tokens,
    masked_gene_loss,
    ontology_alignment_loss,
    ontology_coherence_loss,
    prototype_regularization,
)
from .model import Encoder, EncoderLayer, Representation, ScCelloModel

__all__ = [
    "AttentionFn",
    "AttentionName",
    "Encoder",
    "EncoderConfig",
    "EncoderLayer",
    "LossAndAccuracy",
    "MaskedTokens",
    "Representation",
    "ScCelloModel",
    "available_backends",
    "coherence_loss",
    "load_checkpoint",
    "mask_tokens",
    "masked_gene_loss",
    "ontology_alignment_loss",
    "ontology_coherence_loss",
    "prototype_regularization",
    "resolve_attention",
    "save_checkpoint",
    "sdpa_attention",
]
