"""pp.match_genes: sources of the names, fields written, warnings and errors."""

from __future__ import annotations

import logging
import re

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.errors import BackedDataError, GeneMatchError, ScCelloError
from sccello_tools.tokens import GeneMatch

NAMES = ["HLA-A", "B2M", "CD3E", "SEPT7", "ENSG00000105374.10", "no such gene"]
IDS = [
    "ENSG00000206503",
    "ENSG00000166710",
    "ENSG00000198851",
    "ENSG00000122545",
    "ENSG00000105374",
    "",
]
KEY = "sccello_gene_id"


def named(names, **columns) -> anndata.AnnData:
    var = pd.DataFrame(columns, index=pd.Index(names, dtype=object))
    return anndata.AnnData(sparse.csr_matrix((3, len(names)), dtype=np.float32), var=var)


def test_writes_ids_and_returns_the_report():
    adata = named(NAMES)
    match = sccello.pp.match_genes(adata, min_matched=5)
    assert isinstance(match, GeneMatch)
    assert (match.n_by_id, match.n_by_symbol, match.n_by_alias) == (1, 3, 1)
    assert match.unmatched == ("no such gene",)
    assert adata.var[KEY].tolist() == match.gene_ids.tolist() == IDS
    assert all(type(gene) is str for gene in adata.var[KEY])
    assert adata.var_names.tolist() == NAMES
    assert adata.var.columns.tolist() == [KEY]


def test_says_what_it_found_and_wrote(caplog):
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        sccello.pp.match_genes(named(NAMES), min_matched=5)
    report, written = (record.getMessage() for record in caplog.records)
    assert "5 of 6 genes match" in report
    assert "'no such gene'" in report
    assert ".var['sccello_gene_id']" in written


def test_the_report_is_short_and_not_said_again(caplog):
    adata = named(NAMES)
    adata.X = sparse.csr_matrix(np.eye(3, len(NAMES), dtype=np.float32))
    match = sccello.pp.match_genes(adata, min_matched=5)
    assert repr(match) == "GeneMatch(5 of 6 columns match)"
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        sccello.pp.tokenize(adata, min_matched=5)
    assert not [record for record in caplog.records if "genes match" in record.getMessage()]


def test_key_added():
    adata = named(NAMES)
    sccello.pp.match_genes(adata, min_matched=5, key_added="gene")
    assert adata.var.columns.tolist() == ["gene"]


@pytest.mark.parametrize(
    "column",
    [
        ["HLA-A", None, np.nan, "SEPT7", "", "nan"],
        pd.Categorical(["HLA-A", None, None, "SEPT7", "", "nan"]),
        pd.array(["HLA-A", pd.NA, pd.NA, "SEPT7", "", "nan"], dtype="string"),
    ],
    ids=["object", "category", "string"],
)
def test_a_column_with_missing_names(column):
    adata = named([str(i) for i in range(6)], feature_name=column)
    match = sccello.pp.match_genes(adata, gene_ids="feature_name", min_matched=2)
    assert adata.var[KEY].tolist() == ["ENSG00000206503", "", "", "ENSG00000122545", "", ""]
    assert match.unmatched == ("", "", "", "nan")


def test_a_column_of_ids_beside_symbols():
    adata = named(
        ["CD3E", "CD3E-1", "x"], ids=["ENSG00000198851.1", "ENSG00000105374", "ENSG00000090382"]
    )
    sccello.pp.match_genes(adata, gene_ids="ids", min_matched=3)
    assert adata.var[KEY].tolist() == ["ENSG00000198851", "ENSG00000105374", "ENSG00000090382"]


def test_an_earlier_column_is_replaced():
    adata = named(NAMES, sccello_gene_id="stale")
    sccello.pp.match_genes(adata, min_matched=5)
    assert adata.var[KEY].tolist() == IDS


def test_repeated_var_names():
    with pytest.warns(UserWarning, match="Variable names are not unique"):
        adata = named(["CD3E", "NKG7", "CD3E"])
    with pytest.warns(UserWarning, match=r"1 of 3 variables repeat.*'CD3E'") as caught:
        match = sccello.pp.match_genes(adata, min_matched=3)
    assert [warning.filename for warning in caught] == [__file__]
    assert adata.var[KEY].tolist() == ["ENSG00000198851", "ENSG00000105374", "ENSG00000198851"]
    assert match.n_duplicates == 1


def test_a_view_becomes_an_actual_anndata():
    adata = named(NAMES)
    view = adata[:2, ::-1]
    assert view.is_view
    sccello.pp.match_genes(view, min_matched=5)
    assert view.var[KEY].tolist() == IDS[::-1]
    assert not view.is_view
    assert adata.var.columns.empty


