"""Results of embed_files and annotate_files, read lazily from their folders."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa

from sccello_tools import _keys
from sccello_tools._messages import quoted
from sccello_tools.corpus import read_record
from sccello_tools.corpus.manifest import SOURCE, SOURCE_ROW
from sccello_tools.errors import ArgumentError, FilesError

from .parquet import read_table, vectors_of
from .plan import (
    CELLS,
    EMBEDDING,
    AnnotateConfig,
    CellsRecord,
    EmbedConfig,
    FilesManifest,
    block_path,
    blocks_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray

SUMMARY = "summary.csv"


class EmbeddedCells:
    """Embeddings written by :func:`sccello_tools.embed_files`: an array of shape (n_cells, d), float32, that is read lazily.

    Rows are in the order of the inputs and of their rows. Cells without tokens are NaN.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> folder = tempfile.mkdtemp()
    >>> sccello.datasets.pancreas_tritschler()[:50].write_h5ad(f"{folder}/cells.h5ad")
    >>> cells = sccello.embed_files(f"{folder}/cells.h5ad", f"{folder}/embedded")
    >>> cells[10:12].shape
    (2, 256)
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = FilesManifest.read(folder)
        if not isinstance(self.manifest.config, EmbedConfig):
            msg = f"{folder} holds annotations, not embeddings."
            raise FilesError(msg)
        self._config = self.manifest.config
        usable = [i for i, file in enumerate(self.manifest.inputs) if not file.error]
        self._blocks = [block for i in usable for block in blocks_of(self.manifest, i)]
        self._starts = np.cumsum([0, *(block.n_rows for block in self._blocks)])
        self._column = lru_cache(maxsize=4)(self._read_column)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_cells, d)."""
        return int(self._starts[-1]), self._config.n_dimensions

    @property
    def complete(self) -> bool:
        """Whether all cells are embedded."""
        return self.manifest.complete

    @property
    def failures(self) -> dict[str, str]:
        """Why inputs were left out, by name."""
        return self.manifest.failures

    @property
    def obs(self) -> pd.DataFrame:
        """Source, row in the source, number of tokens and truncation of all cells, indexed by unique cell names."""
        self._check_complete()
        names = ["cell", SOURCE, SOURCE_ROW, _keys.N_TOKENS, _keys.TRUNCATED]
        parts = [self._table(i, names) for i in range(len(self._blocks))]
        table = pa.concat_tables(parts).unify_dictionaries() if parts else None
        frame = pd.DataFrame(columns=names) if table is None else table.to_pandas()
        cells = frame.pop("cell")
        if not cells.is_unique:  # names are unique within a file at most
            cells = frame[SOURCE].astype(str) + ":" + cells
        if not cells.is_unique:
            cells = frame[SOURCE].astype(str) + ":" + frame[SOURCE_ROW].astype(str)
        return frame.set_index(pd.Index(cells.to_numpy(dtype=object)))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n, d = self.shape
        state = "" if self.complete else ", incomplete"
        return f"EmbeddedCells({n:,} × {d} float32 in {str(self.folder)!r}, model {self.manifest.model!r}{state})"

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Read rows: an integer, a slice, indices or a mask; a second key selects columns."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        self._check_complete()
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                msg = f"row must be in [{-len(self):,}, {len(self):,}), got {rows}"
                raise IndexError(msg)
            one: NDArray[np.float32] = self._read(np.array([rows % len(self)]))[0]
            return one[columns]
        return self._read(np.arange(len(self))[rows])[:, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001
        if copy is False:
            msg = "Embeddings on disk cannot be converted to an array without a copy; omit copy=False."
            raise ArgumentError(msg)
        return self[:].astype(dtype or self.dtype, copy=False)

    def to_anndata(self, *, key_added: str = _keys.EMBEDDING) -> AnnData:
        """Read everything into an AnnData without counts, as :func:`sccello_tools.tl.embed` would have written it.

        Parameters
        ----------
        key_added
            Key of ``obsm`` and ``uns``.

        Returns
        -------
        AnnData of shape (n_cells, 0), with ``obs`` as above, ``obsm[key_added]`` float32 (n_cells, d) and ``uns[key_added]``.
        """
        from anndata import AnnData

        provenance = {
            "model": self.manifest.model,
            "weights_sha256": self._config.weights_sha256,
            "representation": self._config.representation,
            "max_length": self._config.max_length,
            "precision": self._config.precision,
            "layer": "X" if self._config.layer is None else self._config.layer,
            "ontology_release": self.manifest.ontology_release,
            "sccello_tools_version": self.manifest.sccello_tools_version,
        }
        adata = AnnData(obs=self.obs, uns={key_added: provenance})
        adata.obsm[key_added] = self[:]
        return adata

    def _check_complete(self) -> None:
        if not self.complete:
            self.manifest = FilesManifest.read(self.folder)
        if not self.complete:
            n_done = sum(block_path(self.folder, block).is_file() for block in self._blocks)
            msg = f"{self.folder} is incomplete: {n_done:,} of {len(self._blocks):,} blocks are finished. Wait for the call that is writing them, or call embed_files again with the same arguments."
            raise FilesError(msg)

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        block_of = np.searchsorted(self._starts, rows, side="right") - 1
        for block in np.unique(block_of):
            wanted = np.flatnonzero(block_of == block)
            out[wanted] = self._column(int(block))[rows[wanted] - self._starts[block]]
        return out

    def _read_column(self, block: int) -> NDArray[np.float32]:
        return vectors_of(self._table(block, [EMBEDDING]).column(0))

    def _table(self, block: int, columns: Sequence[str]) -> pa.Table:
        return read_table(block_path(self.folder, self._blocks[block]), columns)


class AnnotatedFiles:
    """Annotations written by :func:`sccello_tools.annotate_files`: one Parquet file per input and a summary.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> folder = tempfile.mkdtemp()
    >>> sccello.datasets.pancreas_tritschler()[:50].write_h5ad(f"{folder}/cells.h5ad")
    >>> found = sccello.annotate_files(f"{folder}/cells.h5ad", f"{folder}/annotated")
    >>> len(found.read("cells"))
    50
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = FilesManifest.read(folder)
        if not isinstance(self.manifest.config, AnnotateConfig):
            msg = f"{folder} holds embeddings, not annotations."
            raise FilesError(msg)

    def __repr__(self) -> str:
        n = sum(file.n_cells for file in self.manifest.inputs if not file.error)
        return f"AnnotatedFiles({n:,} cells of {len(self.sources):,} files in {str(self.folder)!r}, model {self.manifest.model!r})"

    @property
    def sources(self) -> list[str]:
        """Names of the inputs that were annotated."""
        return [file.source for file in self.manifest.inputs if not file.error]

    @property
    def failures(self) -> dict[str, str]:
        """Why inputs were left out, by name."""
        return self.manifest.failures

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Number of cells and mean confidence for each source, cell type and status."""
        return pd.read_csv(self.folder / SUMMARY, keep_default_na=False, na_values={"mean_confidence": [""]})  # fmt: skip

    @cached_property
    def records(self) -> dict[str, CellsRecord]:
        """Description of the annotations of each input."""
        found = {name: read_record(cells_path(self.folder, name), CellsRecord) for name in self.sources}  # fmt: skip
        return {name: record for name, record in found.items() if record is not None}

    @property
    def inferred_tissues(self) -> dict[str, dict[str, float]]:
        """Fractions of the tissues that were inferred from the cells of each input; empty if they were passed or the model has no tissue weights."""
        return {name: record.inferred_tissues or {} for name, record in self.records.items()}

    def path(self, source: str) -> Path:
        """Return the Parquet file of an input."""
        if source not in self.sources:
            msg = f"{source!r} is not one of the annotated files ({quoted(self.sources)})."
            raise ArgumentError(msg)
        return cells_path(self.folder, source)

    def read(self, source: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read the annotations of one input, indexed by the names of its cells.

        Parameters
        ----------
        source
            Name of the input.
        columns
            Columns to read; by default all.
        """
        wanted = None if columns is None else ["cell", *columns]
        frame: pd.DataFrame = read_table(self.path(source), wanted).to_pandas()
        return frame.set_index("cell")


def cells_path(folder: Path, source: str) -> Path:
    """Return the path of the annotations of an input."""
    return folder / CELLS / f"{quote(source, safe=' ')}.parquet"


def open_embedded(folder: Path | str) -> EmbeddedCells:
    """Open the result of :func:`sccello_tools.embed_files`.

    Parameters
    ----------
    folder
        Its ``out``.

    Returns
    -------
    The embeddings, which can be sliced like an array or converted to an AnnData.

    Raises
    ------
    FilesError
        If the folder holds no embeddings, or its manifest is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> folder = tempfile.mkdtemp()
    >>> sccello.datasets.pancreas_tritschler()[:50].write_h5ad(f"{folder}/cells.h5ad")
    >>> _ = sccello.embed_files(f"{folder}/cells.h5ad", f"{folder}/embedded")
    >>> adata = sccello.open_embedded(f"{folder}/embedded").to_anndata()
    >>> sccello.tl.annotate_novel(adata, evidence=("embedding", "ontology"))  # there are no counts
    """
    return EmbeddedCells(Path(folder))
