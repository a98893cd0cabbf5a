"""tl.consensus: votes, weights, groups, dissent, labels that cannot be mapped, files."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from sccello_tools.errors import ArgumentError, GroupError, LabelError
from sccello_tools.tl import consensus

KEY = "sccello_consensus"


@pytest.fixture
def cells():
    obs = pd.DataFrame(
        {
            "ours": ["CL:0000624", "CL:0000236", "CL:0000169", "CL:0000084", "CL:0000576", None],
            "celltypist": ["CD8+ T cell", "B cells", "alpha cell", "nan", "Mono 7x", "unknown"],
            "author": ["B cell", "plasma cell", "beta cell", "T cell", "monocyte", ""],
            "cluster": ["x", "x", "y", "y", "z", "z"],
            "confidence": [0.9, 0.2, 0.5, 0.5, np.nan, 0.5],
        },
        index=[f"c{i}" for i in range(6)],
    )
    return anndata.AnnData(np.zeros((6, 2), dtype=np.float32), obs=obs)


KEYS = ["ours", "celltypist", "author"]


def run(cells, *args, **kwargs):
    with pytest.warns(UserWarning, match=r"'celltypist'.*'Mono 7x'"):
        return consensus(cells, *args, **kwargs)


def test_consensus_of_labels_and_ids(cells):
    run(cells, KEYS)
    obs = cells.obs
    assert obs[KEY].astype(object).where(obs[KEY].notna(), None).tolist() == [
        "mature alpha-beta T cell", "B cell", "type B pancreatic cell", "T cell", "monocyte", None,
    ]  # fmt: skip
    assert obs[KEY + "_ontology_term_id"].tolist()[:2] == ["CL:0000791", "CL:0000236"]
    np.testing.assert_allclose(
        obs[KEY + "_agreement"], [2 / 3, 2 / 3, 2 / 3, 1, 1, np.nan], rtol=1e-6
    )
    assert obs[KEY + "_n_votes"].tolist() == [3, 3, 3, 2, 2, 0]
    assert obs[KEY + "_dissenting"].tolist() == ["author", "author", "celltypist", "", "", ""]
    record = cells.uns[KEY]
    assert record["n_mapped"].tolist() == [5, 3, 5]
    assert record["n_unmapped"].tolist() == [0, 1, 0]


def test_ids_beside_a_column_go_first(cells):
    cells.obs["author_ontology_term_id"] = ["CL:0000624"] * 5 + [None]
    run(cells, KEYS)
    assert cells.obs[KEY].iloc[0] == "CD4-positive, alpha-beta T cell"


def test_weights(cells):
    run(cells, KEYS, weights={"author": 3})
    assert cells.obs[KEY].iloc[0] == "B cell"
    assert cells.obs[KEY + "_agreement"].iloc[0] == pytest.approx(3 / 5)
    run(cells, KEYS, weights={"author": 0})
    assert cells.obs[KEY + "_n_votes"].tolist() == [2, 2, 2, 1, 1, 0]


def test_weights_of_cells(cells):
    run(cells, KEYS, weights={"ours": "confidence", "celltypist": 0.3, "author": 0.5})
    assert cells.obs[KEY].iloc[0] == "CD4-positive, alpha-beta T cell"  # .9 of 1.7
    assert cells.obs[KEY].iloc[1] == "lymphocyte of B lineage"  # B cell has .5 of 1
    assert cells.obs[KEY + "_n_votes"].tolist() == [3, 3, 3, 2, 1, 0]  # a missing weight is no vote


def test_groups_share_a_term(cells):
    run(cells, KEYS, groupby="cluster")
    obs = cells.obs
    assert obs[KEY].iloc[0] == obs[KEY].iloc[1] == "lymphocyte of B lineage"  # 4 of 6 votes
    assert obs[KEY + "_agreement"].iloc[0] == pytest.approx(4 / 6)
    assert obs[KEY].iloc[4] == obs[KEY].iloc[5] == "monocyte"
    assert np.isnan(obs[KEY + "_agreement"].iloc[5])


def test_overrides_and_a_second_call(cells):
    run(cells, KEYS)
    consensus(cells, KEYS, overrides={"Mono 7x": "classical monocyte"})
    assert cells.obs[KEY].iloc[4] == "monocyte"
    assert cells.uns[KEY]["n_unmapped"].tolist() == [0, 0, 0]
    with pytest.raises(LabelError, match="no such cell"):
        consensus(cells, KEYS, overrides={"Mono 7x": "no such cell"})


def test_copy_and_order_of_rows(cells):
    found = run(cells, KEYS, copy=True)
    assert KEY not in cells.obs
    turned = run(cells[::-1].copy(), KEYS, copy=True)
    pd.testing.assert_series_equal(found.obs[KEY].astype(str), turned.obs[KEY].astype(str)[::-1])


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_it_survives_writing(cells, tmp_path, write_zarr, form):
    run(cells, KEYS)
    path = tmp_path / f"cells.{form}"
    if form == "h5ad":
        cells.write_h5ad(path)
        back = anndata.read_h5ad(path)
    else:
        write_zarr(cells, path)
        back = anndata.read_zarr(path)
    for suffix in ("", "_ontology_term_id", "_dissenting", "_agreement", "_n_votes"):
        pd.testing.assert_series_equal(back.obs[KEY + suffix], cells.obs[KEY + suffix])
    assert back.uns[KEY]["keys"].tolist() == KEYS


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"keys": ["ours"]}, ArgumentError, "two columns"),
        ({"keys": "ours"}, ArgumentError, "two columns"),
        ({"keys": ["ours", "ours"]}, ArgumentError, "two columns"),
        ({"keys": ["ours", "nope"]}, LabelError, "nope"),
        ({"weights": {"nope": 1}}, ArgumentError, "nope"),
        ({"weights": {"ours": -1}}, ArgumentError, "ours"),
        ({"weights": {"ours": "cluster"}}, ArgumentError, "numeric"),
        ({"groupby": "nope"}, GroupError, "nope"),
        ({"min_agreement": 0.3}, ArgumentError, r"\[0.5, 1\)"),
        ({"key_added": "author"}, ArgumentError, "key_added"),
        ({"key_added": "a/b"}, ArgumentError, "a/b"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*are not mapped")
def test_invalid_arguments(cells, options, error, message):
    before = list(cells.obs)
    with pytest.raises(error, match=message):
        consensus(cells, **({"keys": KEYS} | options))
    assert list(cells.obs) == before


def test_nothing_to_map(cells):
    cells.obs["author"], cells.obs["ours"] = "cell", "doublet"
    with pytest.raises(LabelError, match="overrides"):
        consensus(cells, ["ours", "author"])
