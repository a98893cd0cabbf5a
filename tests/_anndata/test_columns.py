"""Columns of obs, their texts, and objects that are not an AnnData."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools._anndata.columns import as_text, check_anndata, require_obs
from sccello_tools.errors import ArgumentError, GroupError, LabelError


class MuData:
    def __init__(self, mod):
        self.mod = mod
        self.obs, self.var = pd.DataFrame(), pd.DataFrame()


class SpatialData:
    def __init__(self, tables):
        self.tables = tables


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (MuData({"prot": 1, "rna": 2}), r"MuData with modalities 'prot', 'rna'.*mdata\['rna'\]"),
        (MuData({"GEX": 1, "atac": 2}), r"mdata\['GEX'\]"),
        (MuData({"a": 1, "b": 2}), r"mdata\['a'\]"),
        (SpatialData({"table": 1}), r"SpatialData with tables 'table'.*tables\['table'\]"),
        ("cells.h5ad", r"read_h5ad\('cells\.h5ad'\)"),
        (Path("cells.h5ad"), "path"),
        (np.ones((3, 3)), "ndarray.*AnnData"),
        (None, "NoneType.*AnnData"),
    ],
)
def test_what_is_not_an_anndata(given, says):
    calls = [
        lambda: check_anndata(given),
        lambda: sccello.pp.match_genes(given),
        lambda: sccello.pp.tokenize(given),
        lambda: sccello.pp.map_cell_types(given, "label"),
        lambda: sccello.tl.embed(given),
        lambda: require_obs(given, "label", argument="label_key"),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match=says):
            call()


def test_missing_column(adata):
    with pytest.raises(LabelError, match=r"'kind' \(columns: 'donor'\).*label_key=.*Help"):
        require_obs(adata, "kind", argument="label_key", error=LabelError, remedy="Help.")


def test_repeated_column(adata):
    adata.obs = pd.concat([adata.obs, adata.obs], axis=1)
    with pytest.raises(GroupError, match="2 columns named 'donor'"):
        require_obs(adata, "donor", argument="batch_key")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([" a", "b ", None, np.nan], ["a", "b", "", ""]),
        (pd.Categorical(["x", None, "y"]), ["x", "", "y"]),
        (pd.Categorical([2, 1, 2]), ["2", "1", "2"]),
        ([1, 2, 10], ["1", "2", "10"]),
        ([1.0, np.nan, 10.0], ["1", "", "10"]),
        ([1.5, 2.0], ["1.5", "2"]),
        ([b"T cell", "T cell", "B"], ["T cell", "T cell", "B"]),
        (pd.array(["a", pd.NA], dtype="string"), ["a", ""]),
        (pd.array([1, None], dtype="Int64"), ["1", ""]),
        ([True, False], ["True", "False"]),
        ([], []),
    ],
)
def test_text_of_values(values, texts):
    assert as_text(pd.Series(values)).tolist() == texts
