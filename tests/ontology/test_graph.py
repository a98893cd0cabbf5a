from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sccello_tools.errors import LabelError
from sccello_tools.ontology import CellOntology
from sccello_tools.ontology.graph import SNAPSHOT

CELL, LYMPHOCYTE, T_CELL, B_CELL = "CL:0000000", "CL:0000542", "CL:0000084", "CL:0000236"
LONELY = "CL:0017500"  # "neutrophillic cytoplasm": no kind of cell, no edge

snapshot = CellOntology.load()
terms = st.sampled_from(snapshot.terms)


def test_snapshot_is_the_release_that_ships(ontology):
    assert ontology.release == "2026-03-26"
    assert len(ontology) == 3324
    assert len(ontology.obsolete_terms) == 272
    assert sum(len(ontology.parents(term)) for term in ontology) == 4633
    assert repr(ontology) == "CellOntology(release='2026-03-26', 3,324 terms)"


def test_snapshot_is_loaded_once(ontology):
    assert CellOntology.load() is ontology


def test_names_and_texts(ontology):
    assert ontology.name(T_CELL) == "T cell"
    assert "T-cell" in ontology.synonyms(T_CELL)
    assert ontology.definition(T_CELL).startswith("A type of lymphocyte")
    assert ontology.name("CL:0000003") == "obsolete native cell"


def test_relatives(ontology):
    assert ontology.parents(T_CELL) == (LYMPHOCYTE,)
    assert T_CELL in ontology.children(LYMPHOCYTE)
    assert {LYMPHOCYTE, CELL} < ontology.ancestors(T_CELL)
    assert T_CELL not in ontology.ancestors(T_CELL)
    assert T_CELL in ontology.ancestors(T_CELL, include_self=True)
    assert T_CELL in ontology.descendants(LYMPHOCYTE)
    assert LYMPHOCYTE not in ontology.descendants(LYMPHOCYTE)
    assert LYMPHOCYTE in ontology.descendants(LYMPHOCYTE, include_self=True)
    assert ontology.parents(CELL) == ()


def test_lowest_common_ancestors(ontology):
    assert ontology.lca(T_CELL, B_CELL) == (LYMPHOCYTE,)
    assert ontology.lca(T_CELL, LYMPHOCYTE) == (LYMPHOCYTE,)
    assert ontology.lca(T_CELL, T_CELL) == (T_CELL,)
    assert ontology.lca(T_CELL, LONELY) == ()


def test_lowest_common_ancestors_may_be_several(ontology):
    several = ontology.lca("CL:0000169", "CL:0000171")  # pancreatic B and A cell
    depths = [ontology.depth(term) for term in several]
    assert len(several) > 1
    assert depths == sorted(depths, reverse=True)


def test_depth_along_either_path(ontology):
    assert ontology.depth(CELL) == ontology.depth(LONELY) == 0
    purkinje = "CL:0000121"
    assert ontology.depth(purkinje) == 6
    assert ontology.depth(purkinje, path="shortest") == 3
    with pytest.raises(ValueError, match=r"longest.*shortest.*median"):
        ontology.depth(purkinje, path="median")


@given(terms, terms)
@settings(deadline=None)
def test_lca_is_symmetric_and_lowest(a, b):
    found = snapshot.lca(a, b)
    common = snapshot.ancestors(a, include_self=True) & snapshot.ancestors(b, include_self=True)
    assert found == snapshot.lca(b, a)
    assert set(found) <= common
    assert common == set(found).union(*map(snapshot.ancestors, found))
    assert not any(one in snapshot.ancestors(other) for one in found for other in found)


@given(terms)
@settings(deadline=None)
def test_relatives_agree(term):
    parents = snapshot.parents(term)
    assert snapshot.ancestors(term) == frozenset(parents).union(*map(snapshot.ancestors, parents))
    assert all(term in snapshot.children(parent) for parent in parents)
    assert all(term in snapshot.descendants(above) for above in snapshot.ancestors(term))
    assert snapshot.depth(term) == max((snapshot.depth(p) + 1 for p in parents), default=0)
    assert snapshot.depth(term, path="shortest") <= snapshot.depth(term)
    assert snapshot.current(term) == term


