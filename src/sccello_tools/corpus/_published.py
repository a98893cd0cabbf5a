"""Find the data files of published corpora: folders of Parquet or Arrow files, or folders saved by ``datasets``; decode integer labels."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sccello_tools._logging import logger
from sccello_tools.errors import CorpusError
from sccello_tools.ontology import published_labels

from .manifest import CELL_TYPE, TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Final

TOKEN_COLUMNS: Final = (TOKENS, "input_ids")
# ids are preferred to names, which have to be mapped
LABEL_COLUMNS: Final = (CELL_TYPE, "cell_ct_ontology", "cell_type")
_OF_SPLIT: Final = re.compile(r"(.+)-\d{5}-of-\d{5}")
_EXPECTED: Final = (
    "Pass a folder written by pp.build_corpus, or Parquet or Arrow files with the columns gene_token_ids and "
    "cell_ct_ontology or cell_type."
)


def published_files(path: Path, *, split: str | None) -> list[Path]:
    """List the data files of a published corpus, in order.

    Parameters
    ----------
    path
        A file, a folder of files, or a folder saved by ``datasets``.
    split
        Name of the split, such as "train", if there are several.

    Raises
    ------
    CorpusError
        If there is no data file, or there are several splits and ``split`` names none of them.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        msg = f"Corpus not found: {path}. {_EXPECTED}"
        raise CorpusError(msg)
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return published_files(path / _chosen(path, split, splits), split=None)
    if (path / "state.json").is_file():
        return _saved_by_datasets(path)
    parquet, arrow = sorted(path.rglob("*.parquet")), sorted(path.rglob("*.arrow"))
    if parquet and arrow:
        msg = f"{path} holds {len(parquet):,} Parquet and {len(arrow):,} Arrow files. Pass a folder with one type only."
        raise CorpusError(msg)
    files = parquet or arrow
    if not files:
        msg = f"{path} holds no Parquet or Arrow files. {_EXPECTED}"
        raise CorpusError(msg)
    split_of = {file: _split_of(file) for file in files}
    if set(split_of.values()) == {""} and split is None:
        return files
    chosen = _chosen(path, split, split_of.values())
    return [file for file in files if split_of[file] == chosen]


def chosen_column(names: Sequence[str], known: Sequence[str], asked: str | None, path: Path) -> str:
    """Return the requested column, or the first of the known ones.

    Raises
    ------
    CorpusError
        If none of them exists.
    """
    found = [name for name in (known if asked is None else (asked,)) if name in names]
    if not found:
        wanted = " or ".join(known) if asked is None else asked
        msg = f"{path} has no column {wanted} (columns: {', '.join(names)}). {_EXPECTED}"
        raise CorpusError(msg)
    return found[0]


def names_of_integers(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Return the names of integer labels; None if the labels are not integers.

    ``datasets`` stores the names of a ``ClassLabel`` in the schema. Integers without names are indices of the cell types of the
    published model, as in the published corpora.

    Parameters
    ----------
    schema
        Schema of a shard.
    column
        Column with the labels.
    """
    if not pa.types.is_integer(schema.field(column).type):
        return None
    written = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = written.get("info", {}).get("features", {}).get(column, {})
    if feature.get("_type") == "ClassLabel":
        return tuple(feature["names"])
    names = published_labels()
    logger.warning(
        "The labels in column %r are integers without names; they are read as indices of the %d cell types of the published model.",
        column, len(names),
    )  # fmt: skip
    return names


def decode_integers(
    column: pa.ChunkedArray, names: Sequence[str], *, where: str
) -> pa.DictionaryArray:
    """Replace integer labels by their names; -1 and missing values have none.

    Raises
    ------
    CorpusError
        If an integer has no name.
    """
    codes = np.asarray(pc.fill_null(column.combine_chunks().cast(pa.int64()), -1))
    if len(codes) and not -1 <= int(codes.min()) <= int(codes.max()) < len(names):
        msg = f"{where} has integer labels from {codes.min()} to {codes.max()}, but there are {len(names)} names. Pass label_key= with the column of Cell Ontology ids or names."
        raise CorpusError(msg)
    indices = pa.array(codes, mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, type=pa.string()))


def _saved_by_datasets(path: Path) -> list[Path]:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if state.get("_indices_data_files"):
        msg = f"{path} holds a row selection. Save it with dataset.flatten_indices().save_to_disk(...) first."
        raise CorpusError(msg)
    return [path / file["filename"] for file in state["_data_files"]]


def _split_of(file: Path) -> str:
    match = _OF_SPLIT.fullmatch(file.stem)
    return match[1] if match else ""


def _chosen(path: Path, split: str | None, splits: Iterable[str]) -> str:
    there = sorted(set(splits))
    if split is None and len(there) == 1:
        return there[0]
    if split is None or split not in there:
        found = "no such split" if split is not None else "several splits"
        msg = f"{path} holds {found} ({', '.join(map(repr, there))}). Pass one of them as split=."
        raise CorpusError(msg)
    return split
