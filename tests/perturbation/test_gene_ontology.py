"""The Gene Ontology: the shipped release, a user's own files, and files that are something else."""

from __future__ import annotations

import gzip

import pytest

from sccello_tools.errors import OntologyError
from sccello_tools.perturbation import GeneOntology

OBO = """format-version: 1.2
data-version: releases/2030-01-01

[Term]
id: GO:0008150
name: biological_process
namespace: biological_process

[Term]
id: GO:0000001
name: parent process
namespace: biological_process
is_a: GO:0008150 ! biological_process

[Term]
id: GO:0000002
name: child process
namespace: biological_process
is_a: GO:0000001 ! parent process

[Term]
id: GO:0000003
name: withdrawn process
namespace: biological_process
is_obsolete: true
"""
CD3E, INS = "ENSG00000198851", "ENSG00000254647"


def gaf_line(symbol, term, qualifier="involved_in", evidence="IDA"):
    fields = [
        "UniProtKB",
        "P1",
        symbol,
        qualifier,
        term,
        "PMID:1",
        evidence,
        "",
        "P",
        "",
        "",
        "protein",
    ]
    return "\t".join([*fields, "taxon:9606", "20300101", "UniProt", "", ""])


@pytest.fixture
def obo(tmp_path):
    path = tmp_path / "go.obo"
    path.write_text(OBO)
    return path


@pytest.fixture
def gaf(tmp_path):
    path = tmp_path / "own.gaf"
    lines = [
        "!gaf-version: 2.2",
        gaf_line("CD3E", "GO:0000002"),
        gaf_line("INS", "GO:0000001"),
        gaf_line("INS", "GO:0000002", qualifier="NOT|involved_in"),
        gaf_line("INS", "GO:0000003", evidence="ND"),
        gaf_line("no such gene", "GO:0000001"),
    ]
    path.write_text("\n".join(lines))
    return path


def test_the_shipped_release_knows_what_a_t_cell_gene_does():
    go = GeneOntology.load()
    assert go.release == "2022-07-01"
    names = {go.dag[term].name for term in go.with_ancestors("BP")[CD3E]}
    assert {"T cell activation", "lymphocyte activation"} <= names
    assert "biological_process" not in names


def test_aspects_are_kept_apart():
    go = GeneOntology.load()
    terms = {
        aspect: set().union(*go.with_ancestors(aspect).values()) for aspect in ("BP", "MF", "CC")
    }
    assert not terms["BP"] & terms["MF"]
    assert not terms["BP"] & terms["CC"]
    assert all(go.dag[term].namespace == "molecular_function" for term in terms["MF"])


def test_own_files_are_read_plain_or_gzipped(obo, gaf, tmp_path):
    packed = tmp_path / "go.obo.gz"
    packed.write_bytes(gzip.compress(obo.read_bytes()))
    for path in (obo, packed):
        go = GeneOntology.load(path, gaf)
        # a term is said with all that it is a kind of; denials, "no data" and unknown genes are not said at all
        assert go.with_ancestors("BP") == {CD3E: {"GO:0000001", "GO:0000002"}, INS: {"GO:0000001"}}
    assert "2030-01-01" in go.release


def test_an_unknown_aspect():
    with pytest.raises(OntologyError, match=r"'BP', 'MF', 'CC'.*'bp'"):
        GeneOntology.load().with_ancestors("bp")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<?xml version='1.0'?><rdf:RDF/>", "no terms of the Gene Ontology"),
        (b"[Term]\nid: CL:0000000\nname: cell\n", "no terms of the Gene Ontology"),
        (b"", "no terms"),
        (b"\xff\xfe\x00", "cannot be read"),
        (gzip.compress(OBO.encode(), mtime=0)[:40], "cannot be read"),
    ],
)
def test_a_file_that_is_no_ontology(tmp_path, content, message):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(OntologyError, match=message):
        GeneOntology.load(obo=path)


@pytest.mark.parametrize("content", ["", "!gaf-version: 2.2\n", "CD3E\tGO:0000001\n"])
def test_a_file_without_annotations(tmp_path, obo, content):
    path = tmp_path / "empty.gaf"
    path.write_text(content)
    with pytest.raises(OntologyError, match="no annotations"):
        GeneOntology.load(obo, path)


def test_a_missing_file(tmp_path):
    with pytest.raises(OntologyError, match="cannot be read"):
        GeneOntology.load(obo=tmp_path / "none.obo")
