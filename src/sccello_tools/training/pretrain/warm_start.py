"""Start a run from the weights of another, to train a model further or on other cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sccello_tools.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sccello_tools.nn import ScCelloModel

_SIZES = (
    "vocab_size",
    "hidden_size",
    "n_layers",
    "n_heads",
    "intermediate_size",
    "max_positions",
)


@torch.no_grad()
def start_from(
    network: ScCelloModel,
    types: Sequence[str],
    *,
    earlier: ScCelloModel,
    earlier_types: Sequence[str],
) -> None:
    """Copy weights, and each type's prototype to that type's row; types that the earlier model lacks keep their fresh prototype.

    Parameters
    ----------
    network
        The model to train, changed in place.
    types
        Cell Ontology ids of its prototypes.
    earlier
        A model of the same size.
    earlier_types
        Cell Ontology ids of that model's prototypes.

    Raises
    ------
    ConfigError
        If the two models differ in size. The message lists where.
    """
    differing = {
        name: (getattr(earlier.config, name), getattr(network.config, name))
        for name in _SIZES
        if getattr(earlier.config, name) != getattr(network.config, name)
    }
    if differing:
        msg = f"The model to start from has another size (there, here): {differing}. Give PretrainConfig the size of that model."
        raise ConfigError(msg)
    fresh = network.learned_centroid.weight.clone()
    weights = {
        name: value
        for name, value in earlier.state_dict().items()
        if name != "learned_centroid.weight"
    }
    network.load_state_dict(weights, strict=False)
    row_of = {cell_type: row for row, cell_type in enumerate(earlier_types)}
    for row, cell_type in enumerate(types):
        if cell_type in row_of:
            fresh[row] = earlier.learned_centroid.weight[row_of[cell_type]]
    network.learned_centroid.weight.copy_(fresh)
