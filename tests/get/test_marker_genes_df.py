from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from sccello_tools.errors import NotFoundError
from sccello_tools.get import marker_genes_df

KEY = "sccello_marker_genes"
FIELDS = ("scores", "mean_scores", "logfoldchanges", "pvals", "pvals_adj", "fractions")


@pytest.fixture
def marked():
    names = {"a": ["x", "y", "z"], "b": ["z", "y", "x"]}
    figures = pd.DataFrame({"a": [3.0, 2.0, 1.0], "b": [0.3, 0.2, 0.1]})
    result = {field: figures.to_records(index=False) for field in FIELDS}
    result["names"] = pd.DataFrame(names).to_records(index=False)
    result["reference_fractions"] = figures.to_records(index=False)
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


def test_symbols(marked):
    assert marker_genes_df(marked, "a")["symbol"].tolist() == ["x", "y", "z"]
    marked.var_names = ["x", "y", "z"]
    marked.var["name"] = ["X", "Y", "Z"]
    assert marker_genes_df(marked, "b", gene_symbols="name")["symbol"].tolist() == ["Z", "Y", "X"]
    marked.uns[KEY]["names"]["a"][0] = "ENSG00000115263.14"
    marked.var_names = ["ENSG00000115263.14", "y", "z"]
    assert marker_genes_df(marked, "a")["symbol"].tolist() == ["GCG", "y", "z"]


def test_errors(marked):
    with pytest.raises(NotFoundError, match=r"'other'.*tl\.marker_genes.*key="):
        marker_genes_df(marked, key="other")
    with pytest.raises(NotFoundError, match=r"'c'.*'a', 'b'"):
        marker_genes_df(marked, ["a", "c"])
    with pytest.raises(NotFoundError, match=r"'symbol'.*gene_symbols="):
        marker_genes_df(marked, gene_symbols="symbol")
