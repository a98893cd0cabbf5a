"""What a pretraining run is: size of the model, losses, schedule."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING

from sccello_tools.errors import ConfigError
from sccello_tools.training.yaml import read_yaml, refuse_unknown, write_yaml

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Literal

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (Integral,),
    "float": (Real,),
    "bool": (bool,),
    "dict": (dict,),
}
_WEIGHTS = ("weight_masked_gene", "weight_alignment", "weight_coherence", "weight_regularization")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the outcome of a pretraining run, besides its data.

    The defaults are those of a small model that trains on a laptop. :meth:`published` gives the paper's.

    Examples
    --------
    >>> from sccello_tools.training.pretrain import PretrainConfig
    >>> PretrainConfig(max_steps=100).hidden_size, PretrainConfig.published().hidden_size
    (128, 256)
    """

    hidden_size: int = 128
    n_layers: int = 4
    n_heads: int = 4
    intermediate_size: int = 256
    max_length: int = 512
    """Most tokens of a cell, ``<cls>`` included; also the model's number of positions."""
    dropout: float = 0.02
    """Of hidden states, as published."""
    attention_dropout: float = 0.0
    """Of attention weights; published 0.02. Above 0, torch has no fast attention on CPUs, and a step takes four times as long."""

    initializer_range: float = 0.05
    """Standard deviation of fresh weights; published 0.02, which is too little signal through narrow layers."""
    embedding_std: float | None = 0.2
    """Standard deviation of fresh gene embeddings; positions get a tenth of it and the constant legacy vectors start at zero, so
    that a token is first of all its gene. ``None`` draws all three alike, as published: then all tokens share most of their
    input, cells look the same at ``<cls>``, and a small model sits at the class frequencies for hundreds of steps."""

    gene_start: Literal["random", "spectral"] = "spectral"
    """Where gene embeddings start: as drawn (published), or turned to the principal axes of the ranks in the training cells, so that
    a fresh encoder tells cells apart before its first step. Measured on held-out donors and studies of the bundled model's training
    cells after 100 steps: mean recall .55 against .32."""

    tau: float = 0.05
    """Temperature of every loss."""
    mask_probability: float = 0.15
    """Share of tokens whose gene is to be told."""
    weight_masked_gene: float = 1.0
    weight_alignment: float = 1.0
    weight_coherence: float = 1.0
    weight_regularization: float = 1.0
    n_negatives: int | None = 4096
    """Genes sampled as wrong answers for masked genes; ``None`` takes the whole vocabulary, as published."""
    second_pass: bool = False
    """Encode each batch twice, with other dropout, for the alignment of a cell with itself, as published; costs a third more."""

    max_steps: int = 2_000
    """Optimiser steps."""
    batch_cells: int = 48
    """Cells of a step, on each device."""
    batch_tokens: int | None = None
    """Tokens of a step at most, on each device; given, it takes the place of ``batch_cells``, and steps take about equal time and memory
    whatever the cells' lengths."""
    length_buckets: int = 4
    """With ``batch_tokens``, cells of a buffer are dealt to so many classes of length, and a batch comes from one of them; 1 mixes all."""
    accumulate: int = 1
    """Batches whose gradients a step adds up. Ontology alignment compares the cells of one batch."""
    stream: bool | None = None
    """Read corpora block by block while training, rather than hold all tokens in memory; None does so above a gigabyte of tokens."""
    buffer_cells: int = 16_384
    """Cells that a stream holds and shuffles at a time, on each device."""
    checkpoint_activations: bool = False
    """Keep only the input of each layer for the backward pass, and compute the rest again: a fraction of the memory, a third more time."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    warmup_steps: int = 100
    """Steps of linear rise; then the rate falls to zero along a half cosine."""
    weight_decay: float = 0.01
    """Of matrices; biases and LayerNorm are left alone."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    crop: float = 0.0
    """Share of steps whose cells are all cut to the length of the shortest: a third of the time, and the number of genes, which tells
    studies apart better than types, cannot be learnt instead of the cell."""
    balance: float = 0.5
    """Types are drawn by count to the power of (1 - balance): 0 as they come, 1 all types alike."""
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    divergence: float = 3.0
    """Stop when the running mean of the loss is so many times its lowest; 0 never does."""
    validate_every: int = 500
    """Steps between two looks at held-out cells, where there are any."""
    monitor: Literal["knn_accuracy", "nmi"] = "knn_accuracy"
    """Which score of the held-out cells decides about an early stop."""
    patience: int | None = None
    """Stop after so many looks without a better score, and keep the weights of the best; None goes on to ``max_steps``."""

    source_weights: dict[str, float] = field(default_factory=dict)
    """Share of cells drawn from each named source; sources that are not named share what is left by their size."""

    @classmethod
    def published(cls) -> PretrainConfig:
        """Return the paper's size and losses (arXiv 2408.12373, appendix; METHOD: Encoder, Losses)."""
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
            checkpoint_activations=True,  # the same numbers in a fraction of the memory
        )

    def __post_init__(self) -> None:
        self._check_kinds()
        for name in (
            "hidden_size",
            "n_layers",
            "n_heads",
            "intermediate_size",
            "max_steps",
            "batch_cells",
            "length_buckets",
            "accumulate",
            "buffer_cells",
            "validate_every",
        ):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}; expected is at least 1"
                raise ConfigError(msg)
        for name in ("warmup_steps", "weight_decay", "gradient_clip", "seed", *_WEIGHTS):
            if getattr(self, name) < 0:
                msg = f"{name} is {getattr(self, name)}; expected is 0 or more"
                raise ConfigError(msg)
        if not any(getattr(self, name) for name in _WEIGHTS):
            msg = f"All of {', '.join(_WEIGHTS)} are 0: there is nothing to learn"
            raise ConfigError(msg)
        if self.n_negatives is not None and self.n_negatives < 1:
            msg = f"n_negatives is {self.n_negatives}; expected is at least 1, or None for the whole vocabulary"
            raise ConfigError(msg)
        if self.hidden_size % self.n_heads:
            msg = f"hidden_size ({self.hidden_size}) must be a multiple of n_heads ({self.n_heads})"
            raise ConfigError(msg)
        if self.max_length < 2:
            msg = f"max_length is {self.max_length}; a cell needs at least 2 tokens, <cls> and one gene"
            raise ConfigError(msg)
        if self.batch_cells < 2 and self.weight_alignment:
            msg = "batch_cells is 1, but ontology alignment compares the cells of a batch. Take at least 2, or weight_alignment=0."
            raise ConfigError(msg)
        self._check_choices()
        if self.batch_tokens is not None and self.batch_tokens < 2 * self.max_length:
            msg = f"batch_tokens is {self.batch_tokens}; expected is at least {2 * self.max_length}, two cells of max_length"
            raise ConfigError(msg)
        if self.patience is not None and self.patience < 1:
            msg = f"patience is {self.patience}; expected is at least 1, or None to train to max_steps"
            raise ConfigError(msg)
        if self.divergence and self.divergence <= 1:
            msg = f"divergence is {self.divergence}; expected is above 1, or 0 to never stop"
            raise ConfigError(msg)
        for name in ("mask_probability", "balance", "crop"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"{name} is {getattr(self, name)}; expected is a number from 0 to 1"
                raise ConfigError(msg)
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}; expected is a share from 0 to below 1"
                raise ConfigError(msg)
        if self.embedding_std is not None and self.embedding_std <= 0:
            msg = f"embedding_std is {self.embedding_std}; expected is a number above 0, or None for initializer_range"
            raise ConfigError(msg)
        if min(self.tau, self.learning_rate, self.initializer_range) <= 0:
            msg = f"tau ({self.tau}), learning_rate ({self.learning_rate}) and initializer_range ({self.initializer_range}) must be above 0"
            raise ConfigError(msg)
        if sum(self.source_weights.values()) > 1 + 1e-9 or any(
            w < 0 for w in self.source_weights.values()
        ):
            msg = f"source_weights are {self.source_weights}; expected are shares that add up to at most 1"
            raise ConfigError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PretrainConfig:
        """Build a configuration from plain values; unknown names are an error."""
        refuse_unknown(values, [f.name for f in fields(cls)], "PretrainConfig")
        return cls(**values)

    def to_yaml(self, path: Path | str) -> None:
        """Write the configuration to a YAML file that :meth:`from_yaml` reads."""
        write_yaml(path, self.to_dict())

    @classmethod
    def from_yaml(cls, path: Path | str) -> PretrainConfig:
        """Read a configuration from a YAML file; fields that it leaves out keep their defaults.

        Raises
        ------
        ConfigError
            If the file is missing or no YAML, a name is unknown (the message suggests one that is near), or a value is of the wrong
            kind or out of range.
        """
        values = read_yaml(path)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            msg = f"{path}: {error}"
            raise ConfigError(msg) from error

    def _check_choices(self) -> None:
        for name, choices in {
            "precision": ("float32", "bfloat16"),
            "gene_start": ("random", "spectral"),
            "monitor": ("knn_accuracy", "nmi"),
        }.items():
            if getattr(self, name) not in choices:
                expected = " or ".join(map(repr, choices))
                msg = f"{name} is {getattr(self, name)!r}; expected is {expected}"
                raise ConfigError(msg)

    def _check_kinds(self) -> None:
        """Refuse a word where a number belongs, which a file can hold: YAML reads 1e-3 as text."""
        for item in fields(self):
            value, kind = getattr(self, item.name), str(item.type)
            if kind.startswith("Literal") or (value is None and "None" in kind):
                continue
            wanted = _KINDS[kind.split(" |", maxsplit=1)[0].split("[", maxsplit=1)[0]]
            # True is an int to Python, and a whole number is a fine float
            fits = isinstance(value, wanted) and (wanted[0] is bool or not isinstance(value, bool))
            if not fits:
                hint = " (YAML wants 1.0e-3, not 1e-3)" if isinstance(value, str) else ""
                msg = f"{item.name} is {value!r}; expected is {kind}{hint}"
                raise ConfigError(msg)
