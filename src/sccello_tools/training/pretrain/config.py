"""Configuration of a pretraining run: model size, losses, batches, schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from sccello_tools._validation import (
    Config,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Proportion,
    read_yaml,
    write_yaml,
)
from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_WEIGHTS = ("weight_masked_gene", "weight_alignment", "weight_coherence", "weight_regularization")


class PretrainConfig(Config):
    """Everything that determines the result of a pretraining run, besides its data.

    The defaults describe a small model that trains on a laptop. :meth:`published` returns the paper's settings.

    Raises
    ------
    ConfigError
        If a name is unknown, or a value has the wrong type or is out of range.

    Examples
    --------
    >>> from sccello_tools.training import PretrainConfig
    >>> PretrainConfig(max_steps=100).hidden_size, PretrainConfig.published().hidden_size
    (128, 256)
    """

    hidden_size: PositiveInt = 128
    """Width of the encoder and of the embedding."""
    n_layers: PositiveInt = 4
    """Transformer layers."""
    n_heads: PositiveInt = 4
    """Attention heads per layer; must divide ``hidden_size``."""
    intermediate_size: PositiveInt = 256
    """Width of the feed-forward layers."""
    max_length: Annotated[int, Field(ge=2)] = 512
    """Maximum number of tokens per cell, including ``<cls>``; also the number of position embeddings."""
    dropout: Fraction = 0.02
    """Dropout of hidden states; published 0.02."""
    attention_dropout: Fraction = 0.0
    """Dropout of attention weights; published 0.02. Above 0, torch has no fast attention on CPUs and a step takes four times as long."""

    initializer_range: PositiveFloat = 0.05
    """Standard deviation of initial weights. The published 0.02 gives too weak a signal in narrow layers."""
    embedding_std: PositiveFloat | None = 0.2
    """Standard deviation of initial gene embeddings; position embeddings get a tenth of it and the constant legacy vectors start at zero,
    so that the gene dominates the input of a token. ``None`` draws all three with ``initializer_range``, as published: all tokens then share
    most of their input, and a small model predicts the class frequencies for hundreds of steps."""
    gene_start: Literal["random", "spectral"] = "spectral"
    """Initial gene embeddings: random (published), or rotated towards the principal components of gene ranks in the training cells.
    Mean recall on held-out donors and studies after 100 steps: 0.55 with "spectral", 0.32 with "random"."""

    tau: PositiveFloat = 0.05
    """Temperature of all losses; published 0.01."""
    mask_probability: Proportion = 0.15
    """Fraction of tokens that are masked and predicted. With 0, only the ``<cls>`` output of the last layer is computed, which is faster."""
    weight_masked_gene: NonNegativeFloat = 1.0
    """Weight of the masked gene loss in the sum."""
    weight_alignment: NonNegativeFloat = 1.0
    """Weight of the ontology alignment loss."""
    weight_coherence: NonNegativeFloat = 1.0
    """Weight of the cell type coherence loss."""
    weight_regularization: NonNegativeFloat = 1.0
    """Weight of the prototype regularisation."""
    coherence: Literal["published", "ontology"] = "published"
    """Coherence loss: "published" treats all types as mutually exclusive; "ontology" also accepts the descendants of a cell's label and
    ignores its ancestors, for labels at different depths, such as "T cell" and "CD8-positive T cell"."""
    n_negatives: PositiveInt | None = 4096
    """Number of sampled negative genes in the masked gene loss; ``None`` uses the whole vocabulary, as published."""
    second_pass: bool = False
    """Encode each batch a second time with different dropout for the alignment of a cell with itself, as published; one third slower."""

    max_steps: PositiveInt = 2_000
    """Optimiser steps."""
    batch_cells: PositiveInt = 48
    """Cells per step and device."""
    batch_tokens: PositiveInt | None = None
    """Maximum number of tokens per step and device. Replaces ``batch_cells``: steps then need similar time and memory whatever the length
    of the cells."""
    length_buckets: PositiveInt = 4
    """With ``batch_tokens``, number of length classes; the cells of a batch come from one of them. 1 mixes all lengths."""
    accumulate: PositiveInt = 1
    """Number of batches whose gradients are accumulated per step. Ontology alignment compares cells within one batch."""
    stream: bool | None = None
    """Read corpora block by block during training instead of holding all tokens in memory; ``None`` streams above one gigabyte of tokens."""
    buffer_cells: PositiveInt = 16_384
    """Number of cells in the shuffle buffer of a stream, per device."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: a fraction of the memory, one third slower."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    warmup_steps: NonNegativeInt = 100
    """Steps of linear warm-up, followed by cosine decay to zero."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of matrices; biases and LayerNorm parameters are not decayed."""
    gradient_clip: NonNegativeFloat = 1.0
    """Maximum gradient norm; 0 disables clipping."""
    crop: Proportion = 0.0
    """Fraction of steps in which all cells are truncated to the shortest one: one third faster, and the number of expressed genes, which
    differs more between studies than between types, cannot be used as a shortcut."""
    thinning: Proportion = 0.0
    """Fraction of cells whose counts are thinned at random, to simulate shallow sequencing. Augmentations are drawn again in each step and
    need the counts of all cells in memory."""
    thinning_min: PositiveInt = 300
    """Minimum total count after thinning; the target is drawn log-uniformly, and cells with fewer counts are not changed."""
    thinning_max: PositiveInt = 3_000
    """Maximum total count after thinning."""
    gene_dropout: Proportion = 0.0
    """Fraction of cells that are restricted to a random panel of genes, to simulate targeted panels and other annotations. Genes are drawn
    with a probability proportional to the fraction of cells that express them."""
    panel_min: PositiveInt = 50
    """Minimum number of genes of a panel; drawn log-uniformly."""
    panel_max: PositiveInt = 4_000
    """Maximum number of genes of a panel."""
    balance: Proportion = 0.5
    """Cells of a type are sampled proportionally to its count to the power of (1 - balance): 0 keeps the frequencies, 1 samples all types
    equally."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward pass; weights and losses stay in float32."""
    seed: NonNegativeInt = 0
    """Seed of initial weights, batches, masks and dropout."""

    divergence: NonNegativeFloat = 3.0
    """Stop with an error if the running mean of the loss exceeds its minimum by this factor; 0 disables the check."""
    validate_every: PositiveInt = 500
    """Steps between two validations, if there are validation cells."""
    monitor: Literal["knn_accuracy", "nmi"] = "knn_accuracy"
    """Validation score used for early stopping."""
    patience: PositiveInt | None = None
    """Stop after this many validations without improvement and restore the best weights; ``None`` trains for ``max_steps``."""

    source_weights: dict[str, Proportion] = Field(default_factory=dict)
    """Fraction of cells drawn from each named source; the other sources share the rest in proportion to their size."""

    @classmethod
    def published(cls) -> PretrainConfig:
        """Return the paper's size and losses (arXiv 2408.12373, section 3 and appendix)."""
        return cls(
            hidden_size=256,
            n_layers=6,
            n_heads=4,
            intermediate_size=512,
            max_length=2048,
            attention_dropout=0.02,
            initializer_range=0.02,
            embedding_std=None,
            gene_start="random",
            tau=0.01,
            n_negatives=None,
            second_pass=True,
            batch_cells=12,
            balance=0.0,
            checkpoint_activations=True,  # same numbers with a fraction of the memory
        )

    @property
    def augments(self) -> bool:
        """Whether counts are augmented."""
        return self.thinning > 0 or self.gene_dropout > 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any(getattr(self, name) for name in _WEIGHTS):
            msg = f"at least one of {', '.join(_WEIGHTS)} must be greater than 0"
            raise ValueError(msg)
        if self.hidden_size % self.n_heads:
            msg = f"hidden_size ({self.hidden_size}) must be a multiple of n_heads ({self.n_heads})"
            raise ValueError(msg)
        if self.batch_cells < 2 and self.weight_alignment:
            msg = f"batch_cells must be at least 2 for ontology alignment, which compares the cells of a batch; or set weight_alignment=0; got {self.batch_cells}"
            raise ValueError(msg)
        if self.batch_tokens is not None and self.batch_tokens < 2 * self.max_length:
            msg = f"batch_tokens must be at least {2 * self.max_length} (two cells of max_length), got {self.batch_tokens}"
            raise ValueError(msg)
        for name in ("thinning", "panel"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                msg = f"{name}_min must be at most {name}_max, got {low} and {high}"
                raise ValueError(msg)
        if self.augments and (self.stream or self.batch_tokens is not None):
            msg = "thinning and gene_dropout need counts in memory and cannot be combined with stream or batch_tokens"
            raise ValueError(msg)
        if self.divergence and self.divergence <= 1:
            msg = f"divergence must be greater than 1, or 0 to disable the check, got {self.divergence}"
            raise ValueError(msg)
        if sum(self.source_weights.values()) > 1 + 1e-9:
            msg = f"source_weights must add up to at most 1, got {self.source_weights}"
            raise ValueError(msg)
        return self

    def to_yaml(self, path: Path | str) -> None:
        """Write the configuration to a YAML file that :meth:`from_yaml` reads."""
        write_yaml(path, self.to_dict())

    @classmethod
    def from_yaml(cls, path: Path | str) -> PretrainConfig:
        """Read a configuration from a YAML file; omitted fields keep their defaults.

        Raises
        ------
        ConfigError
            If the file is missing or not YAML, a name is unknown, or a value has the wrong type or is out of range.
        """
        values = read_yaml(path)
        try:
            return cls(**values)
        except ConfigError as error:
            msg = f"{path}: {error}"
            raise ConfigError(msg) from error
