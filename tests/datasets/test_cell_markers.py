"""The packaged table of marker genes."""

from __future__ import annotations

from sccello_tools.datasets import cell_markers
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary


def test_terms_and_genes_are_current():
    table = cell_markers()
    ontology = CellOntology.load()
    terms = table["cell_type_ontology_term_id"].unique()
    assert len(terms) > 700
    assert all(ontology.current(term) == term for term in terms)
    assert set(table["gene_id"]) <= set(GeneVocabulary.load().gene_ids)
    assert not table.duplicated(["cell_type_ontology_term_id", "gene_id", "positive"]).any()


def test_known_markers_have_the_most_evidence():
    table = cell_markers()
    for name, gene in (("B cell", "MS4A1"), ("T cell", "CD3D"), ("mast cell", "KIT")):
        own = table[(table["cell_type"] == name) & table["positive"]]
        assert gene in own.nlargest(10, "evidence")["symbol"].tolist()


def test_weights_and_evidence():
    table = cell_markers()
    assert (table["evidence"] >= 1).all()
    assert (table["weight"] >= 0).all()
    assert (table.loc[~table["positive"], "weight"] == 0).all()
    assert table["sources"].notna().all()


def test_a_changed_table_does_not_change_the_package():
    table = cell_markers()
    table["evidence"] = 0
    assert (cell_markers()["evidence"] > 0).all()
