"""Weights on disk: our format (safetensors and config.json) and the published format, which is read only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sccello_tools._io import atomic_path, write_json
from sccello_tools.errors import ConfigError, WeightsError

from .config import EncoderConfig
from .model import ScCelloModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PUBLISHED_WEIGHTS_FILE = "pytorch_model.bin"
_SIZES = ("vocab_size", "hidden_size", "n_layers", "n_heads", "intermediate_size", "max_positions")
_DTYPES = {"float32": torch.float32, "float16": torch.float16}

# Our name of a tensor -> the published tensors that are concatenated along axis 0 to make it.
_EMBEDDINGS: dict[str, tuple[str, ...]] = {
    "encoder.word_embeddings.weight": ("bert.embeddings.word_embeddings.weight",),
    "encoder.position_embeddings.weight": ("bert.embeddings.position_embeddings.weight",),
    "encoder.legacy_embeddings": (
        "bert.embeddings.tf_class_embeddings.weight",
        "bert.embeddings.tf_superclass_embeddings.weight",
        "bert.embeddings.expbin_embeddings.weight",
    ),
    "learned_centroid.weight": ("learned_centroid.weight",),
}
# The same for modules with a weight and a bias.
_MODULES: dict[str, tuple[str, ...]] = {
    "encoder.norm": ("bert.embeddings.LayerNorm",),
    "affine_projection": ("affine_projection",),
    "binary_ce_loss_transform_cell": ("binary_ce_loss_transform_cell",),
    "binary_ce_loss_transform_prototype": ("binary_ce_loss_transform_prototype",),
    "binary_ce_loss_transform_cellprot": ("binary_ce_loss_transform_cellprot",),
}
_LAYER = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "feed_forward_in": ("intermediate.dense",),
    "feed_forward_out": ("output.dense",),
    "feed_forward_norm": ("output.LayerNorm",),
}
_HEAD = {"dense": "dense_1", "norm": "layer_norm", "out": "dense_2"}
# The published heads store the bias of their last layer a second time under these names.
_TIED = {
    f"{head}.predictions.bias": f"{head}.predictions.dense_2.bias" for head in ("cls", "cell_cls")
}
# Buffers of the cell types in the published training set, and the index 0, 1, 2, ...: not weights.
_NOT_WEIGHTS = frozenset({"cell_type_ancestor_mask", "ctgraph_sim", "bert.embeddings.position_ids"})


def published_names(config: EncoderConfig) -> dict[str, tuple[str, ...]]:
    """Return for each of our tensors the published ones that are concatenated to make it."""
    modules = dict(_MODULES)
    for i in range(config.n_layers):
        for ours, parts in _LAYER.items():
            modules[f"encoder.layers.{i}.{ours}"] = tuple(
                f"bert.encoder.layer.{i}.{part}" for part in parts
            )
    for head in ("cls", "cell_cls"):
        for ours, theirs in _HEAD.items():
            modules[f"{head}.{ours}"] = (f"{head}.predictions.{theirs}",)
    names = dict(_EMBEDDINGS)
    for ours, parts in modules.items():
        for kind in ("weight", "bias"):
            names[f"{ours}.{kind}"] = tuple(f"{part}.{kind}" for part in parts)
    return names


def to_published(state: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """Convert our state dict to the published names, tied copies included."""
    published: dict[str, Tensor] = {}
    for ours, parts in published_names(config).items():
        published |= zip(parts, state[ours].chunk(len(parts)))
    return published | {alias: published[name] for alias, name in _TIED.items()}


def save_checkpoint(
    model: ScCelloModel, folder: str | Path, *, dtype: Literal["float32", "float16"] = "float32"
) -> None:
    """Write ``model.safetensors`` and ``config.json`` into a folder, each atomically.

    Parameters
    ----------
    model
        The model.
    folder
        Created if it does not exist.
    dtype
        Precision on disk; ``"float16"`` halves the file size and rounds the weights.

    Raises
    ------
    WeightsError
        If a weight is not finite, or not in that precision.

    Examples
    --------
    >>> import tempfile
    >>> from sccello_tools.nn import EncoderConfig, ScCelloModel, load_checkpoint, save_checkpoint
    >>> config = EncoderConfig(vocab_size=50, cls_token_id=49, hidden_size=16, n_layers=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(ScCelloModel(config), folder)
    ...     load_checkpoint(folder).config == config
    True
    """
    folder = Path(folder)
    state = {
        name: tensor.detach().to("cpu", _DTYPES[dtype]).contiguous()
        for name, tensor in model.state_dict().items()
    }
    _check_finite(state, f"the model (as {dtype})")
    with atomic_path(folder / WEIGHTS_FILE) as part:
        save_file(state, part, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, model.config.to_dict())


def load_checkpoint(folder: str | Path) -> ScCelloModel:
    """Read a model from a folder in our format or the published one.

    ``config.json`` determines the format. Published weights may be ``model.safetensors`` or ``pytorch_model.bin``, of which
    only tensors are unpickled.

    Parameters
    ----------
    folder
        Contains ``config.json`` and the weights.

    Returns
    -------
    The model in float32 on the CPU, in evaluation mode. The random number generator of torch is not used.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, contains code or non-finite weights, or if tensors are missing, unexpected or of the
        wrong shape; the message lists them.
    ConfigError
        If ``config.json`` describes another model; the message names it.

    Examples
    --------
    See :func:`save_checkpoint`.
    """
    folder = Path(folder)
    values = _read_config(folder / CONFIG_FILE)
    config = EncoderConfig.from_dict(values)
    tensors, path = _read_weights(folder)
    with torch.device("meta"):
        model = ScCelloModel(config)
    expected = dict(model.state_dict())
    if published := "num_hidden_layers" in values:
        expected = to_published(expected, config)
        _check_tied(tensors, path)
        tensors = {n: t for n, t in tensors.items() if n not in _NOT_WEIGHTS and n not in _TIED}
        expected = {n: t for n, t in expected.items() if n not in _TIED}
    _check_names_and_shapes(tensors, expected, path)
    _check_finite(tensors, str(path))
    if published:
        tensors = {
            ours: torch.cat([tensors[name] for name in names])
            for ours, names in published_names(config).items()
        }
    model.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
    return model.eval()


def _read_config(path: Path) -> Mapping[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"No {path.name} in {path.parent}. A model folder contains {CONFIG_FILE} and {WEIGHTS_FILE} (or a published {PUBLISHED_WEIGHTS_FILE})."
        raise WeightsError(msg) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is damaged: {error}. Download or write the model again."
        raise WeightsError(msg) from error
    if not isinstance(values, Mapping):
        msg = f"{path} contains a {type(values).__name__}, must be an object of names and values."
        raise ConfigError(msg)
    if "num_hidden_layers" not in values and (missing := [n for n in _SIZES if n not in values]):
        # n_heads appears in no tensor shape: a default could fit the tensors and give wrong numbers
        msg = f"{path} lacks {missing}. Write the model again with save_checkpoint."
        raise ConfigError(msg)
    return values


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], Path]:
    path = folder / WEIGHTS_FILE
    if path.exists():
        try:
            return load_file(path), path
        except (SafetensorError, OSError, ValueError) as error:
            msg = f"{path} is damaged: {error}. Download or write the model again."
            raise WeightsError(msg) from error
    path = folder / PUBLISHED_WEIGHTS_FILE
    if not path.exists():
        msg = f"No weights in {folder}; expected {WEIGHTS_FILE} or {PUBLISHED_WEIGHTS_FILE}."
        raise WeightsError(msg)
    return _read_pickle(path), path


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # torch's own message would recommend loading the file unsafely
        if "GLOBAL" in str(error):
            msg = f"{path} is a pickle that contains code, which is never run. Use a checkpoint that contains tensors only, preferably {WEIGHTS_FILE}."
        else:
            msg = f"{path} is damaged: no tensors can be read from it. Download the model again."
        raise WeightsError(msg) from None
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(t, torch.Tensor) for name, t in tensors.items()
    ):
        msg = f"{path} is not a state dict of named tensors, as in the published checkpoint. Use another file, or save the model with models.save."
        raise WeightsError(msg)
    return dict(tensors)


def _check_names_and_shapes(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    misshaped = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    faults = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of the wrong shape": misshaped,
    }
    if any(faults.values()):
        msg = f"{path} does not match its {CONFIG_FILE}. Tensors " + "; ".join(
            f"{what}: {_some(names)}" for what, names in faults.items() if names
        )
        if faults["missing"] and not any(name.startswith("cell_cls.") for name in found):
            msg += ". It has no cell head (cell_cls), so it is not a scCello model"
        raise WeightsError(msg + ".")


def _check_tied(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that the second copy of a bias equals the first."""
    for alias, name in _TIED.items():
        if alias in tensors and name in tensors and not torch.equal(tensors[alias], tensors[name]):
            msg = f"{path}: {alias} differs from {name}, but they must be copies of one bias. Download the model again."
            raise WeightsError(msg)


def _check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        msg = f"Weights of {where} are not finite: {_some(bad)}. Use an earlier checkpoint, or float32."
        raise WeightsError(msg)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
