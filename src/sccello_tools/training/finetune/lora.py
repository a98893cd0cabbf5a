"""Low-rank updates of the encoder's projections (LoRA, arXiv 2106.09685), merged into the weights after training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from sccello_tools.nn import ScCelloModel

PROJECTIONS: Final = ("qkv", "attention_out", "feed_forward_in", "feed_forward_out")


class LowRankUpdate(nn.Module):
    """``W + (alpha / rank) up down``, of which only the two low-rank matrices are trained; initially the update is zero.

    It is a parametrisation of the weight rather than a parallel layer, so that code which reads the weight sees the update.

    Parameters
    ----------
    weight
        (out, in) matrix to update.
    rank
        Rank of the update.
    alpha
        The update is scaled by this over the rank.
    """

    def __init__(self, weight: torch.Tensor, *, rank: int, alpha: float) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        self.scale = alpha / rank
        self.down = nn.Parameter(
            torch.randn(rank, n_in, dtype=weight.dtype).mul_(n_in**-0.5).to(weight.device)
        )
        self.up = nn.Parameter(torch.zeros(n_out, rank, dtype=weight.dtype, device=weight.device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Map the (out, in) weight to the updated one."""
        return weight + self.scale * (self.up @ self.down)


def add_lora(network: ScCelloModel, *, rank: int, alpha: float) -> None:
    """Freeze a network except for low-rank updates of all attention and feed-forward projections.

    Parameters
    ----------
    network
        Modified in place. Updates are initialised from torch's global generator.
    rank
        Rank of each update, at most the smaller dimension of its matrix.
    alpha
        Each update is scaled by this over the rank.
    """
    network.requires_grad_(requires_grad=False)
    for linear in _projections(network):
        fitting = min(rank, *linear.weight.shape)
        update = LowRankUpdate(linear.weight, rank=fitting, alpha=alpha * fitting / rank)
        parametrize.register_parametrization(linear, "weight", update)


def merge_lora(network: ScCelloModel) -> None:
    """Merge the updates into the weights and remove them.

    Parameters
    ----------
    network
        Modified in place; nothing happens without updates.
    """
    for linear in _projections(network):
        if parametrize.is_parametrized(linear, "weight"):
            parametrize.remove_parametrizations(linear, "weight", leave_parametrized=True)
    network.requires_grad_(requires_grad=True)


def _projections(network: ScCelloModel) -> Iterator[nn.Linear]:
    for layer in network.encoder.layers:
        for name in PROJECTIONS:
            yield layer.get_submodule(name)  # type: ignore[misc]
