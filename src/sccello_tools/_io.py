"""Atomic writes, file hashes and safetensors files with metadata: the only implementation in the package."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ArgumentError, OutputError, OutputExistsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import Any

    from numpy.typing import NDArray

_DEFAULT_MODE = 0o644
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
_REMEDY = {
    os.strerror(code): "Free space on this disk, or write to another one."
    for code in (errno.ENOSPC, errno.EDQUOT)
}


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(
    path: Path,
    *,
    suffixes: tuple[str, ...] = (),
    overwrite: bool = False,
    needed: int = 0,
) -> None:
    """Check, before a long computation, that an output can be written; its folder is created if necessary.

    Parameters
    ----------
    path
        File or folder to write.
    suffixes
        Allowed extensions, such as ``(".h5ad", ".zarr")``; with none given, ``path`` is a folder of results, which may exist.
    overwrite
        Allow an existing file or zarr store to be replaced.
    needed
        Expected size in bytes, compared with the free space of the disk.

    Raises
    ------
    ArgumentError
        If the extension is not allowed.
    OutputExistsError
        If the output exists and may not be replaced.
    OutputError
        If the folder cannot be written to, or has too little free space.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        found = f"the extension {path.suffix!r}" if path.suffix else "no extension"
        msg = f"{path} has {found}, but this output is written as {' or '.join(suffixes)}. Change the name of the output."
        raise ArgumentError(msg)
    if suffixes and path.is_dir() and path.suffix != ".zarr":
        msg = f"{path} is a folder. Pass the name of a file."
        raise OutputExistsError(msg)
    if suffixes and path.exists() and not overwrite:
        msg = f"{path} already exists. Pass overwrite=True, or another name."
        raise OutputExistsError(msg)
    if not suffixes and path.exists() and not path.is_dir():
        msg = f"{path} is a file, but a folder is to be written. Pass another name."
        raise OutputExistsError(msg)
    folder = path.parent if suffixes else path
    with _clear_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        # permissions alone do not tell, for example on a read-only disk
        tempfile.TemporaryFile(dir=folder).close()
    check_free(folder, needed, output=path)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` that replaces it if the block succeeds and is removed if it fails.

    Readers see the old file or the complete new one, never a partial file. The mode of an existing file is kept.

    Parameters
    ----------
    path
        Final location. Its folder is created if necessary.

    Raises
    ------
    OutputError
        If the disk is full or not writable; an existing file is kept.
    """
    with _clear_errors(path):
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


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``path`` that replaces it if the block succeeds and is removed if it fails.

    An existing folder is moved aside and deleted only after the new one is in place; see :func:`atomic_path`.
    """
    with _clear_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
        old = part.with_suffix(".old")
        try:
            yield part
            part.chmod(0o755)
            if path.exists():
                path.replace(old)
            part.replace(path)
        finally:
            for folder in (part, old):
                _remove_tree(folder)


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Report failed writes with the name of the final output, whichever library wrote it."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # libraries wrap errors of the disk
        text = " ".join(str(error).split())
        code = getattr(error, "errno", None)
        if code in _DISK_ERRORS:
            reason = os.strerror(code or 0)
        elif (known := next((c for c in _DISK_ERRORS if os.strerror(c) in text), None)) is not None:
            reason = os.strerror(known)
        else:
            raise
        msg = f"{path} cannot be written: {reason}. {_REMEDY.get(reason, 'Pass an output folder that you can write to.')}"
        if path.exists():
            msg += " The existing output was kept."
        raise OutputError(msg) from error


def _remove_tree(folder: Path) -> None:
    for _ in range(20):  # zarr's threads may still be writing when the first error is raised
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def check_free(folder: Path, needed: int, *, output: Path) -> None:
    """Check the free space of the disk of an existing folder.

    Raises
    ------
    OutputError
        If fewer than ``needed`` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        msg = f"{output} needs about {_size(needed)}, but only {_size(free)} are free in {folder.absolute()}. Free space, or write to another disk."
        raise OutputError(msg)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


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
    path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, Any], *, header: str
) -> None:
    """Write torch tensors and JSON metadata as one safetensors file, atomically; see :func:`write_arrays`."""
    from safetensors.torch import save_file

    with atomic_path(path) as part:
        save_file(dict(tensors), part, metadata={header: json.dumps(metadata)})


def read_arrays(
    path: Path, *, header: str, names: Collection[str] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays and metadata of a file written by :func:`write_arrays`.

    Parameters
    ----------
    path
        The file.
    header
        Key of the metadata.
    names
        Arrays to read; all by default.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or has no metadata under ``header``. Callers translate it into an error that names the
        remedy.
    """
    return _read(path, header, "numpy", names)


def read_tensors(path: Path, *, header: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the tensors and metadata of a file written by :func:`write_tensors`; see :func:`read_arrays`."""
    return _read(path, header, "pt")


def _read(
    path: Path, header: str, framework: str, names: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            metadata = json.loads((file.metadata() or {})[header])
            wanted = file.keys() if names is None else names
            found = {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        msg = f"{path} is not a readable safetensors file with {header!r} metadata ({error})"
        raise ValueError(msg) from error
    return found, metadata
