"""The two prediction heads of the published model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch

    from .config import EncoderConfig


class Head(nn.Module):
    """Linear, LayerNorm, ReLU, Linear; the width stays.

    Parameters
    ----------
    config
        Size and constants.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (…, d) to (…, d)."""
        out: torch.Tensor = self.out(self.norm(self.dense(x)).relu_())
        return out
