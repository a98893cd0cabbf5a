from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from sccello_tools.get import marker_genes_df

KEY = "sccello_marker_genes"
FIELDS = ("scores", "mean_scores", "logfoldchanges", "pvals", "pvals_adj", "shares")


@pytest.fixture
def marked():
    names = {"a": ["x", "y", "z"], "b": ["z", "y", "x"]}
    figures = pd.DataFrame({"a": [3.0, 2.0, 1.0], "b": [0.3, 0.2, 0.1]})
    result = {field: figures.to_records(index=False) for field in FIELDS}
    result["names"] = pd.DataFrame(names).to_records(index=False)
    result["reference_shares"] = figures.to_records(index=False)
    return anndata.AnnData(np.zeros((1, 3)), uns={KEY: result})


def test_all_groups_in_their_order(marked):
    table = marker_genes_df(marked)
    assert table["group"].tolist() == ["a"] * 3 + ["b"] * 3
    assert table["names"].tolist() == ["x", "y", "z", "z", "y", "x"]
    assert table["scores"].tolist() == [3, 2, 1, 0.3, 0.2, 0.1]


def test_some_groups_and_genes(marked):
    assert marker_genes_df(marked, "b", n_genes=1)["names"].tolist() == ["z"]
    assert marker_genes_df(marked, ["b", "a"], n_genes=1)["group"].tolist() == ["b", "a"]
    assert marker_genes_df(marked, max_pval_adj=0.2)["names"].tolist() == ["y", "x"]


def test_what_is_not_there(marked):
    with pytest.raises(KeyError, match=r"holds no marker genes.*Call sccello.tl.marker_genes"):
        marker_genes_df(marked, key="other")
    with pytest.raises(KeyError, match=r"no group 'c'.*expected one of 'a', 'b'"):
        marker_genes_df(marked, ["a", "c"])
