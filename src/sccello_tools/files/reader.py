"""Embeddings on disk, read like an array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools.errors import ArgumentError, EmbeddingFilesError

from .manifest import AGAIN, CELLS, PARTS, EmbedManifest, read_journals
from .part import VECTORS, import_zarr

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray


class EmbeddedCells:
    """Embeddings that :func:`embed_files` wrote: an array of shape (n_cells, d), float32, of which only what is asked for is read.

    Rows are in the order of the inputs, and in each in the order of its rows. A cell without tokens is NaN.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> folder = tempfile.mkdtemp()
    >>> sccello.datasets.pancreas_tritschler()[:50].write_h5ad(f"{folder}/cells.h5ad")
    >>> cells = sccello.embed_files(f"{folder}/cells.h5ad", f"{folder}/embedded")
    >>> cells[10:12].shape
    (2, 128)
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = EmbedManifest.read(folder)
        self._blocks = self.manifest.blocks()
        self._starts = np.array([block.first for block in self._blocks], dtype=np.int64)
        self._arrays: dict[str, Any] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(n_cells, d)."""
        return self.manifest.n_cells, self.manifest.config.n_dimensions

    @property
    def complete(self) -> bool:
        """Whether every cell is embedded; else another process is still at it, or the work was broken off."""
        if not self.manifest.complete:
            self.manifest = EmbedManifest.read(self.folder)
        return self.manifest.complete

    @property
    def obs(self) -> pd.DataFrame:
        """Source, row in the source, number of tokens and whether genes were cut off, indexed by the name of the cell."""
        self._check_complete()
        frame = pd.read_parquet(self.folder / CELLS)
        names = frame.pop("cell")
        if not names.is_unique:  # names need to be unique within a file at most
            names = frame["source"].astype(str) + ":" + names
        if not names.is_unique:
            names = frame["source"].astype(str) + ":" + frame["source_row"].astype(str)
        return frame.set_index(pd.Index(names.to_numpy(dtype=object)))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n, d = self.shape
        state = "" if self.manifest.complete else ", incomplete"
        return f"EmbeddedCells({n:,} × {d} float32 in {str(self.folder)!r}, model {self.manifest.model!r}{state})"

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Read rows: an integer, a slice, indices or a mask, and as with NumPy a second key for columns."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        self._check_complete()
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                msg = f"row {rows} is out of range: there are {len(self):,} cells"
                raise IndexError(msg)
            one: NDArray[np.float32] = self._read(np.array([rows % len(self)]))[0]
            return one[columns]
        return self._read(np.arange(len(self))[rows])[:, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001
        if copy is False:
            msg = "Embeddings on disk cannot become an array without being copied. Leave copy=False out."
            raise ArgumentError(msg)
        return self[:].astype(dtype or self.dtype, copy=False)

    def to_anndata(self, *, key_added: str = _keys.EMBEDDING) -> AnnData:
        """Read all of it into an AnnData without counts, as :func:`sccello_tools.tl.embed` would have written it.

        Parameters
        ----------
        key_added
            Key of ``obsm`` and ``uns``.

        Returns
        -------
        AnnData of shape (n_cells, 0), with ``obs`` as above, ``obsm[key_added]`` float32 (n_cells, d) and ``uns[key_added]``.
        """
        from anndata import AnnData

        config = self.manifest.config
        made = {
            "model": self.manifest.model,
            "weights_sha256": config.weights_sha256,
            "representation": config.representation,
            "max_length": config.max_length,
            "precision": config.precision,
            "layer": "X" if config.layer is None else config.layer,
            "ontology_release": self.manifest.ontology_release,
            "sccello_tools_version": self.manifest.sccello_tools_version,
        }
        adata = AnnData(obs=self.obs, uns={key_added: made})
        adata.obsm[key_added] = self[:]
        return adata

    def _check_complete(self) -> None:
        if not self.complete:
            n_done = sum(block.span.name in read_journals(self.folder) for block in self._blocks)
            msg = (
                f"{self.folder} is incomplete: {n_done:,} of {len(self._blocks):,} blocks are finished. Wait for the processes that are at it, "
                f"or, if there are none, go on. {AGAIN}"
            )
            raise EmbeddingFilesError(msg)

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        block_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(block_of):
            wanted = np.flatnonzero(block_of == number)
            record = self.manifest.records[number]
            offsets = rows[wanted] - self._starts[number]
            first, last = int(offsets.min()), int(offsets.max()) + 1
            values = self._array(record.part)[record.at + first : record.at + last]
            out[wanted] = values[offsets - first]
        return out

    def _array(self, part: str) -> Any:
        if part not in self._arrays:
            try:
                group = import_zarr().open_group(self.folder / PARTS / part, mode="r")
                self._arrays[part] = group[VECTORS]
            except (OSError, KeyError, ValueError) as error:
                msg = f"{self.folder / PARTS / part} is missing or damaged ({error}). {AGAIN}"
                raise EmbeddingFilesError(msg) from error
        return self._arrays[part]


def open_embedded(folder: Path | str) -> EmbeddedCells:
    """Open what :func:`embed_files` wrote.

    Parameters
    ----------
    folder
        Its ``out``.

    Returns
    -------
    The embeddings, to be sliced like an array or turned into an AnnData.

    Raises
    ------
    EmbeddingFilesError
        If the folder holds no embeddings, or its table of contents is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> folder = tempfile.mkdtemp()
    >>> sccello.datasets.pancreas_tritschler()[:50].write_h5ad(f"{folder}/cells.h5ad")
    >>> _ = sccello.embed_files(f"{folder}/cells.h5ad", f"{folder}/embedded")
    >>> adata = sccello.open_embedded(f"{folder}/embedded").to_anndata()
    >>> sccello.tl.annotate_novel(adata)
    """
    return EmbeddedCells(Path(folder))
