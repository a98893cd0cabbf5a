"""`labels_60.tsv` and `profile_labels.tsv` hold labels of NanoString's CellProfileLibrary (CC BY 4.0), read and judged by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sccello_tools.errors import LabelError
from sccello_tools.ontology import CellOntology, match_label, match_labels
from sccello_tools.ontology.labels._index import label_index, read_aliases
from sccello_tools.ontology.text import bag_of

DATA = Path(__file__).parents[1] / "data"
APPLIED = {"exact", "synonym", "normalized", "obsolete"}


def table(name):
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("row", table("labels_60.tsv"), ids=lambda row: row["label"])
def test_labels_checked_by_hand(row):
    match = match_label(row["label"])
    if row["expected"].startswith("CL:"):
        assert (match.id, match.status in APPLIED) == (row["expected"], True)
    else:
        assert (match.id, match.status) == ("", row["expected"])
        assert set(row["offered"].split()) <= {hit.id for hit in match.candidates}


def test_sixty_labels_of_all_kinds():
    rows = table("labels_60.tsv")
    assert len(rows) == len({row["label"] for row in rows}) == 60
    assert {row["expected"] for row in rows} > {"ambiguous", "unknown"}


def test_all_436_profiles():
    """No label of the tissue profiles is mapped otherwise than it was found right by reading; at least 300 of them are settled."""
    rows = table("profile_labels.tsv")
    assert sum(int(row["n_profiles"]) for row in rows) == 436
    settled = 0
    for row in rows:
        match = match_label(row["label"])
        assert match.id == row["id"], row["label"]
        assert match.status in (APPLIED if row["status"] == "mapped" else {row["status"]}), row[
            "label"
        ]
        settled += int(row["n_profiles"]) * (match.status != "unknown")
    assert settled == 393


def test_profiles_with_an_id_agree_with_it_or_offer_it():
    """The file's ids were found by exact name or synonym; three of them are not what the label means there."""
    doubtful = set()
    rows = [row for row in table("profile_labels.tsv") if row["id_in_file"]]
    assert sum(int(row["n_profiles"]) for row in rows) == 219
    for row in rows:
        match = match_label(row["label"])
        if match.id != row["id_in_file"]:
            assert match.status == "ambiguous"
            assert row["id_in_file"] in {hit.id for hit in match.candidates}
            doubtful.add(row["label"])
    assert doubtful == {"CD16+.monocyte", "LAMP5", "VIP"}


@pytest.mark.parametrize(
    "label",
    [
        "CL:0000084",
        "CL_0000084",
        "cl:0000084",
        "cl_0000084",
        " CL:0000084 ",
        "http://purl.obolibrary.org/obo/CL_0000084",
    ],
)
def test_ids(label):
    match = match_label(label)
    assert (match.status, match.id, match.name, match.query) == (
        "exact",
        "CL:0000084",
        "T cell",
        label,
    )


def test_ids_out_of_use():
    match = match_label("CL:0000003")
    assert (match.status, match.id) == ("obsolete", "CL:0000000")
    assert match.reason == "CL:0000003 is replaced by CL:0000000"
    match = match_label("CL:0000004")
    assert (match.status, match.id) == ("unknown", "")
    assert [hit.id for hit in match.candidates] == ["CL:0000000", "CL:0001034"]
    assert "obsolete" in match.reason
    match = match_label("CL:9999999")
    assert (match.status, match.id, match.candidates) == ("unknown", "", ())
    assert "not a term" in match.reason


@pytest.mark.parametrize(
    ("label", "status", "name"),
    [
        ("T cell", "exact", "T cell"),
        ("T-cell", "synonym", "T cell"),
        ("pDC", "synonym", "plasmacytoid dendritic cell"),
        ("Müller cell", "synonym", "Mueller cell"),
        ("native cell", "obsolete", "cell"),
        ("t cells", "normalized", "T cell"),
        ("NK", "normalized", "natural killer cell"),
        ("nk-cells", "normalized", "natural killer cell"),
        ("Tregs", "normalized", "regulatory T cell"),
        ("T_reg", "normalized", "regulatory T cell"),
        ("CD4 T", "normalized", "CD4-positive, alpha-beta T cell"),
        ("CD8+ T-lymphocytes", "normalized", "CD8-positive, alpha-beta T cell"),
        ("CD4 Naive", "normalized", "naive thymus-derived CD4-positive, alpha-beta T cell"),
        ("CD8 TEM", "normalized", "effector memory CD8-positive, alpha-beta T cell"),
        ("memory CD4 T", "normalized", "CD4-positive, alpha-beta memory T cell"),
        ("CD14 Mono", "normalized", "CD14-positive monocyte"),
        ("NK_CD56bright", "normalized", "CD16-negative, CD56-bright natural killer cell, human"),
        ("MAIT", "normalized", "mucosal-associated invariant T cell"),
        ("HSC", "normalized", "hematopoietic stem cell"),
        ("RBCs", "normalized", "erythrocyte"),
        ("NK T cells", "normalized", "mature NK T cell"),
        ("Nonclassical monocytes", "normalized", "non-classical monocyte"),
        ("Monocyte, classical", "normalized", "classical monocyte"),
        ("lung fibroblasts", "normalized", "fibroblast of lung"),
        ("Arterial EC", "normalized", "endothelial cell of artery"),
        ("L5/6 NP", "normalized", "L5/6 near-projecting glutamatergic neuron"),
        ("fibro/adipogenic progenitors", "normalized", "fibro/adipogenic progenitor cell"),
        ("alpha", "normalized", "pancreatic A cell"),
        ("Red blood cell (erythrocyte)", "normalized", "erythrocyte"),
        ("Regulatory T (Treg) cell", "normalized", "regulatory T cell"),
        ("T cell (CL:0000084)", "normalized", "T cell"),
        ("3_T cells", "normalized", "T cell"),
        ("12: Fibroblasts", "normalized", "fibroblast"),
        ("c1 Fibroblast", "normalized", "fibroblast"),
        ("Fibroblast cluster 12", "normalized", "fibroblast"),
        ("NK_1", "normalized", "natural killer cell"),
        ("Type II pneumocytes", "normalized", "pulmonary alveolar type 2 cell"),
    ],
)
def test_labels_that_are_applied(label, status, name):
    match = match_label(label)
    assert (match.status, match.name) == (status, name)
    assert match.is_mapped
    assert match.candidates == ()


