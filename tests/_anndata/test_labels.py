"""Labels that do not name a cell type are excluded and counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sccello_tools._anndata.labels import donor_column, informative_labels, label_column
from sccello_tools._anndata.terms import type_column
from sccello_tools.errors import GroupError, LabelError
from sccello_tools.ontology import CellOntology, is_uninformative


@pytest.mark.parametrize(
    "label",
    [
        "", " ", "nan", "NaN", "NA", "<NA>", "None", "null", "n/a", "#N/A", "?", "-", "unknown", "Unknown", "UNKNOWN_CELL", "unknown 3",
        "unassigned", "Unassigned cells", "not assigned", "doublet", "Doublets", "doublet_2", "Multiplet", "low quality", "debris",
        "unclassified", "ambiguous", "other", "cell", "Cells", "native cell", "eukaryotic cell", "CL:0000000", "cl_0000003",
        "http://purl.obolibrary.org/obo/CL_0000003", "CL:0000548",
    ],
)  # fmt: skip
def test_uninformative(label):
    assert is_uninformative(label)


@pytest.mark.parametrize(
    "label",
    [
        "T cell", "unknown T cell", "B", "NK", "PP", "0", "7", "cluster 3", "True", "alpha", "CL:0000084", "stem cell", "somatic cell",
        "naive T cell", "mixed glia", "nan1a neuron", "mesenchymal cell", "other immune",
    ],
)  # fmt: skip
def test_informative(label):
    assert not is_uninformative(label)


VALUES = ["T cell", "unknown", None, "B cell", "doublet", "unknown", "CL:0000003", "nan", " "]


@pytest.mark.parametrize("dtype", ["object", "category", "string"])
def test_texts_and_counts(dtype):
    found = informative_labels(pd.Series(VALUES, dtype=dtype))
    assert found.texts.tolist() == ["T cell", "", "", "B cell", "", "", "", "", ""]
    assert found.n_missing == 2
    assert found.uninformative == {"unknown": 2, "CL:0000003": 1, "doublet": 1, "nan": 1}
    assert next(iter(found.uninformative)) == "unknown"
    assert found.n_excluded == 7
    report = found.report("label")
    assert "7 of 9 cells in adata.obs['label']" in report
    assert "'unknown' (2)" in report


def test_nothing_to_report():
    assert informative_labels(pd.Series(["a", "b"])).report("label") == ""
    assert informative_labels(pd.Series([], dtype=object)).report("label") == ""


def test_column_of_labels(adata):
    adata.obs["label"] = pd.Categorical(["A", "B", "unknown"] * 10)
    column = label_column(adata, "label")
    assert column.names == ("A", "B")
    assert column.codes.tolist() == [0, 1, -1] * 10
    assert "10 of 30" in column.excluded


def test_categories_that_are_numbers_are_labels(adata):
    adata.obs["label"] = pd.Categorical([3, 1, 2] * 10)
    column = label_column(adata, "label")
    assert column.names == ("1", "2", "3")
    adata.obs["label"] = pd.Categorical(["3", "1", "2"] * 10)
    np.testing.assert_array_equal(label_column(adata, "label").codes, column.codes)


@pytest.mark.parametrize("values", [np.arange(30), np.linspace(0, 1, 30)])
def test_numbers_are_not_labels_and_text_is_not_the_remedy(adata, values):
    adata.obs["label"] = values
    with pytest.raises(LabelError, match=r"30 distinct.*astype\('category'\)") as raised:
        label_column(adata, "label")
    assert "astype(str)" not in str(raised.value)


def test_order_of_categories_does_not_matter(adata):
    values = ["A", "B", "C"] * 10
    columns = []
    for categories in (["A", "B", "C"], ["C", "unused", "A", "B"]):
        adata.obs["label"] = pd.Categorical(values, categories=categories)
        columns.append(label_column(adata, "label"))
    assert columns[0].names == columns[1].names
    np.testing.assert_array_equal(columns[0].codes, columns[1].codes)


def test_types_without_uninformative_ones(adata):
    ontology = CellOntology.load()
    adata.obs["type"] = pd.Categorical(["T cell", "B cell", "unknown", "mine", "root"] * 6)
    adata.obs["type_ontology_term_id"] = pd.Categorical([None, None, None, None, "CL:0000000"] * 6)
    everything = type_column(adata, "type", ontology)
    assert everything.names == ("B cell", "T cell", "mine", "root", "unknown")
    assert everything.excluded == ""
    kept = type_column(adata, "type", ontology, skip_uninformative=True)
    assert kept.names == ("B cell", "T cell", "mine")
    assert kept.terms == ("CL:0000236", "CL:0000084", "")
    assert kept.codes.tolist() == [1, 0, -1, 2, -1] * 6
    assert kept.counts.tolist() == [6, 6, 6]
    assert "12 of 30" in kept.excluded


def test_donors(adata):
    labelled = np.ones(30, dtype=bool)
    adata.obs["batch"] = [1.0, 2.0, 10.0] * 10
    numbers = donor_column(adata, "batch", labelled)
    adata.obs["batch"] = ["1", "2", "10"] * 10
    np.testing.assert_array_equal(donor_column(adata, "batch", labelled), numbers)
    adata.obs.loc["cell3", "batch"] = None
    with pytest.raises(GroupError, match="1 of 30 labelled cells"):
        donor_column(adata, "batch", labelled)
    labelled[3] = False
    assert donor_column(adata, "batch", labelled)[3] == ""
