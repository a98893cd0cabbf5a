"""scCello: an encoder of rank-ordered genes with a gene head, a cell head and cell-type prototypes.

Shapes in comments: B sequences, T tokens of all sequences together, L tokens of one sequence, d hidden size, H heads, D head size.
Sequences are packed: tensors of tokens are flat, (T, ...), without padding, so that cost is proportional to the number of tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import nn
from torch.nn import functional

from sccello_tools.errors import ConfigError

from .attention import equal_length_runs, split_runs

if TYPE_CHECKING:
    from torch import Tensor

    from .attention import AttentionFn
    from .config import EncoderConfig

Representation = Literal["cls", "cell"]
_LARGEST_ADAPTIVE_BLOCK = 31 << 20  # bytes; blocks above 32 MB do not change glibc's threshold


class EncoderLayer(nn.Module):
    """Post-LayerNorm transformer layer: attention, add and norm, feed-forward network, add and norm.

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
        self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int, attention: AttentionFn
    ) -> Tensor:
        """Map (T, d) hidden states to those of the next layer."""
        qkv = self.qkv(x).view(-1, 3, self.n_heads, self.head_dim)  # (T, 3 * d) -> (T, 3, H, D)
        q, k, v = qkv.unbind(1)
        dropout_p = self.attention_dropout if self.training else 0.0
        attended = attention(q, k, v, cu_seqlens, max_seqlen, dropout_p=dropout_p)
        return self.after_attention(attended.reshape(x.shape), x)  # (T, H, D) -> (T, d)

    def forward_first(self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
        """Map (T, d) hidden states to the next layer's hidden state of each sequence's first token, (B, d)."""
        dropout_p = self.attention_dropout if self.training else 0.0
        attended = attend_from_first(
            x, self.qkv, cu_seqlens, max_seqlen, n_heads=self.n_heads, dropout_p=dropout_p
        )
        return self.after_attention(attended, x[cu_seqlens[:-1].long()])

    def after_attention(self, attended: Tensor, x: Tensor) -> Tensor:
        """Map the (n, d) concatenated attention heads of some rows, and these rows of the input, to the layer's output."""
        x = self._add_and_norm(self.attention_out(attended), x, self.attention_norm)
        h = self.feed_forward_out(functional.relu_(self.feed_forward_in(x)))
        return self._add_and_norm(h, x, self.feed_forward_norm)

    def _add_and_norm(self, h: Tensor, residual: Tensor, norm: nn.LayerNorm) -> Tensor:
        h = functional.dropout(h, self.dropout, self.training)
        # `h` is not used again, so the sum can overwrite it, unless autocast made it narrower than the residual
        total = h.add_(residual) if h.dtype == residual.dtype else residual + h
        out: Tensor = norm(total)
        return out


class Encoder(nn.Module):
    """Embeddings and layers; see "Encoder" in ``docs/how_it_works.md``.

    Parameters
    ----------
    config
        Size and constants.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        _keep_freed_memory()
        self.config = config
        d = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, d)
        self.position_embeddings = nn.Embedding(config.max_positions, d)
        # Row 0 of three tables of the published model, added to every token.
        self.legacy_embeddings = nn.Parameter(torch.zeros(3, d))
        self.norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))

    def forward(
        self,
        ids: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        *,
        attention: AttentionFn,
        cls_only: bool = False,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states.

        Parameters
        ----------
        ids
            (T,) int64 token ids of all sequences, concatenated.
        cu_seqlens
            (B + 1,) int32: sequence ``i`` is ``ids[cu_seqlens[i]:cu_seqlens[i + 1]]``.
        max_seqlen
            Length of the longest sequence in tokens.
        attention
            A backend from :func:`~sccello_tools.nn.attention.resolve_attention`.
        cls_only
            Return only the first token of each sequence; the last layer then skips almost all work for the other tokens.
        inputs_embeds
            (T, d) to use instead of the word embeddings of ``ids``.

        Returns
        -------
        Hidden states after the last layer, (T, d), or (B, d) with ``cls_only``.

        Raises
        ------
        ConfigError
            If a sequence is longer than the number of positions.

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
        out: Tensor = last(x, cu_seqlens, max_seqlen, attention)
        return out

    def hidden_states(
        self, ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, *, attention: AttentionFn
    ) -> list[Tensor]:
        """Return the (T, d) hidden states after the embedding and after each layer; parameters as for :meth:`forward`."""
        states = [self.embed(ids, cu_seqlens, max_seqlen)]
        for layer in self.layers:
            states.append(layer(states[-1], cu_seqlens, max_seqlen, attention))
        return states

    def embed(
        self,
        ids: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        *,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Return the (T, d) input of the first layer; parameters as for :meth:`forward`."""
        if max_seqlen > self.config.max_positions:
            msg = (
                f"A sequence has {max_seqlen} tokens, the model has {self.config.max_positions} positions. "
                f"Tokenize with max_length={self.config.max_positions} or less."
            )
            raise ConfigError(msg)
        # (B,) -> (T,): the first token of each token's sequence
        starts = torch.repeat_interleave(cu_seqlens[:-1], cu_seqlens.diff(), output_size=len(ids))
        positions = torch.arange(len(ids), device=ids.device) - starts  # (T,)
        # constants are added to the small table of positions instead of to every token
        table = self.position_embeddings.weight[:max_seqlen] + self.legacy_embeddings.sum(0)
        words = self.word_embeddings(ids) if inputs_embeds is None else inputs_embeds
        x: Tensor = self.norm(words + functional.embedding(positions, table))
        return functional.dropout(x, self.config.dropout, self.training)


class Head(nn.Module):
    """Prediction head: Linear, LayerNorm, ReLU, Linear, all of the hidden size.

    Parameters
    ----------
    config
        Size and constants.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d) to (..., d)."""
        out: Tensor = self.out(self.norm(self.dense(x)).relu_())
        return out


class ScCelloModel(nn.Module):
    """The whole model: encoder, heads and prototypes.

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
        """Gene head: maps hidden states and word embeddings to the space in which they are compared."""
        self.cell_cls = Head(config)
        """Cell head: maps the last hidden state at ``<cls>`` to the space of the prototypes."""
        self.learned_centroid = nn.Embedding(config.n_prototypes, d)
        self.affine_projection = nn.Linear(d, d)
        # Not used; present in the published weights.
        self.binary_ce_loss_transform_cell = nn.Linear(1, 1)
        self.binary_ce_loss_transform_prototype = nn.Linear(1, 1)
        self.binary_ce_loss_transform_cellprot = nn.Linear(1, 1)
        self.apply(self._init_weights)
        nn.init.normal_(self.encoder.legacy_embeddings, std=config.initializer_range)

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as BERT does: normal weights, zero biases, LayerNorm 1 and 0, zero vector for ``<pad>``."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if module is self.encoder.word_embeddings:
            with torch.no_grad():
                self.encoder.word_embeddings.weight[self.config.pad_token_id] = 0

    @property
    def word_embeddings(self) -> Tensor:
        """(vocab_size, d) word embeddings."""
        return self.encoder.word_embeddings.weight

    def encode(
        self,
        ids: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        *,
        representation: Representation = "cls",
        attention: AttentionFn,
    ) -> Tensor:
        """Return one vector per sequence.

        Parameters
        ----------
        ids
            (T,) int64 token ids of all sequences, concatenated, each starting with ``<cls>``.
        cu_seqlens
            (B + 1,) int32 boundaries of the sequences.
        max_seqlen
            Length of the longest sequence in tokens.
        representation
            ``"cls"``: last hidden state at ``<cls>``. ``"cell"``: output of the cell head for it, normalised to unit length.
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
            msg = f"representation is {representation!r}, must be 'cls' or 'cell'."
            raise ConfigError(msg)
        hidden: Tensor = self.encoder(
            ids, cu_seqlens, max_seqlen, attention=attention, cls_only=True
        )
        return hidden.float() if representation == "cls" else self.cell_representation(hidden)

    def cell_representation(self, hidden: Tensor) -> Tensor:
        """Map (B, d) hidden states at ``<cls>`` to (B, d) float32 unit vectors with the cell head."""
        return functional.normalize(self.cell_cls(hidden).float(), dim=-1)


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of intermediate results instead of returning it to the system after each operation.

    glibc returns free memory above twice the largest block that was mapped and freed, up to 32 MB. Without this, getting the pages of
    8 MB results back took three quarters of the time of the encoder. Up to 64 MB of free memory stay with the process.
    """
    torch.empty(_LARGEST_ADAPTIVE_BLOCK, dtype=torch.uint8, device="cpu")


def attend_from_first(
    x: Tensor,
    qkv: nn.Linear,
    cu_seqlens: Tensor,
    max_seqlen: int,
    *,
    n_heads: int,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention output of the first token of each sequence, without computing keys or values.

    With one query per sequence the products can be reordered. A score ``q . (W_k x + b_k)`` is ``(W_k^T q) . x`` plus a
    constant, which the softmax ignores; a weighted mean of ``W_v x + b_v`` is ``W_v`` times the weighted mean of ``x``, plus
    ``b_v``. That takes H * d multiplications per token instead of 2 * d * d. Computed in float32 in every precision: it is
    a small part of the work, and scores rounded to bfloat16 would be the least accurate numbers of the model.

    Parameters
    ----------
    x
        (T, d) hidden states; no sequence is empty.
    qkv
        Fused projection to queries, keys and values.
    cu_seqlens
        (B + 1,) int32, from 0 to T.
    max_seqlen
        Length of the longest sequence in tokens.
    n_heads
        Number of attention heads.
    dropout_p
        Dropout probability of attention weights.

    Returns
    -------
    (B, d): the concatenated heads, before the output projection.
    """
    weight, d = qkv.weight, x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        w_q, w_k, w_v = weight.float().view(3, n_heads, -1, d)  # (3 * d, d) -> 3 * (H, D, d)
        b_q, _, b_v = qkv.bias.float().view(3, n_heads, -1)  # (3 * d,) -> 3 * (H, D)
        first = x[cu_seqlens[:-1].long()]  # (B, d)
        q = torch.einsum("bd,hed->bhe", first, w_q) + b_q  # (B, H, D)
        queries = torch.einsum("bhe,hed->bhd", q * w_q.shape[1] ** -0.5, w_k)  # (B, H, d)
        pool = pool_by_runs if x.device.type == "cpu" else pool_padded
        pooled = pool(queries, x, cu_seqlens, max_seqlen, dropout_p)  # (B, H, d)
        out: Tensor = torch.einsum("bhd,hed->bhe", pooled, w_v) + b_v  # (B, H, D)
    return out.flatten(1).to(weight.dtype)  # (B, H, D) -> (B, d)


def pool_by_runs(
    queries: Tensor,
    x: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,  # noqa: ARG001 - same signature as pool_padded
    dropout_p: float,
) -> Tensor:
    """Average the (T, d) tokens of each sequence, weighted by (B, H, d) queries, to (B, H, d); one call per run of equal lengths."""
    runs = list(equal_length_runs(cu_seqlens))
    of_runs = torch.split(queries, [run.n_sequences for run in runs])
    pooled = []
    for run, query, tokens in zip(runs, of_runs, split_runs(x, runs), strict=True):
        shape = (run.n_sequences, run.length, -1)  # (n * L, d) -> (n, L, d)
        pooled.append(_weighted_mean(query, tokens.view(shape), dropout_p, None))
    return torch.cat(pooled)


def pool_padded(
    queries: Tensor, x: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float
) -> Tensor:
    """Do the same as :func:`pool_by_runs` in one call: on an accelerator, launches cost more than padding."""
    offsets = torch.arange(max_seqlen, device=x.device)
    index = cu_seqlens[:-1, None] + offsets  # (B, L)
    mask = offsets < cu_seqlens.diff()[:, None]
    return _weighted_mean(queries, x[index.clamp(max=len(x) - 1)], dropout_p, mask)


def _weighted_mean(queries: Tensor, x: Tensor, dropout_p: float, mask: Tensor | None) -> Tensor:
    scores = queries @ x.transpose(1, 2)  # (n, H, d) @ (n, d, L) -> (n, H, L)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], float("-inf"))
    weights = functional.dropout(scores.softmax(-1), dropout_p, training=dropout_p > 0)
    return weights @ x  # (n, H, L) @ (n, L, d) -> (n, H, d)
