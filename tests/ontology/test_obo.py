from __future__ import annotations

import gzip

import pytest

from sccello_tools.errors import LabelError, OntologyError
from sccello_tools.ontology import CellOntology

# other ontologies, relations, qualifiers, comments, typedefs, merged ids and non-ASCII text, as in full release files
RELEASE = """format-version: 1.2
data-version: http://purl.obolibrary.org/obo/cl/releases/2025-01-08/cl.owl
subsetdef: human_subset "" []
ontology: cl

[Term]
id: CL:0000000
name: cell
is_a: CARO:0000000 {is_inferred="true"} ! anatomical thing

[Term]
id: CL:0000001
name: γδ "cell" \\{odd\\}
def: "Said to be \\"odd\\";\\nfrom MÜLLER \\\\ 1900." [PMID:1, http://x.y/z "a \\"note\\""]
synonym: "Müller's γδ cell" EXACT OMO:0003000 [ISBN:1]
synonym: "near thing" RELATED []
synonym: "T" EXACT []
synonym: "no scope" []
xref: FMA:1
is_a: CL:0000000 {is_inferred="true"} ! cell
is_a: CL:0000009 ! a term that is out of use
is_a: CL:7777777 ! a term that the file does not hold
relationship: part_of UBERON:0000955 ! brain
alt_id: CL:0000008
alt_id: CL:0000000
property_value: http://purl.org/dc/terms/x "1" xsd:string

[Term]
id: CL:0000009
name: obsolete thing
is_a: CL:0000000 ! cell
is_obsolete: true
replaced_by: CL:0000001 ! new thing

[Term]
id: CL:0000010
is_obsolete: true
consider: CL:0000001 ! new thing
consider: GO:0000001

[Term]
id: UBERON:0000955
name: brain
is_a: UBERON:0000000

[Typedef]
id: part_of
name: part of
is_a: CL:0000000

[Instance]
id: CL:0000011
"""


@pytest.fixture
def release(tmp_path):
    path = tmp_path / "cl.obo"
    path.write_text(RELEASE, encoding="utf-8")
    return path


def test_release_file_gives_cl_terms_and_is_a_edges_only(release):
    ontology = CellOntology.load(release)
    assert ontology.release == "2025-01-08"
    assert ontology.terms == ("CL:0000000", "CL:0000001")
    assert ontology.obsolete_terms == ("CL:0000009", "CL:0000010")
    assert ontology.parents("CL:0000001") == ("CL:0000000",)
    assert ontology.children("CL:0000000") == ("CL:0000001",)
    assert ontology.depth("CL:0000000") == 0


def test_texts_survive_escapes_and_other_letters(release):
    ontology = CellOntology.load(release)
    assert ontology.name("CL:0000001") == 'γδ "cell" {odd}'
    assert ontology.definition("CL:0000001") == 'Said to be "odd"; from MÜLLER \\ 1900.'
    assert ontology.synonyms("CL:0000001") == ("Müller's γδ cell", "T")
    assert set(ontology.synonyms("CL:0000001", scope="any")) == {
        "Müller's γδ cell",
        "near thing",
        "no scope",
        "T",
    }
    assert ontology.definition("CL:0000000") == ""
    assert ontology.name("CL:0000010") == ""


def test_merged_and_obsolete_ids_lead_to_the_current_one(release):
    ontology = CellOntology.load(release)
    assert ontology.current("CL:0000008") == "CL:0000001"
    assert ontology.current("CL:0000009") == "CL:0000001"
    assert ontology.current("CL:0000000") == "CL:0000000"
    assert ontology.is_obsolete("CL:0000008")
    assert ontology.consider("CL:0000010") == ("CL:0000001",)
    with pytest.raises(LabelError, match=r"CL:0000010.*Consider instead: CL:0000001"):
        ontology.current("CL:0000010")


def test_gzipped_file_is_the_same(release, tmp_path):
    zipped = tmp_path / "cl.obo.gz"
    zipped.write_bytes(gzip.compress(release.read_bytes()))
    plain, other = CellOntology.load(release), CellOntology.load(str(zipped))
    assert plain.terms == other.terms
    assert [plain.name(t) for t in plain] == [other.name(t) for t in other]


def test_windows_line_ends(release, tmp_path):
    other = tmp_path / "crlf.obo"
    other.write_bytes(RELEASE.replace("\n", "\r\n").encode())
    assert CellOntology.load(other).name("CL:0000001") == CellOntology.load(release).name(
        "CL:0000001"
    )


def test_nothing_is_printed(release, capfd):
    CellOntology.load(release)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b but no gzip", "OBO file"),
        (gzip.compress(RELEASE.encode())[:200], "OBO file"),
        (b"[Term]\nid: CL:0000000\nname: \xff\xfe\n", "OBO file"),
        (b"", r"\[Term\]"),
        (b'{"graphs": []}', "not OWL, not JSON"),
        (
            b"[Term]\nid: GO:0008150\nname: process\n",
            r"1 terms.*GO",
        ),
        (
            b"[Term]\nid: CL:0000001\nis_a: CL:0000002\n\n[Term]\nid: CL:0000002\nis_a: CL:0000001\n",
            "cycle: CL:",
        ),
    ],
)
def test_other_files_are_rejected(tmp_path, content, message):
    path = tmp_path / "bad.obo"
    path.write_bytes(content)
    with pytest.raises(OntologyError, match=message):
        CellOntology.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(OntologyError, match=r"nowhere.obo.*cl.obo"):
        CellOntology.load(tmp_path / "nowhere.obo")


def test_folder(tmp_path):
    with pytest.raises(OntologyError, match="OBO file"):
        CellOntology.load(tmp_path)


@pytest.mark.parametrize("data_version", ["", "data-version: snapshot-7\n"])
def test_release_without_a_date(tmp_path, data_version):
    path = tmp_path / "cl.obo"
    path.write_text(f"format-version: 1.2\n{data_version}\n[Term]\nid: CL:0000000\nname: cell\n")
    assert CellOntology.load(path).release == ("snapshot-7" if data_version else "unknown")