def test_snapshot_agrees_with_goatools(tmp_path):
    """An independent parser finds the same names, edges and depths."""
    import gzip
    from importlib.resources import files

    from goatools.obo_parser import GODag

    packed = files("sccello_tools.resources").joinpath("cell_ontology", SNAPSHOT).read_bytes()
    plain = tmp_path / "cl.obo"
    plain.write_bytes(gzip.decompress(packed))
    dag = GODag(str(plain), load_obsolete=True, prt=None)
    assert set(dag) == {*snapshot.terms, *snapshot.obsolete_terms}
    for term in snapshot:
        record = dag[term]
        assert snapshot.name(term) == record.name
        assert snapshot.ancestors(term) == record.get_all_parents()
        assert snapshot.depth(term) == record.depth
        assert snapshot.depth(term, path="shortest") == record.level


def test_membership_is_of_current_terms(ontology):
    assert T_CELL in ontology
    assert "CL:0000003" not in ontology
    assert 84 not in ontology
    assert list(ontology) == list(ontology.terms) == sorted(ontology.terms)


def test_obsolete_terms_resolve_or_list_terms_to_consider(ontology):
    assert ontology.is_obsolete("CL:0000003")
    assert not ontology.is_obsolete(T_CELL)
    assert ontology.current("CL:0000003") == CELL
    with pytest.raises(
        LabelError,
        match=r"obsolete cell by organism.*Consider instead: CL:0000000 \(cell\), CL:0001034",
    ):
        ontology.current("CL:0000004")
    with pytest.raises(LabelError, match="replaced by CLO:0000019"):
        ontology.current("CL:0000002")
    with pytest.raises(LabelError, match=r"CL:0000073.*CellOntology.find"):
        ontology.current("CL:0000073")  # replaced by a term that is obsolete itself


@pytest.mark.parametrize("method", ["parents", "children", "ancestors", "descendants", "depth"])
def test_obsolete_terms_are_not_in_the_graph(ontology, method):
    with pytest.raises(LabelError, match=r"CL:0000003.*obsolete.*current\(\)"):
        getattr(ontology, method)("CL:0000003")
    with pytest.raises(LabelError, match=r"CL:0000004.*Consider instead"):
        getattr(ontology, method)("CL:0000004")


@pytest.mark.parametrize(
    "method", ["name", "synonyms", "definition", "is_obsolete", "current", "parents", "ancestors"]
)
def test_unknown_ids_are_errors(ontology, method):
    with pytest.raises(
        LabelError,
        match=r"'CL:9999999'.*2026-03-26.*CellOntology.load",
    ):
        getattr(ontology, method)("CL:9999999")


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("CL_0000084", r"Did you mean CL:0000084 \(T cell\)"),
        ("CL:84", r"Did you mean CL:0000084 \(T cell\)"),
        ("http://purl.obolibrary.org/obo/CL_0000084", r"Did you mean CL:0000084 \(T cell\)"),
        ("84", r"Did you mean CL:0000084 \(T cell\)"),
        ("Th17", r"Similar: CL:0000899 \(T-helper 17 cell\).*an id such as CL:0000084"),
        ("CL:4042099", r"Similar ids: CL:\d+ \(.+\), CL:"),
        ("T cel", r"Similar: CL:0000084 \(T cell\)"),
        ("", "an id such as CL:0000084"),
    ],
)
def test_unknown_ids_get_suggestions(ontology, term, message):
    with pytest.raises(LabelError, match=message):
        ontology.current(term)


def test_find_ranks_names_and_synonyms(ontology):
    assert ontology.find("purkinje")[0].id == "CL:0000121"
    assert ontology.find("brush cell")[0].id == "CL:0002204"  # tuft cell, by its synonym
    assert ontology.find("neutrophl")[0].name == "neutrophil"
    assert ontology.find("lymphoctye")[0].name == "lymphocyte"
    hits = ontology.find("T cell", n=7)
    assert hits[0] == ("CL:0000084", "T cell", 1.0)
    assert len(hits) == 7
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert ontology.find("") == ontology.find("+++") == ()


def test_import_is_light():
    code = "import sys, sccello_tools.ontology; print(sorted({'torch', 'anndata', 'numba', 'goatools', 'scipy'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
