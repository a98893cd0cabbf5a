"""Reading corpora: as published, damaged, in order, at random, and from where another reader stopped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sccello_tools.corpus import Corpus
from sccello_tools.errors import CorpusError
from sccello_tools.tokens import CLS_ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N = 53
NAMES = ["T cell", "B cell", "monocyte"]
IDS = ["CL:0000084", "CL:0000236", "CL:0000576"]


def tokens_of(i: int) -> list[int]:
    """Cell ``i`` can be told by its second token."""
    return [CLS_ID, 2 + i, *range(100, 100 + i % 7)]


@pytest.fixture(scope="session")
def published() -> pa.Table:
    """Cells with the columns and types of the published corpora."""
    return pa.table({
        "gene_expression_nums": pa.array([[0.0] * len(tokens_of(i)) for i in range(N)]),
        "gene_token_ids": pa.array([tokens_of(i) for i in range(N)], type=pa.list_(pa.int64())),
        "cell_dataset_id": pa.array(["a"] * N),
        "cell_ct_ontology": pa.array([IDS[i % 3] for i in range(N)]),
        "cell_type": pa.array([NAMES[i % 3] for i in range(N)]),
        "length": pa.array([len(tokens_of(i)) for i in range(N)], type=pa.int64()),
    })  # fmt: skip


def as_parquet(table: pa.Table, folder: Path) -> Path:
    for i, start in enumerate((0, 20, 40)):
        path = folder / "data" / f"train-{i:05d}-of-00003.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table.slice(start, 20), path, row_group_size=6)
    return folder


def as_arrow_file(table: pa.Table, folder: Path) -> Path:
    for i, start in enumerate((0, 30)):
        part = table.slice(start, 30)
        with pa.ipc.new_file(folder / f"part-{i}.arrow", part.schema) as writer:
            writer.write_table(part, max_chunksize=7)
    return folder


def as_saved_by_datasets(table: pa.Table, folder: Path) -> Path:
    files = []
    for i, start in enumerate((0, 30)):
        part = table.slice(start, 30)
        name = f"data-{i:05d}-of-00002.arrow"
        with pa.ipc.new_stream(folder / name, part.schema) as writer:
            writer.write_table(part, max_chunksize=7)
        files.append({"filename": name})
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text("{}")
    (folder / "cache-0123.arrow").write_bytes(b"left by a call of map")
    return folder


def as_dictionary_splits(table: pa.Table, folder: Path) -> Path:
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    (folder / "train").mkdir()
    as_saved_by_datasets(table, folder / "train")
    return folder


def as_one_file(table: pa.Table, folder: Path) -> Path:
    pq.write_table(table, folder / "cells.parquet", row_group_size=10)
    return folder / "cells.parquet"


FORMS = [as_parquet, as_arrow_file, as_saved_by_datasets, as_dictionary_splits, as_one_file]


@pytest.mark.parametrize("write", FORMS)
def test_published_forms_are_read_in_order(
    write: Callable[[pa.Table, Path], Path], published: pa.Table, tmp_path: Path
) -> None:
    corpus = Corpus.open(write(published, tmp_path))
    assert len(corpus) == N
    assert corpus.cell_types == {"CL:0000084": 18, "CL:0000236": 18, "CL:0000576": 17}
    cells = corpus.to_memory()
    assert [cells.tokens[i].tolist() for i in range(N)] == [tokens_of(i) for i in range(N)]
    assert cells.cell_types.tolist() == [IDS[i % 3] for i in range(N)]
    assert corpus.lengths.tolist() == cells.tokens.lengths.tolist()
    assert np.isnan(cells.tokens.values).all()
    batches = pa.Table.from_batches(corpus.record_batches(["cell_dataset_id", "length"]))
    assert batches["length"].to_pylist() == published["length"].to_pylist()
    by_block = [corpus.read_block(i) for i in reversed(range(corpus.n_blocks))]
    assert sum(map(len, by_block)) == N
    assert by_block[-1].tokens[1].tolist() == tokens_of(1)
    corpus.verify()


def test_shards_are_read_at_random(published: pa.Table, tmp_path: Path) -> None:
    corpus = Corpus.open(as_parquet(published, tmp_path))
    assert [shard.n_cells for shard in corpus.shards] == [20, 20, 13]
    assert corpus.block_sizes.tolist() == [6, 6, 6, 2, 6, 6, 6, 2, 6, 6, 1]
    assert corpus.read_block(4).tokens[5].tolist() == tokens_of(25)
    with pytest.raises(IndexError, match=r"\[0, 11\), got 11"):
        corpus.read_block(11)


def test_names_are_taken_where_there_are_no_ids(published: pa.Table, tmp_path: Path) -> None:
    path = as_one_file(published.drop_columns(["cell_ct_ontology"]), tmp_path)
    assert Corpus.open(path).cell_types["T cell"] == 18
    assert Corpus.open(path).label_column == "cell_type"
    with pytest.raises(CorpusError, match=r"has no column cell_kind \(columns: gene_expression_nu"):
        Corpus.open(path, label_key="cell_kind")


def test_cells_are_cut_and_missing_values_kept_as_rows(tmp_path: Path) -> None:
    table = pa.table({
        "gene_token_ids": pa.array([[CLS_ID, 5, 6, 7], None, [], [CLS_ID, 8]]),
        "cell_type": pa.array(["T cell", None, "T cell", ""]),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "cells.parquet")
    corpus = Corpus.open(tmp_path, max_length=3)
    cells = corpus.to_memory()
    assert [cells.tokens[i].tolist() for i in range(4)] == [[CLS_ID, 5, 6], [], [], [CLS_ID, 8]]
    assert corpus.lengths.tolist() == [3, 0, 0, 2]
    assert corpus.cell_types == {"": 2, "T cell": 2}
    assert cells.tokens.truncated.tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match=r"max_length.*got 1"):
        Corpus.open(tmp_path, max_length=1)


@pytest.fixture
def corpus(published: pa.Table, tmp_path: Path) -> Corpus:
    return Corpus.open(as_parquet(published, tmp_path))


@pytest.mark.parametrize(("start", "stop"), [(0, 53), (0, 1), (5, 7), (5, 21), (19, 41), (52, 53)])
def test_consecutive_rows_are_read_across_blocks_and_files(
    corpus: Corpus, start: int, stop: int
) -> None:
    cells = corpus.read_rows(start, stop)
    assert [cells.tokens[i].tolist() for i in range(len(cells))] == [
        tokens_of(i) for i in range(start, stop)
    ]
    lengths = corpus.read_columns(start, stop, ["length"])["length"].to_pylist()
    assert lengths == [len(tokens_of(i)) for i in range(start, stop)]


# --- bad input


def test_several_splits_are_not_mixed(published: pa.Table, tmp_path: Path) -> None:
    for split in ("train", "test"):
        pq.write_table(published, tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(CorpusError, match=r"several splits \('test', 'train'\).*split="):
        Corpus.open(tmp_path)
    with pytest.raises(CorpusError, match=r"no such split \('test', 'train'\)"):
        Corpus.open(tmp_path, split="validation")
    assert len(Corpus.open(tmp_path, split="test")) == N


def test_a_selection_of_rows_is_not_taken_for_all(published: pa.Table, tmp_path: Path) -> None:
    as_saved_by_datasets(published, tmp_path)
    state = {"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CorpusError, match=r"flatten_indices"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, 0 bytes"),
        (b"PAR1 and then nothing of the kind PARX", "cannot be read as a shard"),
        (b"neither the one nor the other kind of file", "cannot be read as a shard"),
    ],
)
def test_damaged_files_are_named(
    content: bytes, message: str, published: pa.Table, tmp_path: Path
) -> None:
    as_parquet(published, tmp_path)
    bad = tmp_path / "data" / "train-00001-of-00003.parquet"
    bad.write_bytes(content)
    with pytest.raises(CorpusError, match=message) as raised:
        Corpus.open(tmp_path)
    assert str(bad) in str(raised.value)
    assert "Download the file again" in str(raised.value)


def test_a_corrupt_footer_is_named(published: pa.Table, tmp_path: Path) -> None:
    path = as_one_file(published, tmp_path)
    content = bytearray(path.read_bytes())
    content[-40:-8] = b"\xff" * 32
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"cells\.parquet cannot be read as a shard of a corpus"):
        Corpus.open(path)


def test_a_file_without_cells_is_named(published: pa.Table, tmp_path: Path) -> None:
    as_parquet(published, tmp_path)
    bad = tmp_path / "data" / "train-00003-of-00003.parquet"
    pq.write_table(published.slice(0, 0), bad)
    with pytest.raises(CorpusError, match=r"train-00003-of-00003.* it has no cells"):
        Corpus.open(tmp_path)


def test_a_file_cut_off_after_opening_is_named(published: pa.Table, tmp_path: Path) -> None:
    path = as_one_file(published, tmp_path)
    corpus = Corpus.open(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CorpusError, match=r"cells\.parquet cannot be read"):
        corpus.read_block(2)


def test_a_file_without_the_column_is_named(published: pa.Table, tmp_path: Path) -> None:
    as_parquet(published, tmp_path)
    bad = tmp_path / "data" / "train-00002-of-00003.parquet"
    pq.write_table(published.select(["gene_token_ids", "length"]), bad)
    with pytest.raises(
        CorpusError, match=r"00002-of-00003.*no column cell_ct_ontology \(columns: "
    ):
        Corpus.open(tmp_path).to_memory()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[CLS_ID, 25_427]], r"\[0, 25426\], got 25426 to 25427"),
        ([[CLS_ID, -1]], r"got -1 to 25426"),
        ([[CLS_ID, 5], [7, 5]], r"start with <cls> \(25426\), found 7"),
        ([[CLS_ID, None]], r"type int64 with 1 missing"),
        ([[0.5, 1.0]], r"type double"),
    ],
)
def test_ids_of_another_vocabulary_are_refused(
    tokens: list[list[object]], message: str, tmp_path: Path
) -> None:
    table = pa.table({"gene_token_ids": tokens, "cell_type": ["T cell"] * len(tokens)})
    pq.write_table(table, tmp_path / "cells.parquet")
    with pytest.raises(CorpusError, match=message):
        Corpus.open(tmp_path).to_memory()


def test_what_is_no_corpus_is_told(published: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"not found: .*nowhere"):
        Corpus.open(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=r"no Parquet or Arrow files.*build_corpus"):
        Corpus.open(tmp_path)
    as_parquet(published, tmp_path)
    as_arrow_file(published, tmp_path)
    with pytest.raises(CorpusError, match=r"3 Parquet and 2 Arrow files"):
        Corpus.open(tmp_path)


def test_too_large_for_memory_is_said_before_reading(published: pa.Table, tmp_path: Path) -> None:
    corpus = Corpus.open(as_parquet(published, tmp_path))
    with pytest.raises(CorpusError, match=r"0.0 GB.*record_batches"):
        corpus.to_memory(max_bytes=100)