@pytest.mark.parametrize(
    ("label", "offered"),
    [
        ("T/NK", {"T cell", "natural killer cell"}),
        ("NK/T", {"T cell", "natural killer cell"}),
        ("NK, T cells", {"T cell", "natural killer cell"}),
        ("NK cells, T cells", {"T cell", "natural killer cell"}),
        ("T NK cells", {"T cell", "natural killer cell"}),
        ("B/plasma", {"B cell", "plasma cell"}),
        ("B cells and plasma cells", {"B cell", "plasma cell"}),
        (
            "CD4+ / CD8+ T cells",
            {"CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell"},
        ),
        ("T cell?", {"T cell"}),
        ("putative T cells", {"T cell"}),
        ("OPC-like", {"oligodendrocyte precursor cell"}),
        ("CD4 T cell doublet", {"CD4-positive, alpha-beta T cell"}),
        ("Endothelial cell (aorta)", {"endothelial cell"}),
        ("T cell (B cell)", {"T cell", "B cell"}),
        ("B_1", {"B cell"}),
        ("DC2", {"plasmacytoid dendritic cell", "CD1c-positive myeloid dendritic cell"}),
        ("LEC", {"endothelial cell of lymphatic vessel", "lens epithelial cell"}),
        ("GM", {"gastric mill neuron"}),
        ("NPE", {"non-pigmented ciliary epithelial cell"}),
        ("CCK", {"type I enteroendocrine cell"}),
        ("crypt cell", {"crypt olfactory receptor neuron"}),
        ("CD16 Mono", {"CD14-low, CD16-positive monocyte"}),
        ("luminal epithelial cell", {"luminal epithelial cell of mammary gland"}),
        ("Macrophages DC 1", {"macrophage", "dendritic cell"}),
    ],
)
def test_labels_that_are_not_mapped(label, offered):
    match = match_label(label)
    assert (match.status, match.id, match.name) == ("ambiguous", "", "")
    assert offered <= {hit.name for hit in match.candidates}
    assert not match.is_mapped


@pytest.mark.parametrize(
    "label",
    [
        "",
        " ",
        "...",
        "unknown",
        "Unassigned",
        "nan",
        "Low quality",
        "low_quality",
        "Doublets",
        "N/A",
    ],
)
def test_uninformative_labels(label):
    match = match_label(label)
    assert (match.status, match.id, match.candidates) == ("unknown", "", ())
    assert not match.candidates


@pytest.mark.parametrize(
    ("label", "first"),
    [
        ("foamy macrophages", "macrophage"),
        ("non-inflammatory macrophages", "macrophage"),
        ("T cell unknown", "T cell"),
        ("oligodendrcyte", "oligodendrocyte"),
        ("fetal fibroblast type 2", "fibroblast"),
    ],
)
def test_unknown_labels_get_suggestions_that_are_not_applied(label, first):
    match = match_label(label)
    assert (match.status, match.id) == ("unknown", "")
    assert match.candidates[0].name == first
    assert len(match.candidates) <= 5


@pytest.mark.parametrize("label", ["0", "12", "zzzzqqq", "CL:"])
def test_labels_without_similar_names(label):
    match = match_label(label)
    assert (match.status, match.id) == ("unknown", "")


def test_unlike_signs_are_unlike_labels():
    assert match_label("CD8- T cell").status == "unknown"
    assert match_label("CD4+CD8- T cell").status == "unknown"


@given(st.sampled_from(CellOntology.load().terms))
@settings(deadline=None, max_examples=300)
def test_every_name_is_found_in_any_spelling(term):
    ontology = CellOntology.load()
    name = ontology.name(term)
    match = match_label(name)
    assert (match.id, match.status) == (term, "exact")
    for dressed in (name.upper(), name.replace(" ", "_"), name.replace(" ", ".") + "s"):
        assert match_label(dressed).id in {term, ""}, dressed


