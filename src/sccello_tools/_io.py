"""Atomic writes, file hashes and safetensors files with metadata: the only implementation in the package."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    import torch
    from numpy.typing import NDArray

_DEFAULT_MODE = 0o644


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` that replaces it if the block succeeds and is removed if it fails.

    Readers see the old file or the complete new one, never a partial file. The mode of an existing file is kept.

    Parameters
    ----------
    path
        Final location. Its folder is created if necessary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else _DEFAULT_MODE
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(mode)  # mkstemp creates files that only their owner can read
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, with newlines as given."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any], *, header: str
) -> None:
    """Write arrays and JSON metadata as one safetensors file, atomically.

    Parameters
    ----------
    path
        Final location.
    arrays
        Arrays by name.
    metadata
        Anything that JSON can represent; stored under ``header``.
    header
        Key of the metadata, which identifies the kind of file.
    """
    import numpy as np
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with atomic_path(path) as part:
        save_file(contiguous, part, metadata={header: json.dumps(metadata)})


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], *, header: str
) -> None:
    """Write torch tensors and JSON metadata as one safetensors file, atomically; see :func:`write_arrays`."""
    from safetensors.torch import save_file

    with atomic_path(path) as part:
        save_file(dict(tensors), part, metadata={header: json.dumps(metadata)})


def read_arrays(path: Path, *, header: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays and metadata of a file written by :func:`write_arrays`.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or has no metadata under ``header``. Callers translate it into an error that names the
        remedy.
    """
    return _read(path, header, "numpy")


def read_tensors(path: Path, *, header: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the tensors and metadata of a file written by :func:`write_tensors`; see :func:`read_arrays`."""
    return _read(path, header, "pt")


def _read(path: Path, header: str, framework: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            metadata = json.loads((file.metadata() or {})[header])
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        msg = f"{path} is not a readable safetensors file with {header!r} metadata ({error})"
        raise ValueError(msg) from error
    return found, metadata
