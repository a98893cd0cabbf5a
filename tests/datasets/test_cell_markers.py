from __future__ import annotations

import gzip

import pytest

from sccello_tools.datasets import cell_markers
from sccello_tools.errors import FileFormatError

TABLE = (
    "cellType\tgeneMarker\nB cells\tCD19, MS4A1,CD19,not-a-gene\nglargh corpuscle\tINS\nT cells\t\n"
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "markers.tsv"
    path.write_text(TABLE)
    return path


def test_a_row_for_each_type_and_gene(path):
    table = cell_markers(path)
    assert table["symbol"].tolist() == ["CD19", "MS4A1", "INS"]
    assert table["gene_id"].tolist() == ["ENSG00000177455", "ENSG00000156738", "ENSG00000254647"]


def test_types_have_terms_and_a_name_that_fits_none_has_no_guess(path):
    table = cell_markers(path)
    assert table["cell_type_ontology_term_id"].tolist() == ["CL:0000236", "CL:0000236", ""]
    assert table["cell_type"].tolist() == ["B cells", "B cells", "glargh corpuscle"]


def test_other_columns_and_gzip(tmp_path):
    path = tmp_path / "own.tsv.gz"
    path.write_bytes(gzip.compress(b"type\tgenes\nB cell\tCD19\n"))
    table = cell_markers(path, type_column="type", genes_column="genes")
    assert table["cell_type_ontology_term_id"].tolist() == ["CL:0000236"]


def test_a_table_without_the_columns(tmp_path):
    path = tmp_path / "other.tsv"
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(FileFormatError, match=r"'cellType'.*'a', 'b'"):
        cell_markers(path)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00\x01"])
def test_what_is_no_table(tmp_path, content):
    path = tmp_path / "none.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileFormatError, match="marker table"):
        cell_markers(path)
