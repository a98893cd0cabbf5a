"""The packed encoder: post-LayerNorm BERT on a flat stream of tokens, without padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from sccello_tools.errors import ConfigError

from .pooling import attend_from_first

if TYPE_CHECKING:
    from .attention import AttentionFn
    from .config import EncoderConfig


class EncoderLayer(nn.Module):
    """One layer: attention, add and norm, feed-forward, add and norm.

    Parameters
    ----------
    config
        Size and constants.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.n_heads, self.head_dim = config.n_heads, config.head_dim
        self.dropout, self.attention_dropout = config.dropout, config.attention_dropout
        self.qkv = nn.Linear(d, 3 * d)
        self.attention_out = nn.Linear(d, d)
        self.attention_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.feed_forward_in = nn.Linear(d, config.intermediate_size)
        self.feed_forward_out = nn.Linear(config.intermediate_size, d)
        self.feed_forward_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)

    def forward(
        self, x: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, attention: AttentionFn
    ) -> torch.Tensor:
        """Map (T, d) hidden states to those of the next layer."""
        qkv = self.qkv(x).view(-1, 3, self.n_heads, self.head_dim)  # (T, 3, n_heads, head_dim)
        q, k, v = qkv.unbind(1)
        dropout_p = self.attention_dropout if self.training else 0.0
        attended = attention(q, k, v, cu_seqlens, max_seqlen, dropout_p=dropout_p)
        return self._after_attention(attended.reshape(x.shape), x)

    def forward_first(
        self, x: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> torch.Tensor:
        """Map (T, d) hidden states to the next layer's at each sequence's first token, (B, d)."""
        dropout_p = self.attention_dropout if self.training else 0.0
        attended = attend_from_first(
            x,
            self.qkv.weight,
            self.qkv.bias,
            cu_seqlens,
            max_seqlen,
            n_heads=self.n_heads,
            dropout_p=dropout_p,
        )
        return self._after_attention(attended, x[cu_seqlens[:-1].long()])

    def _after_attention(self, attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        x = self._add_and_norm(self.attention_out(attended), x, self.attention_norm)
        h = self.feed_forward_out(functional.relu_(self.feed_forward_in(x)))
        return self._add_and_norm(h, x, self.feed_forward_norm)

    def _add_and_norm(
        self, h: torch.Tensor, residual: torch.Tensor, norm: nn.LayerNorm
    ) -> torch.Tensor:
        h = functional.dropout(h, self.dropout, self.training)
        # `h` is the output of a linear map that nothing else reads, so the sum can take its place;
        # under autocast the residual is the wider of the two and the sum must be as wide.
        total = h.add_(residual) if h.dtype == residual.dtype else residual + h
        out: torch.Tensor = norm(total)
        return out


class Encoder(nn.Module):
    """Embeddings and layers (METHOD "Encoder", arXiv 2408.12373).

    Every tensor is flat, (T, …) with T the tokens of all sequences together, so that cost follows
    real tokens.

    Parameters
    ----------
    config
        Size and constants.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        d = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, d)
        self.position_embeddings = nn.Embedding(config.max_positions, d)
        # Row 0 of three tables that the published model carries and adds to every token alike.
        self.legacy_embeddings = nn.Parameter(torch.zeros(3, d))
        self.norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))

    def forward(
        self,
        ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        *,
        attention: AttentionFn,
        cls_only: bool = False,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the last hidden states.

        Parameters
        ----------
        ids
            (T,) int64 token ids of all sequences, one after the other, without padding.
        cu_seqlens
            (B + 1,) int32: sequence ``i`` is ``ids[cu_seqlens[i]:cu_seqlens[i + 1]]``.
        max_seqlen
            Longest sequence in tokens.
        attention
            A backend from :func:`~sccello_tools.nn.attention.resolve_attention`.
        cls_only
            Return only each sequence's first token, (B, d); the last layer then does next to
            nothing for the other tokens.
        inputs_embeds
            (T, d) in place of the word embeddings of ``ids``.

        Returns
        -------
        (T, d) hidden states after the last layer, or (B, d) with ``cls_only``.

        Raises
        ------
        ConfigError
            If a sequence is longer than the model's positions.

        Examples
        --------
        >>> import torch
        >>> from sccello_tools.nn import Encoder, EncoderConfig, sdpa_attention
        >>> encoder = Encoder(EncoderConfig(vocab_size=50, cls_token_id=49, hidden_size=16)).eval()
        >>> ids, cu_seqlens = torch.tensor([49, 3, 4, 49, 5]), torch.tensor([0, 3, 5], dtype=torch.int32)
        >>> encoder(ids, cu_seqlens, 3, attention=sdpa_attention, cls_only=True).shape
        torch.Size([2, 16])
        """
        x = self.embed(ids, cu_seqlens, max_seqlen, inputs_embeds=inputs_embeds)
        *first, last = cast("list[EncoderLayer]", list(self.layers))
        for layer in first:
            x = layer(x, cu_seqlens, max_seqlen, attention)
        if cls_only:
            return last.forward_first(x, cu_seqlens, max_seqlen)
        out: torch.Tensor = last(x, cu_seqlens, max_seqlen, attention)
        return out

    def hidden_states(
        self,
        ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        *,
        attention: AttentionFn,
    ) -> list[torch.Tensor]:
        """Return the (T, d) hidden states after the embedding and after each layer.

        Parameters are those of :meth:`forward`.
        """
        states = [self.embed(ids, cu_seqlens, max_seqlen)]
        for layer in self.layers:
            states.append(layer(states[-1], cu_seqlens, max_seqlen, attention))
        return states

    def embed(
        self,
        ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        *,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the (T, d) input of the first layer; parameters are those of :meth:`forward`."""
        if max_seqlen > self.config.max_positions:
            msg = (
                f"A sequence has {max_seqlen} tokens, the model has {self.config.max_positions} positions. "
                f"Tokenize with max_length={self.config.max_positions} or less."
            )
            raise ConfigError(msg)
        lengths = cu_seqlens.diff()
        starts = torch.repeat_interleave(cu_seqlens[:-1], lengths, output_size=len(ids))
        positions = (
            torch.arange(len(ids), device=ids.device) - starts
        )  # (T,), from 0 in each sequence
        # The constants go into the small table of positions rather than onto every token.
        position_table = self.position_embeddings.weight[:max_seqlen] + self.legacy_embeddings.sum(
            0
        )
        words = self.word_embeddings(ids) if inputs_embeds is None else inputs_embeds
        x: torch.Tensor = self.norm(words + functional.embedding(positions, position_table))
        return functional.dropout(x, self.config.dropout, self.training)
