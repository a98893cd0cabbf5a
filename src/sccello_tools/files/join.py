"""Steps of the annotation that need all blocks of a file: infer its tissues, join, summarize, write back; runs on workers."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sccello_tools import _keys
from sccello_tools._anndata.counts import n_uncalibrated
from sccello_tools._io import atomic_folder, atomic_path, check_free
from sccello_tools.corpus import read_record
from sccello_tools.errors import FilesError

from .blocks import PARTIAL, finish
from .parquet import as_table, read_table, vectors_of, write_rows
from .plan import BLOCKS, EMBEDDING, AnnotateConfig, CellsRecord, block_path, blocks_of
from .read import import_zarr, locate, open_group, read_any, write_any
from .results import cells_path
from .worker import job_of

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from sccello_tools.corpus.manifest import Input

    from .worker import Job, Setup

FILES = "files"
_ROW_GROUP = 65_536  # cells that are summarized at a time
_KEY = _keys.CELL_TYPE
_GROUPS = [_KEY, _KEY + _keys.TERM_ID_SUFFIX, _KEY + _keys.STATUS_SUFFIX]
_CONFIDENCE = _KEY + _keys.CONFIDENCE_SUFFIX


def infer_tissues(setup: Setup, number: int) -> dict[str, float]:
    """Infer the tissues of a file from a sample of its embedded cells, as :func:`sccello_tools.tl.annotate_novel` does.

    If an earlier call has annotated some of the blocks, their tissues are kept.
    """
    from sccello_tools import annotation
    from sccello_tools.engine import cell_representation

    job = job_of(setup)
    manifest = job.manifest
    blocks = blocks_of(manifest, number)
    paths = [block_path(setup.out, block) for block in blocks]
    for path in paths:
        record = read_record(path, CellsRecord)
        if record is not None and record.inferred_tissues is not None:
            return record.inferred_tissues
    step = annotation.tissue_sample(manifest.inputs[number].n_cells).step
    sampled = []
    for block, path in zip(blocks, paths):
        vectors = vectors_of(read_table(path, [EMBEDDING]).column(0))
        sampled.append(vectors[-block.start % step :: step])
    hidden = np.concatenate(sampled)
    cells = cell_representation(job.model.network, hidden)
    return annotation.infer_tissues(job.annotator, hidden, cells)


def is_joined(out: Path, file: Input, digest: str) -> bool:
    """Whether the annotations of a file are complete."""
    record = read_record(cells_path(out, file.source), CellsRecord)
    return (
        record is not None
        and record.config == digest
        and record.fingerprint == file.fingerprint
        and record.last_row == file.n_cells
    )


def join(setup: Setup, number: int) -> pd.DataFrame:
    """Join the blocks of a file, annotate its cells, and delete the blocks.

    Returns
    -------
    Number of cells and mean confidence for each cell type and status.
    """
    from sccello_tools.annotation import calibrated_lengths

    job = job_of(setup)
    manifest = job.manifest
    file, digest = manifest.inputs[number], manifest.config.digest
    target = cells_path(setup.out, file.source)
    paths = [block_path(setup.out, block) for block in blocks_of(manifest, number)]
    if not is_joined(setup.out, file, digest):
        records = [r for path in paths if (r := read_record(path, CellsRecord)) is not None]
        if len(records) < len(paths):
            msg = f"{setup.out / BLOCKS} lacks blocks of {file.source}. Call annotate_files again with the same arguments."
            raise FilesError(msg)
        table = _finished(paths, job)
        calibrated = calibrated_lengths(job.annotator.fit, job.model.config.max_positions)
        described = records[0].model_copy(
            update={
                "name": file.source,
                "first_row": 0,
                "last_row": file.n_cells,
                "n_empty": sum(record.n_empty for record in records),
                "n_unknown": sum(record.n_unknown for record in records),
                "n_uncalibrated": n_uncalibrated(
                    table.column(_keys.N_TOKENS).to_numpy(), calibrated
                ),
            }
        )
        write_rows(target, table.schema, [table], described, row_group=_ROW_GROUP)
    summary = _summary(target)
    summary.insert(0, "source", file.source)
    for path in paths:
        path.unlink(missing_ok=True)
    return summary


def _finished(paths: list[Path], job: Job) -> pa.Table:
    """Read the blocks of a file and decide for all of its cells."""
    table = pa.concat_tables([read_table(path) for path in paths], promote_options="default")
    kept = [name for name in table.column_names if not name.startswith(PARTIAL)]
    columns = {name: table.column(name) for name in kept}
    return as_table(columns | finish(table, job.annotator))


def _summary(path: Path) -> pd.DataFrame:
    """Count cells in groups, one row group in memory at a time."""
    parts = []
    with pq.ParquetFile(path) as file:
        for i in range(file.num_row_groups):
            frame = file.read_row_group(i, columns=[*_GROUPS, _CONFIDENCE]).to_pandas()
            frame[_GROUPS] = frame[_GROUPS].astype(object).fillna("")
            parts.append(
                frame.groupby(_GROUPS, sort=True)[_CONFIDENCE].agg(["size", "sum", "count"])
            )
    total = pd.concat(parts).groupby(level=[0, 1, 2], sort=True).sum()
    confidence = np.divide(total["sum"], total["count"].where(total["count"] > 0))
    found = pd.DataFrame({"n_cells": total["size"], "mean_confidence": confidence.round(4)})
    return found.sort_values("n_cells", ascending=False, kind="stable").reset_index()


def write_back(setup: Setup, number: int) -> Path:
    """Write a copy of an input with its annotations in ``obs``; the matrix is copied without being read into memory."""
    job = job_of(setup)
    file, config = job.manifest.inputs[number], job.config
    location = locate(file.path)
    is_zarr = location.kind == "zarr"
    name = cells_path(setup.out, file.source).stem
    target = setup.out / FILES / f"{name}{'.zarr' if is_zarr else '.h5ad'}"
    provenance = {"config": config.digest, "weights_sha256": getattr(config, "weights_sha256", "")}
    if isinstance(config, AnnotateConfig):
        known = {key: value for key, value in config.parameters.items() if value is not None}
        provenance |= {key: list(v) if isinstance(v, tuple) else v for key, v in known.items()}
    if target.exists() and _digest_of(target) == config.digest:
        return target
    record = read_record(cells_path(setup.out, file.source), CellsRecord)
    if record is not None:
        provenance["inferred_tissues"] = record.inferred_tissues or {}
    table = read_table(cells_path(setup.out, file.source))
    columns = {
        name: _obs_values(table.column(name)) for name in table.column_names if name not in {"cell", "source", "source_row"}
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # anndata and zarr about each other's versions
        if is_zarr:
            zarr = import_zarr(target)
            with atomic_folder(target) as part:
                shutil.copytree(file.path, part, dirs_exist_ok=True)
                _fill(zarr.open_group(part, mode="r+", use_consolidated=False), columns, provenance)
                zarr.consolidate_metadata(part)
        elif location.kind == "h5ad" and not location.group:
            import h5py

            with atomic_path(target) as part:
                shutil.copyfile(file.path, part)
                # HDF5 may crash when the disk that it writes to is full
                check_free(part.parent, 100 * file.n_cells + 1_000_000, output=target)
                with h5py.File(part, "r+") as store:
                    _fill(store, columns, provenance)
        else:
            adata = read_any(file.path)
            for key, values in columns.items():
                adata.obs[key] = values
            adata.uns[_KEY] = provenance
            write_any(adata, target)
    return target


def _obs_values(column: Any) -> Any:
    values = column.to_pandas()
    return values.array if isinstance(values.dtype, pd.CategoricalDtype) else values.to_numpy()


def _fill(store: Any, columns: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Write columns of ``obs`` and their provenance into an AnnData on disk."""
    from anndata.io import write_elem

    obs = store["obs"]
    for name, values in columns.items():
        if name in obs:
            del obs[name]
        write_elem(obs, name, values)
    order = [str(name) for name in obs.attrs.get("column-order", [])]
    order += [name for name in columns if name not in order]
    obs.attrs["column-order"] = order
    uns = store.require_group("uns")
    if _KEY in uns:
        del uns[_KEY]
    write_elem(uns, _KEY, provenance)


def _digest_of(path: Path) -> str:
    """Return the digest of the annotation that a written file holds."""
    from anndata.io import read_elem

    with open_group(locate(path)) as store:
        made = store.get(f"uns/{_KEY}/config")
        return "" if made is None else str(read_elem(made))
