"""Read and write files for the command line, with errors that a user can act on."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sccello_tools.errors import FileFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse, before hours of work, a name that nothing could be written to; make its folder.

    Raises
    ------
    IsADirectoryError, FileExistsError
        If there is a folder of that name, or a file that is not to be replaced.
    """
    if path.is_dir():
        msg = f"{path} is a folder. Name the file to write."
        raise IsADirectoryError(msg)
    if path.exists() and not overwrite:
        msg = f"{path} exists already. Pass --overwrite to replace it, or another name."
        raise FileExistsError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)


def read_h5ad(path: Path) -> AnnData:
    """Read an h5ad file.

    Raises
    ------
    FileFormatError
        If there is no such file, or it is no h5ad file.
    """
    import anndata

    if not path.is_file():
        msg = f"There is no file {path}. Expected is an h5ad file with raw counts."
        raise FileFormatError(msg)
    try:
        adata: AnnData = anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError) as error:
        msg = f"{path} cannot be read as h5ad ({error}). It may be damaged, cut off, or of another format."
        raise FileFormatError(msg) from error
    return adata


def write_h5ad(adata: AnnData, path: Path) -> None:
    """Write an h5ad file whole or not at all."""
    with _whole(path) as part:
        adata.write_h5ad(part, compression="gzip")


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    with _whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` that takes its place in the end, and is gone if something fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
