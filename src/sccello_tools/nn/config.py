"""Size and constants of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from sccello_tools._validation import Config, Fraction, PositiveFloat, PositiveInt
from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

PUBLISHED_ARCHITECTURE = "PrototypeContrastiveForMaskedLM"
# Published name -> ours, for the entries of a published config.json that affect the numbers.
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
_PUBLISHED_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
# Entries that would change the architecture; a missing one has the value given here.
_PUBLISHED_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_GENEFORMER_VOCABULARIES = {25_426, 20_275, 20_274}  # releases 1 and 2


class EncoderConfig(Config):
    """Size and constants of an :class:`~sccello_tools.nn.Encoder` and its heads.

    The defaults are the published size (10,681,094 parameters, arXiv 2408.12373).

    Raises
    ------
    ConfigError
        If a value is out of range or two values do not fit together.

    Examples
    --------
    >>> from sccello_tools.nn import EncoderConfig
    >>> EncoderConfig(hidden_size=128, n_heads=4).head_dim
    32
    """

    vocab_size: PositiveInt = 25_427
    """Number of tokens: 25,424 genes, ``<pad>``, ``<mask>`` and ``<cls>``."""
    hidden_size: PositiveInt = 256
    """Width of the hidden states and of the embedding."""
    n_layers: PositiveInt = 6
    n_heads: PositiveInt = 4
    intermediate_size: PositiveInt = 512
    """Width of the hidden layer of the feed-forward network."""
    max_positions: PositiveInt = 2048
    """Maximum sequence length in tokens, ``<cls>`` included."""
    hidden_act: Literal["relu"] = "relu"
    """Activation of the feed-forward network."""
    layer_norm_eps: PositiveFloat = 1e-12
    dropout: Fraction = 0.02
    """Dropout probability of hidden units."""
    attention_dropout: Fraction = 0.02
    """Dropout probability of attention weights."""
    n_prototypes: PositiveInt = 600
    """Rows of the prototype table; a model with n cell types uses the first n."""
    tau: PositiveFloat = 0.01
    """Temperature of all cosine similarities in the losses."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of randomly initialised weights."""
    pad_token_id: int = 0
    mask_token_id: int = 1
    cls_token_id: int = 25_426

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size % self.n_heads:
            msg = f"hidden_size {self.hidden_size} is not a multiple of n_heads {self.n_heads}"
            raise ValueError(msg)
        special = {self.pad_token_id, self.mask_token_id, self.cls_token_id}
        if len(special) < 3 or min(special) < 0 or max(special) >= self.vocab_size:
            msg = (
                f"pad, mask and cls token ids {(self.pad_token_id, self.mask_token_id, self.cls_token_id)} must be three "
                f"different ids below vocab_size {self.vocab_size}; pass cls_token_id with a vocabulary of another size"
            )
            raise ValueError(msg)
        return self

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.n_heads

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """Create a configuration from our ``config.json`` or from a published one.

        In our form, every name must be a field. A published file (recognised by ``num_hidden_layers``) has dozens of
        entries that depend on the version of transformers: those that affect the numbers are read or checked, the others
        are ignored.

        Parameters
        ----------
        values
            The parsed JSON.

        Raises
        ------
        ConfigError
            If names are unknown or missing, or the file describes another architecture, which is named.

        Examples
        --------
        >>> from sccello_tools.nn import EncoderConfig
        >>> EncoderConfig.from_dict({"hidden_size": 64, "n_heads": 2}).head_dim
        32
        """
        if other := other_architecture(values):
            msg = f"config.json describes {other}, not scCello. {_REMEDY}"
            raise ConfigError(msg)
        return cls(**(_published_fields(values) if "num_hidden_layers" in values else values))


_REMEDY = (
    "Use the package of that model, or pass a scCello model; models.list() shows those available."
)


def other_architecture(values: Mapping[str, Any]) -> str | None:
    """Return the name of the model that a ``config.json`` describes if it is not scCello, else None.

    Parameters
    ----------
    values
        The parsed JSON.
    """
    listed = values.get("architectures")
    names: list[str] = [str(name) for name in listed] if isinstance(listed, list) else []
    if PUBLISHED_ARCHITECTURE in names:
        return None
    if {"embsize", "nlayers", "nheads"} & set(values):
        return "scGPT"
    model_type = values.get("model_type")
    if model_type == "bert" and values.get("vocab_size") in _GENEFORMER_VOCABULARIES:
        return "Geneformer"
    if names or (model_type not in {None, "bert"}):
        return f"another model (architectures {names}, model_type {model_type!r})"
    return None


def _published_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    if missing := [name for name in _PUBLISHED_REQUIRED if name not in values]:
        msg = f"The published config.json lacks {missing}; without them the size of the model is unknown."
        raise ConfigError(msg)
    for name, expected in _PUBLISHED_FIXED.items():
        if values.get(name, expected) != expected:
            msg = f"The published config.json has {name}={values[name]!r}; only {expected!r} is supported."
            raise ConfigError(msg)
    fields = {ours: values[theirs] for theirs, ours in _PUBLISHED_NAMES.items() if theirs in values}
    size = values["vocab_size"]
    # The published vocabulary has <cls> last.
    return fields | ({"cls_token_id": size - 1} if isinstance(size, int) else {})
