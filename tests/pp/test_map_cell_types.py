from __future__ import annotations

import logging

import anndata
import numpy as np
import pandas as pd
import pytest

from sccello_tools.errors import BackedDataError, LabelError, OntologyError
from sccello_tools.ontology import CellOntology, LabelReport
from sccello_tools.pp._map_cell_types import map_cell_types

KEY = "sccello_mapped_cell_type"
LABELS = [
    "T cells",
    "Ductal cells",
    "CL:0000236",
    None,
    "zzz",
    "",
    "unknown",
    "T cells",
    "CL:0000003",
]
NAMES = ["T cell", "", "B cell", "", "", "", "", "T cell", "cell"]
IDS = ["CL:0000084", "", "CL:0000236", "", "", "", "", "CL:0000084", "CL:0000000"]
KINDS = ["normalized", "ambiguous", "exact", "", "unknown", "", "unknown", "normalized", "obsolete"]


def labelled(labels, **kwargs):
    obs = pd.DataFrame({"label": pd.Series(labels, **kwargs)})
    obs.index = [f"cell{i}" for i in range(len(labels))]
    return anndata.AnnData(np.zeros((len(labels), 1), dtype=np.float32), obs=obs)


@pytest.fixture
def adata():
    return labelled(LABELS, dtype=object)


def test_writes_names_ids_and_kinds(adata):
    report = map_cell_types(adata, "label")
    assert adata.obs[KEY].tolist() == NAMES
    assert adata.obs[f"{KEY}_ontology_term_id"].tolist() == IDS
    assert adata.obs[f"{KEY}_match"].tolist() == KINDS
    for suffix in ("", "_ontology_term_id", "_match"):
        assert isinstance(adata.obs[KEY + suffix].dtype, pd.CategoricalDtype)
    assert adata.obs["label"].tolist() == LABELS
    assert adata.uns[KEY] == {
        "key": "label",
        "ontology_release": "2026-03-26",
        "sccello_tools_version": adata.uns[KEY]["sccello_tools_version"],
    }
    assert isinstance(report, LabelReport)
    assert (report.n_rows, report.n_rows_mapped, report.n_labels, report.n_mapped) == (7, 4, 6, 3)


def test_categories_and_missing_ones(adata):
    other = labelled(LABELS, dtype="category")
    map_cell_types(adata, "label")
    map_cell_types(other, "label")
    pd.testing.assert_frame_equal(adata.obs.drop(columns="label"), other.obs.drop(columns="label"))


def test_string_column(adata):
    other = labelled(LABELS, dtype="string")
    map_cell_types(other, "label")
    assert other.obs[KEY].tolist() == NAMES


def test_key_added(adata):
    before = adata.obs.copy()
    map_cell_types(adata, "label", key_added="type")
    pd.testing.assert_frame_equal(adata.obs[["label"]], before)
    assert adata.obs["type"].tolist() == NAMES
    assert adata.obs["type_ontology_term_id"].tolist() == IDS
    assert list(adata.uns) == ["type"]


def test_view_gets_data_of_its_own(adata):
    view = adata[:3]
    map_cell_types(view, "label")
    assert view.obs[KEY].tolist() == NAMES[:3]
    assert KEY not in adata.obs


def test_backed(adata, tmp_path):
    adata.obs["label"] = adata.obs["label"].fillna("")
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    map_cell_types(backed, "label")
    assert backed.obs[KEY].tolist() == NAMES
    with pytest.raises(BackedDataError, match="view"):
        map_cell_types(backed[:2], "label")
    backed.file.close()


def test_order_of_cells_does_not_matter(adata):
    map_cell_types(adata, "label")
    shuffled = labelled(LABELS, dtype=object)[::-1].copy()
    map_cell_types(shuffled, "label")
    assert shuffled.obs[KEY].tolist() == NAMES[::-1]


def test_survives_h5ad_and_a_subset(adata, tmp_path):
    map_cell_types(adata, "label")
    adata.obs["label"] = adata.obs["label"].fillna("")
    adata.write_h5ad(tmp_path / "x.h5ad")
    back = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert back.obs[KEY].tolist() == NAMES
    assert back.obs[f"{KEY}_match"].tolist() == KINDS
    assert back.uns[KEY]["ontology_release"] == "2026-03-26"
    assert back[:3].copy().obs[KEY].tolist() == NAMES[:3]


def test_overrides_settle_what_is_open(adata):
    report = map_cell_types(
        adata, "label", overrides={"Ductal cells": "CL:0002079", "zzz": "platelet"}
    )
    assert adata.obs[KEY].tolist()[1] == "pancreatic ductal cell"
    assert adata.obs[f"{KEY}_match"].tolist()[4] == "override"
    assert report.n_mapped == 5
    with pytest.raises(LabelError, match=r"overrides.*'ductal cells'.*6 labels"):
        map_cell_types(adata, "label", overrides={"ductal cells": "CL:0002079"})


def test_open_labels_are_said_without_being_asked_for(adata, caplog):
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        map_cell_types(adata, "label")
    report, written = caplog.records
    assert report.levelno == logging.WARNING
    assert "3 of 6 labels (4 of 7 rows)" in report.message
    assert "'Ductal cells' (CL:0000068 duct epithelial cell" in report.message
    assert written.message == (
        f"map_cell_types: added .obs['{KEY}'], .obs['{KEY}_ontology_term_id'], .obs['{KEY}_match'], .uns['{KEY}']"
    )
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="sccello_tools"):
        map_cell_types(labelled(["T cell"]), "label")
    assert caplog.records[0].levelno == logging.INFO


def test_another_ontology_by_path(adata, tmp_path):
    path = tmp_path / "cl.obo"
    path.write_text(
        "data-version: releases/2020-01-01\n\n[Term]\nid: CL:0000084\nname: T lymphocyte\n"
    )
    for ontology in (path, str(path), CellOntology.load(path)):
        report = map_cell_types(adata, "label", ontology=ontology)
        assert adata.obs[KEY].tolist()[0] == "T lymphocyte"
        assert adata.uns[KEY]["ontology_release"] == report.release == "2020-01-01"
    with pytest.raises(OntologyError, match=r"no\.obo"):
        map_cell_types(adata, "label", ontology=tmp_path / "no.obo")


def test_column_that_is_not_there(adata):
    with pytest.raises(LabelError, match=r"no column 'cell_type' \(columns: 'label'\)"):
        map_cell_types(adata, "cell_type")


@pytest.mark.parametrize("labels", [[None, None], ["", " "]])
def test_column_without_labels(labels):
    with pytest.raises(LabelError, match="no labels: all values are missing or empty"):
        map_cell_types(labelled(labels, dtype=object), "label")


def test_too_few_labels_get_a_term():
    adata = labelled(["T cells", *map(str, range(19))])
    with pytest.raises(
        LabelError,
        match=r"Only 1 of 20 labelled cells.*min_mapped=10%(.|\n)*overrides=",
    ):
        map_cell_types(adata, "label")
    assert adata.obs.columns.tolist() == ["label"]
    assert map_cell_types(adata, "label", min_mapped=0.05).n_mapped == 1
    with pytest.raises(LabelError, match="Only 0 of 2"):
        map_cell_types(labelled(["0", "1"]), "label", min_mapped=0)


def test_numbers_of_clusters_are_no_cell_types():
    with pytest.raises(LabelError, match="Only 0 of 3"):
        map_cell_types(labelled([0, 1, 2]), "label")


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_min_mapped_is_a_share(adata, share):
    with pytest.raises(ValueError, match=r"min_mapped must be in \[0, 1\]"):
        map_cell_types(adata, "label", min_mapped=share)
