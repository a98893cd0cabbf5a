"""Labels of published corpora: Cell Ontology ids, names, or integers with and without names."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sccello_tools.corpus import Corpus
from sccello_tools.errors import CorpusError
from sccello_tools.ontology import published_labels
from sccello_tools.tokens import CLS_ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ["T cell", "B cell", "monocyte"]


def cells(labels: list[int | None], names: list[str] | None = None, **columns: list) -> pa.Table:
    """A table as ``datasets`` writes it: integer labels, and their names in the metadata of the schema."""
    table = pa.table({
        "gene_token_ids": [[CLS_ID, 5 + i] for i in range(len(labels))],
        "cell_type": pa.array(labels, type=pa.int64()),
        **columns,
    })  # fmt: skip
    feature = {"_type": "Value", "dtype": "int64"}
    if names is not None:
        feature = {"_type": "ClassLabel", "names": names}
    info = {"info": {"features": {"cell_type": feature}}}
    return table.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})


def as_parquet(table: pa.Table, folder: Path) -> Path:
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    return folder


def as_stream(table: pa.Table, folder: Path) -> Path:
    with pa.ipc.new_stream(folder / "corpus-train.arrow", table.schema) as writer:
        writer.write_table(table)
    return folder


def as_saved_folder(table: pa.Table, folder: Path) -> Path:
    as_stream(table, folder)
    files = [{"filename": "corpus-train.arrow"}]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    return folder


FORMS = pytest.mark.parametrize("write", [as_parquet, as_stream, as_saved_folder])


@FORMS
def test_integers_with_names(write: Callable, tmp_path: Path) -> None:
    corpus = Corpus.open(write(cells([0, 2, 2, -1, None], NAMES), tmp_path))
    assert corpus.cell_types == {"": 2, "monocyte": 2, "T cell": 1}
    assert corpus.to_memory().cell_types.tolist() == ["T cell", "monocyte", "monocyte", "", ""]
    assert corpus.read_block(0).cell_types.tolist()[0] == "T cell"


@FORMS
def test_integers_without_names_are_those_of_the_published_model(
    write: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        corpus = Corpus.open(write(cells([0, 397, 1]), tmp_path))
    ids = published_labels()
    assert corpus.to_memory().cell_types.tolist() == [ids[0], ids[397], ids[1]]
    assert "'cell_type' are integers" in caplog.text


@pytest.mark.parametrize("labels", [[398], [-2], [0, 10**9]])
def test_integers_without_a_name_are_refused(labels: list[int], tmp_path: Path) -> None:
    corpus = Corpus.open(as_parquet(cells(labels), tmp_path))
    with pytest.raises(CorpusError, match=rf"{max(labels, key=abs)}.*398 names.*label_key="):
        corpus.to_memory()


def test_ids_come_before_integers(tmp_path: Path) -> None:
    ids = ["CL:0000084", None]
    table = cells([1, 1], NAMES, cell_ct_ontology=ids)
    corpus = Corpus.open(as_parquet(table, tmp_path))
    assert corpus.to_memory().cell_types.tolist() == ["CL:0000084", ""]
    chosen = Corpus.open(tmp_path, label_key="cell_type")
    assert chosen.to_memory().cell_types.tolist() == ["B cell", "B cell"]


def test_strings_are_unchanged(tmp_path: Path) -> None:
    table = cells([0, 0]).set_column(1, "cell_type", pa.array(["7", "T cell"]))
    corpus = Corpus.open(as_parquet(table, tmp_path))
    assert corpus.label_names is None
    assert corpus.to_memory().cell_types.tolist() == ["7", "T cell"]
