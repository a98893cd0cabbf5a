"""The one table between our names of tensors and those of the published checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import EncoderConfig

_EMBEDDINGS = {
    "encoder.word_embeddings.weight": ("bert.embeddings.word_embeddings.weight",),
    "encoder.position_embeddings.weight": ("bert.embeddings.position_embeddings.weight",),
    "encoder.legacy_embeddings": (
        "bert.embeddings.tf_class_embeddings.weight",
        "bert.embeddings.tf_superclass_embeddings.weight",
        "bert.embeddings.expbin_embeddings.weight",
    ),
}
# Modules that have a weight and a bias.
_NORM = {"encoder.norm": ("bert.embeddings.LayerNorm",)}
_LAYER = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "feed_forward_in": ("intermediate.dense",),
    "feed_forward_out": ("output.dense",),
    "feed_forward_norm": ("output.LayerNorm",),
}
_HEAD = {"dense": "dense_1", "norm": "layer_norm", "out": "dense_2"}
_SAME = (
    "affine_projection",
    "binary_ce_loss_transform_cell",
    "binary_ce_loss_transform_prototype",
    "binary_ce_loss_transform_cellprot",
)

# The published heads hold the bias of their last map a second time under this name (tied).
TIED = {
    f"{head}.predictions.bias": f"{head}.predictions.dense_2.bias" for head in ("cls", "cell_cls")
}
# Buffers of the published training set's cell types, and an index 0, 1, 2, …: not weights.
NOT_WEIGHTS = frozenset({"cell_type_ancestor_mask", "ctgraph_sim", "bert.embeddings.position_ids"})


def published_names(config: EncoderConfig) -> dict[str, tuple[str, ...]]:
    """Return, for each of our tensors, the published ones that make it, joined along axis 0.

    Parameters
    ----------
    config
        Size of the model.
    """
    modules: dict[str, tuple[str, ...]] = {**_NORM}
    modules.update((name, (name,)) for name in _SAME)
    for i in range(config.n_layers):
        for ours, parts in _LAYER.items():
            modules[f"encoder.layers.{i}.{ours}"] = tuple(
                f"bert.encoder.layer.{i}.{part}" for part in parts
            )
    for head in ("cls", "cell_cls"):
        for ours, theirs in _HEAD.items():
            modules[f"{head}.{ours}"] = (f"{head}.predictions.{theirs}",)
    names: dict[str, tuple[str, ...]] = {**_EMBEDDINGS}
    names |= {"learned_centroid.weight": ("learned_centroid.weight",)}
    for ours, parts in modules.items():
        for kind in ("weight", "bias"):
            names[f"{ours}.{kind}"] = tuple(f"{part}.{kind}" for part in parts)
    return names


def to_published(
    state: Mapping[str, torch.Tensor], config: EncoderConfig
) -> dict[str, torch.Tensor]:
    """Rename our tensors to the published names, splitting what we keep joined.

    Parameters
    ----------
    state
        Our state dict.
    config
        Size of the model.
    """
    published: dict[str, torch.Tensor] = {}
    for ours, parts in published_names(config).items():
        published |= zip(parts, state[ours].chunk(len(parts)))
    return published | {alias: published[name] for alias, name in TIED.items()}


def join_published(
    parts: Mapping[str, torch.Tensor], config: EncoderConfig
) -> dict[str, torch.Tensor]:
    """Rename published tensors to our names, joining what we keep joined.

    Parameters
    ----------
    parts
        Every tensor that :func:`published_names` lists, in the right shape.
    config
        Size of the model.
    """
    return {
        ours: torch.cat([parts[name] for name in names]) if len(names) > 1 else parts[names[0]]
        for ours, names in published_names(config).items()
    }