def test_backed(tmp_path):
    named(NAMES).write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    sccello.pp.match_genes(backed, min_matched=5)
    assert backed.isbacked
    assert backed.var[KEY].tolist() == IDS

    with pytest.raises(BackedDataError, match=r"x\.h5ad'.*view.*adata\.to_memory\(\)"):
        sccello.pp.match_genes(backed[:2], min_matched=5)
    backed.file.close()


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(form, tmp_path, write_zarr):
    adata = named(NAMES)
    sccello.pp.match_genes(adata, min_matched=5)
    path = tmp_path / f"x.{form}"
    (write_zarr if form == "zarr" else anndata.AnnData.write_h5ad)(adata, path)
    again = getattr(anndata.io, f"read_{form}")(path)
    assert again.var[KEY].tolist() == IDS
    assert sccello.pp.match_genes(again, gene_ids=KEY, min_matched=5).n_by_id == 5


def test_read_lazily(tmp_path):
    pytest.importorskip("xarray")
    from anndata.experimental import read_lazy

    named([str(i) for i in range(6)], feature_name=NAMES).write_h5ad(tmp_path / "x.h5ad")
    lazy = read_lazy(tmp_path / "x.h5ad")
    sccello.pp.match_genes(lazy, gene_ids="feature_name", min_matched=5)
    assert np.asarray(lazy.var[KEY]).tolist() == IDS


MOUSE = ["Actb", "Cd3e", "Gapdh", "H2-K1", "mt-Nd1", "Gm12345"]


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["7157", "1956", "3845"], {}, "Entrez IDs: '7157', '1956', '3845'"),
        (["0", "1", "2"], {}, "row numbers: '0', '1', '2'"),
        (MOUSE, {}, "symbols of mouse or rat genes: "),
        ([f"ENSMUSG{i:011d}" for i in range(4)], {}, "of another species"),
        ([f"ENST{i:011d}" for i in range(4)], {}, "Ensembl transcripts"),
        ([""], {}, "most names are empty"),
        ([], {}, "Only 0 of 0 genes match"),
        (NAMES, {}, "Only 5 of 6 genes match the model's vocabulary of human genes, and min_matched=500"),
        (NAMES, {"min_matched": 6}, "min_matched=6"),
        (NAMES, {"gene_ids": "symbol"}, "adata.var has no column 'symbol' (columns: 'n_cells'). Pass one of them as gene_ids="),
        (NAMES, {"gene_ids": "n_cells"}, "Only 0 of 6 genes match"),
        (NAMES, {"organism": "rat"}, "got 'rat'. Map genes of other organisms to human one-to-one"),
        (NAMES, {"organism": "rat", "min_matched": 0}, "got 'rat'"),
    ],
)  # fmt: skip
def test_refusals_write_nothing(names, options, says):
    adata = named(names, n_cells=list(range(1000, 1000 + len(names))))
    before = adata.copy()
    with pytest.raises(GeneMatchError, match=re.escape(says)) as raised:
        sccello.pp.match_genes(adata, **options)
    assert isinstance(raised.value, ScCelloError)
    assert isinstance(raised.value, ValueError)
    pd.testing.assert_frame_equal(adata.var, before.var)


def test_pbmc3k_like_names():
    # the names of a 10x matrix of 2016, made unique as scanpy does
    names = [
        "FAM138A",
        "RP11-34P13.7",
        "NOC2L",
        "HES4",
        "ISG15",
        "TNFRSF4",
        "CPSF3L",
        "MRPL20",
        "SSU72",
    ]
    names += [
        "PNRC2",
        "PNRC2-1",
        "SEPT1",
        "SEPT1-1",
        "HLA-DRA",
        "HLA-DRB1",
        "TMSB4X",
        "FCER1G",
        "GNB2L1",
        "7SK-1",
    ]
    with pytest.warns(UserWarning, match="'PNRC2-1', 'SEPT1-1'"):
        match = sccello.pp.match_genes(named(names), min_matched=10)
    found = dict(zip(names, match.gene_ids.tolist()))
    assert {name for name, gene in found.items() if not gene} == {
        "FAM138A",
        "RP11-34P13.7",
        "7SK-1",
    }
    assert found["PNRC2-1"] == found["PNRC2"] == "ENSG00000189266"
    assert found["SEPT1-1"] == found["SEPT1"] == "ENSG00000180096"
    assert found["HLA-DRB1"] == "ENSG00000196126"
    assert found["GNB2L1"] == "ENSG00000204628"


def test_the_shipped_cells():
    match = sccello.pp.match_genes(sccello.datasets.pancreas_tritschler())
    assert (match.n_by_id, match.n_matched, match.n_columns) == (19_964, 19_964, 33_053)
    assert "human Ensembl IDs" in match.looks_like
