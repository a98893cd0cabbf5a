"""The size and the constants of one encoder."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Published name -> ours, for the entries of a published config.json that say something about the numbers.
_PUBLISHED_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_positions",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "initializer_range",
    "pad_token_id": "pad_token_id",
    "tau": "tau",
}
# Without these a published config.json does not say what the model is.
_PUBLISHED_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
# Entries that would make another model of it; absent means the value given here.
_PUBLISHED_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}


@dataclass(frozen=True)
class EncoderConfig:
    """Size and constants of an :class:`~sccello_tools.nn.encoder.Encoder` and its heads.

    The defaults are the published size (10,681,094 parameters, arXiv 2408.12373).

    Raises
    ------
    ConfigError
        If a value is out of its range or two values do not fit together.

    Examples
    --------
    >>> from sccello_tools.nn.config import EncoderConfig
    >>> EncoderConfig(hidden_size=128, n_heads=4).head_dim
    32
    """

    vocab_size: int = 25_427
    """Tokens: 25,424 genes, ``<pad>``, ``<mask>`` and ``<cls>``."""
    hidden_size: int = 256
    """Width of the residual stream and of the embedding that comes out."""
    n_layers: int = 6
    n_heads: int = 4
    intermediate_size: int = 512
    """Width between the two linear maps of the feed-forward part."""
    max_positions: int = 2048
    """Longest sequence in tokens, ``<cls>`` included."""
    hidden_act: str = "relu"
    """The published activation, and the only one."""
    layer_norm_eps: float = 1e-12
    dropout: float = 0.02
    """Share of hidden units dropped in training."""
    attention_dropout: float = 0.02
    """Share of attention weights dropped in training."""
    n_prototypes: int = 600
    """Rows of the prototype table; a model with n cell types uses the first n."""
    tau: float = 0.01
    """Temperature of every cosine in the losses."""
    initializer_range: float = 0.02
    """Standard deviation of fresh weights."""
    pad_token_id: int = 0
    mask_token_id: int = 1
    cls_token_id: int = 25_426

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "n_layers",
            "n_heads",
            "intermediate_size",
            "max_positions",
            "n_prototypes",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                msg = f"{name} is {value!r}, expected a whole number of at least 1."
                raise ConfigError(msg)
        for name in ("dropout", "attention_dropout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < 1:
                msg = f"{name} is {value!r}, expected a share in [0, 1)."
                raise ConfigError(msg)
        for name in ("tau", "layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                msg = f"{name} is {value!r}, expected a number above 0."
                raise ConfigError(msg)
        if self.hidden_size % self.n_heads:
            msg = f"hidden_size {self.hidden_size} is not a multiple of n_heads {self.n_heads}."
            raise ConfigError(msg)
        if self.hidden_act != "relu":
            msg = f"hidden_act is {self.hidden_act!r}; only 'relu', the published activation, is supported."
            raise ConfigError(msg)
        special = (self.pad_token_id, self.mask_token_id, self.cls_token_id)
        if len(set(special)) < 3 or not all(token in range(self.vocab_size) for token in special):
            msg = (
                f"pad, mask and cls token ids are {special}; expected three different ids below "
                f"vocab_size {self.vocab_size}. Give cls_token_id with a vocabulary of another size."
            )
            raise ConfigError(msg)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.n_heads

    def to_dict(self) -> dict[str, int | float | str]:
        """Return the fields as plain values, in the form that :meth:`from_dict` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """Make a configuration from our own form or from a published ``config.json``.

        In our own form every name must be a field, so that a misspelt one is not lost. A published
        file (known by ``num_hidden_layers``) holds dozens of entries that depend on the version of
        the library that wrote it: those which change the numbers are read or checked, the rest is
        left out.

        Parameters
        ----------
        values
            The parsed JSON.

        Raises
        ------
        ConfigError
            If names are unknown or missing, or a value asks for another kind of model.

        Examples
        --------
        >>> from sccello_tools.nn.config import EncoderConfig
        >>> EncoderConfig.from_dict({"hidden_size": 64, "n_heads": 2}).head_dim
        32
        """
        if "num_hidden_layers" in values:
            return cls(**_published_fields(values))
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            msg = f"Unknown configuration entries {unknown[:5]}; expected some of {sorted(known)}."
            raise ConfigError(msg)
        return cls(**values)


def _published_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    if missing := [name for name in _PUBLISHED_REQUIRED if name not in values]:
        msg = f"The published config.json lacks {missing}; without them the size of the model is unknown."
        raise ConfigError(msg)
    for name, expected in _PUBLISHED_FIXED.items():
        if values.get(name, expected) != expected:
            msg = f"The published config.json has {name}={values[name]!r}; only {expected!r} is supported."
            raise ConfigError(msg)
    fields = {ours: values[theirs] for theirs, ours in _PUBLISHED_NAMES.items() if theirs in values}
    # The published vocabulary puts <cls> last.
    return fields | {"cls_token_id": values["vocab_size"] - 1}
