"""What a fine-tuning run is: schedule, early stopping, size of the low-rank update."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Literal

from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

Mode = Literal["linear", "lora", "full"]
Monitor = Literal["macro_f1", "loss"]

MODES: Final = ("linear", "lora", "full")
# A fresh layer on still features takes large steps, a whole network small ones.
_LEARNING_RATES: Final = {"linear": 5e-3, "lora": 1e-3, "full": 1e-4}
_MAX_EPOCHS: Final = {"linear": 50, "lora": 10, "full": 10}


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides the outcome of a fine-tuning run, besides its data and its mode.

    The defaults are the published recipe of linear probing as far as it is public: one linear layer with dropout on frozen ``<cls>``
    rows, cross-entropy, AdamW, linear decay after a warm-up, and the epoch with the best mean F1 on held-out cells is kept. Rates,
    epochs and patience are this package's.

    Raises
    ------
    ConfigError
        If a value is out of its range.

    Examples
    --------
    >>> from sccello_tools.training.finetune import FinetuneConfig
    >>> FinetuneConfig().rate("linear"), FinetuneConfig(learning_rate=1e-4).rate("linear")
    (0.005, 0.0001)
    """

    learning_rate: float | None = None
    """Peak of the schedule; by mode if not given: linear 5e-3, lora 1e-3, full 1e-4."""
    max_epochs: int | None = None
    """Most passes over the training cells; by mode if not given: linear 50, lora and full 10."""
    patience: int = 5
    """Epochs without a better score on the held-out cells after which training stops."""
    monitor: Monitor = "macro_f1"
    """Score on the held-out cells that decides: mean F1 over labels (published), or cross-entropy."""
    batch_cells: int = 32
    """Cells of a step."""
    weight_decay: float = 1e-3
    """Of matrices; biases and LayerNorm are left alone."""
    warmup: float = 0.05
    """Share of all steps in which the rate rises."""
    dropout: float = 0.02
    """Of the features that the linear layer reads, in training; published 0.02."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    held_out: float = 0.2
    """Share of cells, or about that in whole donors, that are held out for early stopping."""
    balance: float = 0.0
    """Cells count by their label's frequency to the power of minus this: 0 all cells alike (published), 1 all labels alike."""
    lora_rank: int = 8
    """Rank of the update of each attention and feed-forward projection, with mode "lora"."""
    lora_alpha: float = 16.0
    """The update is scaled by this over the rank."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the training of "lora" and "full"; the linear layer is always trained in float32."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_epochs", "patience", "batch_cells", "lora_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name} is {value}; expected is at least 1"
                raise ConfigError(msg)
        for name in ("weight_decay", "gradient_clip", "seed"):
            if getattr(self, name) < 0:
                msg = f"{name} is {getattr(self, name)}; expected is 0 or more"
                raise ConfigError(msg)
        for name in ("warmup", "balance"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"{name} is {getattr(self, name)}; expected is a number from 0 to 1"
                raise ConfigError(msg)
        if not 0 <= self.dropout < 1:
            msg = f"dropout is {self.dropout}; expected is a share from 0 to below 1"
            raise ConfigError(msg)
        if not 0 < self.held_out < 1:
            msg = f"held_out is {self.held_out}; expected is a share between 0 and 1, such as 0.2"
            raise ConfigError(msg)
        if self.learning_rate is not None and self.learning_rate <= 0:
            msg = f"learning_rate is {self.learning_rate}; expected is a number above 0, or None for the mode's own"
            raise ConfigError(msg)
        if self.lora_alpha <= 0:
            msg = f"lora_alpha is {self.lora_alpha}; expected is a number above 0"
            raise ConfigError(msg)
        for name, choices in {
            "monitor": ("macro_f1", "loss"),
            "precision": ("float32", "bfloat16"),
        }.items():
            if getattr(self, name) not in choices:
                msg = f"{name} is {getattr(self, name)!r}; expected is one of {choices}"
                raise ConfigError(msg)

    def rate(self, mode: Mode) -> float:
        """Peak of the learning rate in a mode."""
        return _LEARNING_RATES[mode] if self.learning_rate is None else self.learning_rate

    def epochs(self, mode: Mode) -> int:
        """Most epochs in a mode."""
        return _MAX_EPOCHS[mode] if self.max_epochs is None else self.max_epochs

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FinetuneConfig:
        """Build a configuration from plain values; unknown names are an error."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            msg = f"Unknown settings: {unknown}. Known are: {sorted(known)}."
            raise ConfigError(msg)
        return cls(**values)


def check_mode(mode: str) -> None:
    """Refuse a mode that there is not.

    Raises
    ------
    ConfigError
        With the modes that there are.
    """
    if mode not in MODES:
        msg = (
            f"mode is {mode!r}; expected is 'linear' (a layer on frozen embeddings), 'lora' (low-rank updates of the encoder) "
            "or 'full' (all weights of the encoder)."
        )
        raise ConfigError(msg)
