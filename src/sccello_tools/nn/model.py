"""The whole model: encoder, heads, prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

from sccello_tools.errors import ConfigError

from .encoder import Encoder
from .heads import Head

if TYPE_CHECKING:
    from .attention import AttentionFn
    from .config import EncoderConfig

Representation = Literal["cls", "cell"]


class ScCelloModel(nn.Module):
    """scCello: an encoder of rank-ordered genes with a gene head, a cell head and prototypes.

    Parameters
    ----------
    config
        Size and constants. Weights are drawn from torch's global generator: seed it first.

    Examples
    --------
    >>> from sccello_tools.nn import EncoderConfig, ScCelloModel
    >>> sum(p.numel() for p in ScCelloModel(EncoderConfig()).parameters())
    10681094
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        d = config.hidden_size
        self.encoder = Encoder(config)
        self.cls = Head(config)
        """Genes: hidden state or word embedding to the space where the two are compared."""
        self.cell_cls = Head(config)
        """Cells: last hidden state at ``<cls>`` to the space of the prototypes."""
        self.learned_centroid = nn.Embedding(config.n_prototypes, d)
        self.affine_projection = nn.Linear(d, d)
        # Nothing uses these six numbers; the published weights hold them.
        self.binary_ce_loss_transform_cell = nn.Linear(1, 1)
        self.binary_ce_loss_transform_prototype = nn.Linear(1, 1)
        self.binary_ce_loss_transform_cellprot = nn.Linear(1, 1)
        self.apply(self._init_weights)
        nn.init.normal_(self.encoder.legacy_embeddings, std=config.initializer_range)

    def _init_weights(self, module: nn.Module) -> None:
        """Draw fresh weights as BERT does: normal, biases 0, LayerNorm 1 and 0, ``<pad>`` 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if module is self.encoder.word_embeddings:
            with torch.no_grad():
                self.encoder.word_embeddings.weight[self.config.pad_token_id] = 0

    @property
    def word_embeddings(self) -> torch.Tensor:
        """(vocab_size, d) word embeddings."""
        return self.encoder.word_embeddings.weight

    def encode(
        self,
        ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        *,
        representation: Representation = "cls",
        attention: AttentionFn,
    ) -> torch.Tensor:
        """Return one vector for each sequence.

        Parameters
        ----------
        ids
            (T,) int64 token ids of all sequences, each led by ``<cls>``, without padding.
        cu_seqlens
            (B + 1,) int32 bounds of the sequences.
        max_seqlen
            Longest sequence in tokens.
        representation
            ``"cls"``: last hidden state at ``<cls>``; ``"cell"``: ``cell_cls`` of it, unit length.
        attention
            A backend from :func:`~sccello_tools.nn.attention.resolve_attention`.

        Returns
        -------
        (B, d) float32.

        Raises
        ------
        ConfigError
            If the representation is unknown or a sequence is too long.

        Examples
        --------
        >>> import torch
        >>> from sccello_tools.nn import EncoderConfig, ScCelloModel, sdpa_attention
        >>> model = ScCelloModel(EncoderConfig(vocab_size=50, cls_token_id=49, hidden_size=16)).eval()
        >>> ids, cu_seqlens = torch.tensor([49, 3, 4, 49, 5]), torch.tensor([0, 3, 5], dtype=torch.int32)
        >>> model.encode(ids, cu_seqlens, 3, representation="cell", attention=sdpa_attention).shape
        torch.Size([2, 16])
        """
        if representation not in {"cls", "cell"}:
            msg = f"representation is {representation!r}, expected 'cls' or 'cell'."
            raise ConfigError(msg)
        hidden: torch.Tensor = self.encoder(
            ids, cu_seqlens, max_seqlen, attention=attention, cls_only=True
        )
        if representation == "cls":
            return hidden.float()
        return self.cell_representation(hidden)

    def cell_representation(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (B, d) hidden states at ``<cls>`` to (B, d) float32 unit vectors (``cell_cls``)."""
        return functional.normalize(self.cell_cls(hidden).float(), dim=-1)
