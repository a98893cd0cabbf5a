from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sccello_tools.errors import NotFoundError, SchemaError
from sccello_tools.export import cell_annotation_schema

VALUES = {"title": "Synthetic cells", "author_name": "Ada Lovelace"}
PYTHON = os.environ.get("SCCELLO_CAS_PYTHON") or (
    sys.executable if importlib.util.find_spec("cas") else None
)
READ = """
import json, sys
from cas.file_utils import read_cas_json_file
from cas.validate import validate
document = read_cas_json_file(sys.argv[1])
validate("base", sys.argv[1])
cells = {a.cell_ontology_term_id: len(a.cell_ids) for a in document.annotations}
markers = {a.cell_label: a.marker_gene_evidence for a in document.annotations}
print(json.dumps([document.title, document.labelsets[0].annotation_method, cells, markers]))
"""


def test_sets_of_cells(annotated):
    found = cell_annotation_schema(annotated, VALUES)
    (labelset,) = found["labelsets"]
    assert labelset["name"] == "sccello_cell_type"
    assert "tiny (weights abc)" in labelset["description"]
    assert labelset["automated_annotation"]["reference_location"] == ""
    assert found["title"] == "Synthetic cells"
    sets = {entry["cell_ontology_term_id"]: entry for entry in found["annotations"]}
    assert sorted(sets) == ["CL:0000084", "CL:0000236"]
    terms = annotated.obs["sccello_cell_type_ontology_term_id"].astype(str)
    for term, entry in sets.items():
        own = (terms == term).to_numpy()
        assert entry["cell_ids"] == annotated.obs_names[own].tolist()
        notes = entry["author_annotation_fields"]
        assert notes["n_cells"] == str(own.sum())
        confidence = annotated.obs["sccello_cell_type_confidence"][own].mean()
        assert float(notes["mean_confidence"]) == pytest.approx(confidence, abs=5e-4)
        unknown = (annotated.obs["sccello_cell_type_status"][own] == "unknown").mean()
        assert float(notes["fraction_unknown"]) == pytest.approx(unknown, abs=5e-4)
    assert sets["CL:0000236"]["cell_label"] == sets["CL:0000236"]["cell_ontology_term"] == "B cell"
    json.dumps(found, allow_nan=False)


def test_labels_without_terms_and_without_names_of_cells(annotated):
    del annotated.obs["sccello_cell_type_ontology_term_id"]
    annotated.obs["sccello_cell_type_confidence"] = np.float32(np.nan)
    values = {
        **VALUES,
        "reference_location": "https://example.org/atlas.h5ad",
        "sex_ontology_term_id": "unknown",
    }
    found = cell_annotation_schema(annotated, values, include_cell_ids=False)
    assert {entry["cell_label"] for entry in found["annotations"]} == {"B cell", "T cell"}
    for entry in found["annotations"]:
        assert not {"cell_ids", "cell_ontology_term_id"} & set(entry)
        assert "mean_confidence" not in entry["author_annotation_fields"]
    location = found["labelsets"][0]["automated_annotation"]["reference_location"]
    assert location == "https://example.org/atlas.h5ad"


@pytest.fixture
def with_markers(annotated):
    """The annotated cells, of which T cells express CD3E."""
    annotated.var_names = ["ENSG00000198851", *annotated.var_names[1:]]
    counts = annotated.X.toarray()
    counts[:, 0] = np.where(np.arange(30) % 2 == 0, 50, 0)
    annotated.X = counts
    return annotated


def test_markers_are_evidence(with_markers):
    entries = cell_annotation_schema(with_markers, VALUES)["annotations"]
    evidence = {e["cell_label"]: e.get("marker_gene_evidence", []) for e in entries}
    assert "CD3E" in evidence["T cell"]
    assert "CD3E" not in evidence["B cell"]
    entries = cell_annotation_schema(with_markers, VALUES, n_markers=0)["annotations"]
    assert not any("marker_gene_evidence" in entry for entry in entries)


def test_refusals(annotated):
    with pytest.raises(SchemaError, match=r"2 required fields[^-]*- title [^-]*- author_name"):
        cell_annotation_schema(annotated)
    with pytest.raises(SchemaError, match="an email address"):
        cell_annotation_schema(annotated, {**VALUES, "author_contact": "ada"})
    with pytest.raises(NotFoundError, match=r"tl\.annotate_novel"):
        cell_annotation_schema(annotated, VALUES, key="other")


@pytest.mark.slow
@pytest.mark.skipif(
    PYTHON is None,
    reason="cas-tools not found; install it, or set SCCELLO_CAS_PYTHON to a Python interpreter that has it",
)
def test_cas_tools_reads_the_document(with_markers, tmp_path):
    path = tmp_path / "cas.json"
    document = cell_annotation_schema(with_markers, VALUES)
    path.write_text(json.dumps(document))
    done = subprocess.run(
        [str(PYTHON), "-W", "ignore", "-c", READ, str(path)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    title, method, n_cells, markers = json.loads(done.stdout.splitlines()[-1])
    assert [title, method] == ["Synthetic cells", "algorithmic"]
    assert n_cells == {"CL:0000084": 15, "CL:0000236": 14}
    assert markers == {
        entry["cell_label"]: entry.get("marker_gene_evidence") for entry in document["annotations"]
    }
    assert "CD3E" in markers["T cell"]
