"""Configuration of a drug response model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from sccello_tools._validation import Config, Fraction, PositiveFloat, PositiveInt

from .encoders import DrugEncoderName

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

CellFeature = Literal["sccello", "expression"]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class DrugResponseConfig(Config):
    """Inputs, sizes and training schedule of a drug response model.

    Raises
    ------
    ConfigError
        If a field is unknown, of the wrong type or out of range.

    Examples
    --------
    >>> from sccello_tools.drug import DrugResponseConfig
    >>> DrugResponseConfig(drug_encoder="fingerprint").cell_features
    ('sccello', 'expression')
    """

    drug_encoder: DrugEncoderName = "gcn"
    """Graph convolution over the atoms, layers on the Morgan fingerprint, or a learned vector per drug."""
    cell_features: tuple[CellFeature, ...] = ("sccello", "expression")
    """Features of a cell line; ``()`` for a network without them, for comparison."""
    n_members: PositiveInt = 5
    """Number of networks in the ensemble, which differ in initialisation and training lines."""
    bag: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Fraction of the cell lines that each of several networks is trained on; the source of their disagreement where data are sparse."""
    n_components: PositiveInt = 256
    """Number of principal components of expression."""
    embedding_weight: PositiveFloat = 0.3
    """Standard deviation of the whole embedding relative to that of the components, if both are features."""
    ridge: PositiveFloat = 1.0
    """Penalty of the ridge regression that the networks are initialised with."""
    hidden_size: PositiveInt = 64
    """Size of the vectors of lines and drugs."""
    graph_size: PositiveInt = 32
    """Width of the graph convolution."""
    n_graph_layers: PositiveInt = 3
    """Number of graph convolutions; each reaches one bond further."""
    dropout: Fraction = 0.1
    """Dropout probability of features and hidden layer of lines."""
    drug_identity_dropout: Fraction = 0.5
    """Probability, in training, of encoding a drug by its structure alone, as new drugs are."""
    max_epochs: PositiveInt = 16
    """Passes over the cell lines."""
    batch_lines: PositiveInt = 64
    """Cell lines per step, each with all drugs."""
    learning_rate: PositiveFloat = 1.5e-3
    """Peak learning rate."""
    weight_decay: NonNegative = 1e-2
    """Weight decay of matrices."""
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("cell_features")
    @classmethod
    def _distinct(cls, value: tuple[CellFeature, ...]) -> tuple[CellFeature, ...]:
        if len(set(value)) < len(value):
            msg = f"cell_features must be distinct, got {value}"
            raise ValueError(msg)
        return value

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create a configuration from plain values, as read from JSON."""
        converted = dict(values)
        if "cell_features" in converted:
            converted["cell_features"] = tuple(converted["cell_features"])
        return cls(**converted)
