"""Weights on disk: our own form (safetensors + config.json), and the published one, read only."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from sccello_tools.errors import ConfigError, WeightsError

from ._names import NOT_WEIGHTS, TIED, join_published, to_published
from .config import EncoderConfig
from .model import ScCelloModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PUBLISHED_WEIGHTS_FILE = "pytorch_model.bin"
_SIZES = ("vocab_size", "hidden_size", "n_layers", "n_heads", "intermediate_size", "max_positions")
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


def save_checkpoint(
    model: ScCelloModel,
    folder: str | Path,
    *,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Write ``model.safetensors`` and ``config.json`` into a folder.

    Each file is written beside its place and then moved there, so that a broken run leaves the old
    file or the new one, never half of one.

    Parameters
    ----------
    model
        What to write.
    folder
        Made if it is not there.
    dtype
        Precision on disk; ``"float16"`` halves the file and rounds the weights.

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
    folder.mkdir(parents=True, exist_ok=True)
    _write_atomically(folder / WEIGHTS_FILE, to_bytes(state, metadata={"format": "pt"}))
    text = json.dumps(model.config.to_dict(), indent=2) + "\n"
    _write_atomically(folder / CONFIG_FILE, text.encode())


def load_checkpoint(folder: str | Path) -> ScCelloModel:
    """Read a model from a folder, in our own form or the published one.

    ``config.json`` says which form it is; the published form comes as ``model.safetensors`` or as
    ``pytorch_model.bin``, of which only tensors are ever unpickled.

    Parameters
    ----------
    folder
        Holds ``config.json`` and the weights.

    Returns
    -------
    The model in float32 on the CPU, in evaluation mode. Fresh weights are never drawn, so torch's
    generator stays as it was.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, holds code, holds weights that are not finite, or if
        tensors are missing, surplus or of the wrong shape; the message lists them.
    ConfigError
        If ``config.json`` describes no model that this package has.

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
        tensors = {n: t for n, t in tensors.items() if n not in NOT_WEIGHTS and n not in TIED}
        expected = {n: t for n, t in expected.items() if n not in TIED}
    _check_names_and_shapes(tensors, expected, path)
    _check_finite(tensors, str(path))
    state = join_published(tensors, config) if published else tensors
    model.load_state_dict({name: t.float() for name, t in state.items()}, assign=True)
    return model.eval()


def _read_config(path: Path) -> Mapping[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"No {path.name} in {path.parent}. A model folder holds {CONFIG_FILE} and {WEIGHTS_FILE} (or a published {PUBLISHED_WEIGHTS_FILE})."
        raise WeightsError(msg) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is damaged: {error}. Fetch or write the model again."
        raise WeightsError(msg) from error
    if not isinstance(values, Mapping):
        msg = f"{path} holds a {type(values).__name__}, expected an object of names and values."
        raise ConfigError(msg)
    if "num_hidden_layers" not in values and (lacking := [n for n in _SIZES if n not in values]):
        # a default in their place could fit the tensors and still be another model
        msg = f"{path} lacks {lacking}. Write the model again with save_checkpoint."
        raise ConfigError(msg)
    return values


def _read_weights(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    path = folder / WEIGHTS_FILE
    if path.exists():
        try:
            return load_file(path), path
        except (SafetensorError, OSError, ValueError) as error:
            msg = f"{path} is damaged: {error}. Fetch or write the model again."
            raise WeightsError(msg) from error
    path = folder / PUBLISHED_WEIGHTS_FILE
    if not path.exists():
        msg = f"No weights in {folder}; expected {WEIGHTS_FILE} or {PUBLISHED_WEIGHTS_FILE}."
        raise WeightsError(msg)
    return _read_pickle(path), path


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # torch's own text would advise to load the file unsafely
        if "GLOBAL" in str(error):
            msg = f"{path} holds code, not only tensors, and code is never run. Fetch the model from its source again."
        else:
            msg = f"{path} is damaged: no table of tensors can be read from it. Fetch the model again."
        raise WeightsError(msg) from None
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(t, torch.Tensor) for name, t in tensors.items()
    ):
        msg = f"{path} does not hold a table of named tensors, expected a published state dict."
        raise WeightsError(msg)
    return dict(tensors)


def _check_names_and_shapes(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], path: Path
) -> None:
    misshaped = [
        f"{name} {tuple(found[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    faults = {
        "missing": [name for name in expected if name not in found],
        "surplus": [name for name in found if name not in expected],
        "of the wrong shape": misshaped,
    }
    if any(faults.values()):
        msg = f"{path} does not fit its {CONFIG_FILE}. Tensors " + "; ".join(
            f"{what}: {_some(names)}" for what, names in faults.items() if names
        )
        raise WeightsError(msg)


def _check_tied(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse a second copy of a bias that says something else than the first."""
    for alias, name in TIED.items():
        if alias in tensors and name in tensors and not torch.equal(tensors[alias], tensors[name]):
            msg = f"{path}: {alias} differs from {name}, expected two copies of one bias. Fetch the model again."
            raise WeightsError(msg)


def _check_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        msg = f"Weights of {where} are not finite: {_some(bad)}. Use an earlier checkpoint, or float32."
        raise WeightsError(msg)


def _some(names: Sequence[str], at_most: int = 20) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def _write_atomically(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)  # mkstemp makes files that only their owner reads
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
