from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sccello_tools.errors import SchemaError
from sccello_tools.export.fields import CELLXGENE, field_values


def test_all_missing_fields_are_listed_at_once(annotated):
    with pytest.raises(SchemaError) as caught:
        field_values(annotated, {"tissue_type": "tissue"}, CELLXGENE)
    message = str(caught.value)
    assert message.startswith("10 required fields")
    for name in set(CELLXGENE) - {"tissue_type", "default_embedding"}:
        assert f"- {name} is missing. Set it to " in message
    assert "EFO:0009922" in message
    assert "@column" in message


def test_constants_columns_and_what_the_file_holds(annotated, values):
    annotated.obs["suspension_type"] = "nucleus"
    annotated.obs["tissue_type"] = "organoid"
    annotated.uns["title"] = "another title"
    del values["suspension_type"], values["title"]
    found = field_values(annotated, values, CELLXGENE)
    assert found["donor_id"].tolist() == annotated.obs["donor"].tolist()
    assert set(found["suspension_type"]) == {"nucleus"}
    assert set(found["tissue_type"]) == {"tissue"}  # the value that was passed
    assert found["is_primary_data"].dtype == bool
    assert not found["is_primary_data"].any()
    assert found["title"] == "another title"
    assert found["assay_ontology_term_id"].dtype == "category"
    assert "default_embedding" not in found


@pytest.mark.parametrize(("given", "expected"), [("true", True), ("False", False), (True, True)])
def test_booleans_as_text(annotated, values, given, expected):
    values["is_primary_data"] = given
    assert field_values(annotated, values, CELLXGENE)["is_primary_data"].unique() == [expected]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("assay_ontology_term_id", "10x"),
        ("sex_ontology_term_id", "female"),
        ("disease_ontology_term_id", "normal"),
        ("is_primary_data", "yes"),
        ("tissue_type", "Tissue"),
        ("donor_id", " "),
        ("title", ""),
    ],
)
def test_invalid_values(annotated, values, name, value):
    values[name] = value
    with pytest.raises(SchemaError, match=rf"1 required fields[^-]*- {name} "):
        field_values(annotated, values, CELLXGENE)


def test_incomplete_and_invalid_columns(annotated, values):
    annotated.obs["donor"] = annotated.obs["donor"].where(np.arange(annotated.n_obs) > 2)
    annotated.obs["sex"] = pd.Categorical(["PATO:0000383", "male"] * 15)
    values["sex_ontology_term_id"] = "@sex"
    with pytest.raises(SchemaError) as caught:
        field_values(annotated, values, CELLXGENE)
    assert "donor_id is missing for 3 of 30 cells" in str(caught.value)
    assert "sex_ontology_term_id has the values 'male'" in str(caught.value)
    values["donor_id"] = "@patient"
    with pytest.raises(
        SchemaError, match=r"donor_id: obs has no column 'patient' \(columns: donor"
    ):
        field_values(annotated, values, CELLXGENE)


def test_unknown_names(annotated):
    with pytest.raises(SchemaError, match="Did you mean 'donor_id'"):
        field_values(annotated, {"donorid": "x"}, CELLXGENE)