def test_nearly_every_name_and_synonym_is_found_and_none_wrongly():
    """What a synonym does not lead to, an alias of the table says otherwise, or it is too short."""
    ontology = CellOntology.load()
    n_names = n_synonyms = n_applied = 0
    wrong = {}
    for term in ontology:
        lower = match_label(ontology.name(term).lower())
        n_names += lower.id == term
        assert lower.id in {term, ""}
        for synonym in ontology.synonyms(term):
            match = match_label(synonym)
            n_synonyms += 1
            n_applied += match.id == term
            if match.id not in {term, ""}:
                wrong[synonym] = match.name
    assert n_names >= len(ontology) - 4  # two pairs differ in a prime only: ambiguous
    assert n_applied > 0.95 * n_synonyms
    # three are the name of another term; the fourth is a mouse's retinal ganglion cell to the ontology, and a pancreas cell to people
    assert wrong == {
        "insulin-secreting cell": "insulin secreting cell",
        "substantia nigra dopaminergic neuron": "substantia nigra dopaminergic neuron",
        "OB Dopa-GABA": "OB-Dopa-GABA",
        "alpha cell": "pancreatic A cell",
    }


def test_aliases_are_current_unique_and_not_hidden_by_names():
    ontology = CellOntology.load()
    index = label_index(ontology)
    aliases = read_aliases()
    assert len({bag_of(alias.content) for alias in aliases}) == len(aliases)
    for alias in aliases:
        assert set(alias.ids) <= set(ontology.terms), alias
        assert alias.reason, alias
        named = index.content.by_name.get(alias.content, set())
        assert named <= set(alias.ids), alias
        match = match_label(alias.text)
        assert match.is_mapped == alias.applies, alias
        if alias.applies:
            assert match.id == alias.ids[0], alias


def test_another_release_without_a_term_of_the_table(tmp_path):
    path = tmp_path / "cl.obo"
    path.write_text(
        "[Term]\nid: CL:0000000\nname: cell\n\n[Term]\nid: CL:0000990\nname: conventional dendritic cell\nis_a: CL:0000000\n"
    )
    ontology = CellOntology.load(path)
    assert match_label("NK", ontology).status == "unknown"
    assert match_label("cDC", ontology).id == "CL:0000990"
    assert (
        match_label("DC1", ontology).status == "ambiguous"
    )  # and not applied, although one term is left


def test_report_counts_labels_and_rows():
    report = match_labels(["T cells", "Ductal cells", "T cells", "zzz", "Tregs", "CL:0000003"])
    assert (report.n_labels, report.n_rows, report.n_mapped, report.n_rows_mapped) == (5, 6, 3, 4)
    assert report.counts == (2, 1, 1, 1, 1)
    assert report["Tregs"].name == "regulatory T cell"
    text = str(report)
    assert text.startswith(
        "3 of 5 labels (4 of 6 rows) are mapped to the Cell Ontology 2026-03-26: 2 normalized, 1 ambiguous"
    )
    assert "ambiguous, not mapped: 'Ductal cells' (CL:0000068 duct epithelial cell, " in text
    assert "unknown, not mapped: 'zzz'" in text
    with pytest.raises(KeyError, match="'T cell'"):
        report["T cell"]


def test_report_as_table():
    frame = match_labels(["T cells", "T cells", "Ductal cells"]).to_frame()
    assert frame.columns.tolist() == ["label", "n", "status", "id", "name", "reason", "candidates"]
    assert frame.loc[0, ["label", "n", "status", "id"]].tolist() == [
        "T cells",
        2,
        "normalized",
        "CL:0000084",
    ]
    assert frame.loc[1, "candidates"].startswith("CL:0000068 duct epithelial cell; CL:0002079 ")


def test_report_names_five_examples():
    text = str(match_labels([f"qqq{i}" for i in range(7)]))
    assert "'qqq4'" in text
    assert "'qqq5'" not in text
    assert text.endswith("; ...")


def test_no_labels():
    report = match_labels([])
    assert (report.n_labels, report.n_rows, report.n_mapped) == (0, 0, 0)
    assert str(report).endswith("none")


def test_overrides_go_first():
    report = match_labels(
        ["Ductal cells", "T cells"],
        overrides={"Ductal cells": "CL:0002079", "T cells": "memory T cell"},
    )
    assert [(m.status, m.name) for m in report.matches] == [
        ("override", "pancreatic ductal cell"),
        ("override", "memory T cell"),
    ]


def test_overrides_that_cannot_be():
    with pytest.raises(
        LabelError,
        match=r"overrides.*'Ductal'.*'Ductal cells'",
    ):
        match_labels(["Ductal cells"], overrides={"Ductal": "CL:0002079"})
    with pytest.raises(LabelError, match=r"'a'.*'Ductal cells' \(CL:0000068 .*ambiguous"):
        match_labels(["a"], overrides={"a": "Ductal cells"})
    with pytest.raises(LabelError, match=r"unknown.*CellOntology.find"):
        match_labels(["a"], overrides={"a": "CL:9999999"})
