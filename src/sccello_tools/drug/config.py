"""What a drug response model is: its inputs, sizes and schedule."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Literal

from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

DrugEncoder = Literal["gcn", "fingerprint", "none"]
CellFeature = Literal["sccello", "expression"]

DRUG_ENCODERS: Final = ("gcn", "fingerprint", "none")
CELL_FEATURES: Final = ("sccello", "expression")


@dataclass(frozen=True)
class DrugResponseConfig:
    """Everything that decides a drug response model, besides its data.

    Raises
    ------
    ConfigError
        If a value is out of its range.

    Examples
    --------
    >>> from sccello_tools.drug import DrugResponseConfig
    >>> DrugResponseConfig(drug_encoder="fingerprint").cell_features
    ('sccello', 'expression')
    """

    drug_encoder: DrugEncoder = "gcn"
    """How a drug becomes a vector: graph convolution over its atoms, a layer on its fingerprint, or a learned vector of its own."""
    cell_features: tuple[CellFeature, ...] = ("sccello", "expression")
    """What the network reads of a cell line; none at all with (), for comparison."""
    n_members: int = 5
    """Networks of the ensemble, which differ in their random start and order of lines."""
    bag: float = 0.8
    """Share of the cell lines that each of several networks sees, drawn for each: what makes them disagree where data are thin."""
    n_components: int = 256
    """Principal components of the expression that the network reads."""
    embedding_weight: float = 0.3
    """Spread of the embedding, all dimensions together, in units of that of the components, where both are read."""
    ridge: float = 1.0
    """Penalty of the ridge regression that the networks start from."""
    hidden_size: int = 64
    """Width of the vectors of lines and drugs."""
    graph_size: int = 32
    """Width of the graph convolution."""
    n_graph_layers: int = 3
    """Graph convolutions, each of which lets an atom see one bond farther."""
    dropout: float = 0.1
    """Of the features and the hidden layer of lines, in training."""
    drug_identity_dropout: float = 0.5
    """Chance, in training, that a drug is read by its structure alone, as a new drug will be."""
    max_epochs: int = 16
    """Passes over the cell lines."""
    batch_lines: int = 64
    """Cell lines of a step, each with all of its drugs."""
    learning_rate: float = 1.5e-3
    """Peak of the schedule."""
    weight_decay: float = 1e-2
    """Of matrices."""
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell_features", tuple(self.cell_features))
        if self.drug_encoder not in DRUG_ENCODERS:
            msg = f"drug_encoder is {self.drug_encoder!r}; expected is one of {DRUG_ENCODERS}"
            raise ConfigError(msg)
        unknown = [name for name in self.cell_features if name not in CELL_FEATURES]
        if unknown or len(set(self.cell_features)) < len(self.cell_features):
            msg = f"cell_features is {self.cell_features}; expected are 'sccello', 'expression', both or none, each once, as a tuple"
            raise ConfigError(msg)
        for name in ("n_members", "n_components", "hidden_size", "graph_size", "n_graph_layers"):
            self._at_least(name, 1)
        for name in ("max_epochs", "batch_lines"):
            self._at_least(name, 1)
        for name in ("weight_decay", "seed"):
            self._at_least(name, 0)
        for name in ("dropout", "drug_identity_dropout"):
            if not 0 <= getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}; expected is a share from 0 to below 1"
                raise ConfigError(msg)
        if not 0 < self.bag <= 1:
            msg = f"bag is {self.bag}; expected is a share above 0, up to 1"
            raise ConfigError(msg)
        for name in ("learning_rate", "embedding_weight", "ridge"):
            if getattr(self, name) <= 0:
                msg = f"{name} is {getattr(self, name)}; expected is a number above 0"
                raise ConfigError(msg)

    def _at_least(self, name: str, least: int) -> None:
        if getattr(self, name) < least:
            msg = f"{name} is {getattr(self, name)}; expected is at least {least}"
            raise ConfigError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self) | {"cell_features": list(self.cell_features)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DrugResponseConfig:
        """Build a configuration from plain values; unknown names are an error."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            msg = f"Unknown settings: {unknown}. Known are: {sorted(known)}."
            raise ConfigError(msg)
        return cls(**values)
