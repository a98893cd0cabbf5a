"""Files for the tests of jobs over collections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.files import worker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(sccello.settings, "progress", False)


@pytest.fixture
def files(adata, tmp_path, write_zarr) -> list[Path]:
    """Thirty cells in an h5ad file, ten of them as CSC, and five in a zarr store."""
    paths = [tmp_path / "a.h5ad", tmp_path / "b.h5ad", tmp_path / "c.zarr"]
    adata.write_h5ad(paths[0])
    by_column = adata[10:20].copy()
    by_column.X = sparse.csc_matrix(by_column.X)
    by_column.obs_names = [f"b{i}" for i in range(10)]
    by_column.write_h5ad(paths[1])
    write_zarr(adata[:5].copy(), paths[2])
    return paths


@pytest.fixture
def stop_after(monkeypatch):
    """Interrupt the work after a number of blocks."""

    def stop(n: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        original = worker.write_rows

        def write(*args, **options):
            nonlocal n
            n -= 1
            if n < 0:
                raise error
            original(*args, **options)

        monkeypatch.setattr(worker, "write_rows", write)

    return stop


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """Names of the blocks that are written from here on."""
    names: list[str] = []
    original = worker.write_rows

    def write(path, *args, **options):
        names.append(path.stem)
        original(path, *args, **options)

    monkeypatch.setattr(worker, "write_rows", write)
    return names
