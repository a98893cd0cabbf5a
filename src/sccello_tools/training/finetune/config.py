"""Configuration of a fine-tuning run: schedule, early stopping, low-rank updates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sccello_tools._validation import (
    Config,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Proportion,
)
from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from typing import Final

Mode = Literal["linear", "lora", "full"]
Monitor = Literal["macro_f1", "loss"]

MODES: Final = ("linear", "lora", "full")
# A new layer on frozen features needs large steps, a whole network small ones.
_LEARNING_RATES: Final = {"linear": 5e-3, "lora": 1e-3, "full": 1e-4}
_MAX_EPOCHS: Final = {"linear": 50, "lora": 10, "full": 10}


class FinetuneConfig(Config):
    """Everything that determines the result of a fine-tuning run, besides its data and mode.

    The defaults follow the published linear probing as far as it is described: one linear layer with dropout on frozen ``<cls>``
    embeddings, cross-entropy, AdamW, linear decay after a warm-up, and the weights of the epoch with the best macro F1 on validation
    cells. Learning rates, epochs and patience are not published.

    Raises
    ------
    ConfigError
        If a name is unknown, or a value has the wrong type or is out of range.

    Examples
    --------
    >>> from sccello_tools.training import FinetuneConfig
    >>> FinetuneConfig().rate("linear"), FinetuneConfig(learning_rate=1e-4).rate("linear")
    (0.005, 0.0001)
    """

    learning_rate: PositiveFloat | None = None
    """Peak learning rate; by default 5e-3 for mode "linear", 1e-3 for "lora", 1e-4 for "full"."""
    max_epochs: PositiveInt | None = None
    """Maximum number of epochs; by default 50 for mode "linear", 10 for "lora" and "full"."""
    patience: PositiveInt = 5
    """Number of epochs without a better validation score after which training stops."""
    monitor: Monitor = "macro_f1"
    """Validation score used for early stopping: macro F1 (published) or cross-entropy."""
    batch_cells: PositiveInt = 32
    """Cells per step."""
    weight_decay: NonNegativeFloat = 1e-3
    """Weight decay of matrices; biases and LayerNorm parameters are not decayed."""
    warmup: Proportion = 0.05
    """Fraction of the steps in which the learning rate increases linearly."""
    dropout: Fraction = 0.02
    """Dropout of the features of the linear layer; published 0.02."""
    gradient_clip: NonNegativeFloat = 1.0
    """Maximum gradient norm; 0 disables clipping."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of cells held out for early stopping and calibration; approximate if whole batches are held out."""
    balance: Proportion = 0.0
    """Cells are weighted by the frequency of their label to the power of -balance: 0 weights all cells equally (published), 1 all labels."""
    lora_rank: PositiveInt = 8
    """Rank of the update of each attention and feed-forward projection in mode "lora"."""
    lora_alpha: PositiveFloat = 16.0
    """Low-rank updates are scaled by lora_alpha / lora_rank."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward pass in modes "lora" and "full"; the linear layer is always trained in float32."""
    seed: NonNegativeInt = 0
    """Seed of the split, initial weights, order of cells and dropout."""

    def rate(self, mode: Mode) -> float:
        """Return the peak learning rate in a mode."""
        return _LEARNING_RATES[mode] if self.learning_rate is None else self.learning_rate

    def epochs(self, mode: Mode) -> int:
        """Return the maximum number of epochs in a mode."""
        return _MAX_EPOCHS[mode] if self.max_epochs is None else self.max_epochs


def check_mode(mode: str) -> None:
    """Refuse an unknown mode.

    Raises
    ------
    ConfigError
        The message lists the modes.
    """
    if mode not in MODES:
        msg = (
            f"mode must be 'linear' (a layer on frozen embeddings), 'lora' (low-rank updates of the encoder) or 'full' (all weights of "
            f"the encoder), got {mode!r}"
        )
        raise ConfigError(msg)
