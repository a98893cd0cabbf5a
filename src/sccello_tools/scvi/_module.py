"""Encoder and classifier as an scvi-tools module: inference, generative, loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import nn
from torch.nn import functional

from sccello_tools.engine import pack
from sccello_tools.nn import ScCelloModel, resolve_attention
from sccello_tools.tokens import Tokenizer

if TYPE_CHECKING:
    from typing import Any

    from sccello_tools.nn import EncoderConfig
    from sccello_tools.tokens import GeneMatch


class ScCelloModule(BaseModuleClass):  # type: ignore[misc]
    """A pretrained encoder and a linear layer on its ``<cls>`` embeddings.

    Parameters
    ----------
    config
        Size of the encoder.
    n_labels
        Number of labels of the classifier.
    genes
        Which gene each column of the count matrix is.
    """

    temperature: torch.Tensor

    def __init__(self, config: EncoderConfig, n_labels: int, genes: GeneMatch) -> None:
        super().__init__()
        self.network = ScCelloModel(config)
        self.classifier = nn.Linear(config.hidden_size, n_labels)
        # divisor of the logits, calibrated on the validation cells
        self.register_buffer("temperature", torch.ones(()))
        self.tokenizer = Tokenizer(genes, config.max_positions)

    def _get_inference_input(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    @auto_move_data  # type: ignore[untyped-decorator]
    def inference(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode (B, n_vars) counts as (B, d) ``<cls>`` embeddings ``z``; NaN for cells without counts in any gene of the vocabulary."""
        tokens = self.tokenizer(sparse.csr_array(x.detach().cpu().numpy()))
        full = np.flatnonzero(tokens.lengths > 0)
        z = x.new_full((len(tokens), self.network.config.hidden_size), torch.nan)
        if len(full):
            # adjacent cells of equal length can be processed by attention at once
            full = full[np.argsort(-tokens.lengths[full], kind="stable")]
            ids, cu_seqlens, max_seqlen = pack(tokens, full, x.device)
            dropout_p = self.network.config.attention_dropout if self.training else 0.0
            attention = resolve_attention("auto", x.device, torch.float32, dropout_p=dropout_p)
            rows = self.network.encode(ids, cu_seqlens, max_seqlen, attention=attention)
            z = z.index_copy(0, torch.from_numpy(full).to(x.device), rows.to(z.dtype))
        return {"z": z}

    def _get_generative_input(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        del tensors
        return {"z": inference_outputs["z"]}

    @auto_move_data  # type: ignore[untyped-decorator]
    def generative(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map (B, d) embeddings to (B, n_labels) ``logits``; the name is part of scvi-tools' interface."""
        return {"logits": self.classifier(z)}

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.Tensor],
    ) -> LossOutput:
        """Cross-entropy over the cells with a label and tokens."""
        del inference_outputs
        logits = generative_outputs["logits"]
        labels = tensors[REGISTRY_KEYS.LABELS_KEY].long().view(-1).to(logits.device)
        usable = (labels < logits.shape[1]) & logits.isfinite().all(dim=1)
        loss = functional.cross_entropy(logits[usable], labels[usable], reduction="sum")
        loss = loss / usable.sum().clamp(min=1)
        return LossOutput(
            loss=loss,
            classification_loss=loss,
            logits=logits,
            true_labels=labels,
            n_obs_minibatch=len(labels),
        )

    def sample(self, *args: Any, **kwargs: Any) -> None:
        """Raise an error: the model is not generative.

        Raises
        ------
        NotImplementedError
            Always.
        """
        del args, kwargs
        msg = "scCello is not generative and cannot sample counts. Use get_latent_representation() or predict()."
        raise NotImplementedError(msg)
