"""The excerpt, and folders of the same form."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools.errors import FileFormatError, ResponseError

EXCERPT = Path(str(files("sccello_tools") / "resources" / "drug_response"))


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(EXCERPT, tmp_path / "gdsc"))


def test_the_excerpt_is_whole_and_says_what_it_left_out():
    data = sccello.datasets.gdsc()
    assert data.expression.shape == (60, 1500)
    assert data.ln_ic50.shape == (60, 20)
    assert data.ln_ic50.notna().to_numpy().mean() > 0.95
    assert data.expression.index.equals(data.ln_ic50.index)
    assert data.smiles.index.equals(data.ln_ic50.columns)
    assert data.report.lines_without_expression == ("NCI-H460",)
    assert data.report.n_repeated == 104


def test_a_case_that_is_known_is_there():
    """HCC827 has an EGFR that erlotinib was made for."""
    ln_ic50 = sccello.datasets.gdsc().ln_ic50
    assert ln_ic50.loc["HCC827", "Erlotinib"] < ln_ic50.loc["A549", "Erlotinib"] - 4


def test_a_folder_reads_as_the_excerpt(folder):
    pd.testing.assert_frame_equal(
        sccello.datasets.gdsc(folder).ln_ic50, sccello.datasets.gdsc().ln_ic50
    )


def test_a_missing_file_is_named(folder):
    (folder / "drug_smiles.tsv").unlink()
    with pytest.raises(FileFormatError, match=r"drug_smiles\.tsv cannot be read.*folder"):
        sccello.datasets.gdsc(folder)


def test_a_damaged_file_is_named(folder):
    (folder / "gdsc2_ln_ic50.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(FileFormatError, match=r"gdsc2_ln_ic50\.parquet cannot be read"):
        sccello.datasets.gdsc(folder)


def test_a_missing_column_is_named(folder):
    path = folder / "gdsc2_ln_ic50.parquet"
    pd.read_parquet(path).rename(columns={"ln_ic50": "ic50"}).to_parquet(path)
    with pytest.raises(FileFormatError, match="no column 'ln_ic50'"):
        sccello.datasets.gdsc(folder)


def test_micromolar_is_noticed(folder):
    path = folder / "gdsc2_ln_ic50.parquet"
    table = pd.read_parquet(path)
    table.assign(ln_ic50=np.exp(table["ln_ic50"])).to_parquet(path)
    with pytest.raises(ResponseError, match=r"np\.log\(ic50\)"):
        sccello.datasets.gdsc(folder)
