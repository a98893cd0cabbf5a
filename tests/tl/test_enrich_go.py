"""Enrichment of Gene Ontology terms: its counts against Fisher's test, its genes, its background, what it refuses."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sccello_tools.errors import ArgumentError, GeneMatchError, OntologyError
from sccello_tools.perturbation import GeneOntology
from sccello_tools.tl import enrich_go
from sccello_tools.tokens import GeneVocabulary

T_GENES = ["CD3D", "CD3E", "CD3G", "LCK", "ZAP70", "LAT", "ITK", "CD2"]
KEY = "sccello_marker_genes"


@pytest.fixture(scope="module")
def t_cell_table():
    return enrich_go(T_GENES)


def test_t_cell_genes_are_about_t_cells(t_cell_table):
    top = t_cell_table[t_cell_table["folded_into"] == ""].head(3)
    assert top["name"].str.contains("T cell").any()
    assert (t_cell_table["fdr"] <= 0.05).all()
    assert t_cell_table["pval"].is_monotonic_increasing


def test_counts_and_p_values_are_those_of_fishers_test(t_cell_table):
    go = GeneOntology.load()
    terms_of = go.with_ancestors("BP")
    for row in t_cell_table.head(5).itertuples():
        holders = {gene for gene, terms in terms_of.items() if row.go_id in terms}
        assert row.background_count == len(holders)
        assert row.background_n == len(terms_of)
        assert row.study_count == len(row.genes.split(","))
        a, b = row.study_count, row.study_n - row.study_count
        c, d = row.background_count - a, row.background_n - row.background_count - b
        expected = stats.fisher_exact([[a, b], [c, d]]).pvalue
        assert row.pval == pytest.approx(expected, rel=1e-6)


def test_genes_are_named_as_they_were_given():
    ids = ["ENSG00000167286", "ENSG00000198851", "ENSG00000160654", "ENSG00000182866"]
    table = enrich_go(ids)
    assert set(",".join(table["genes"]).split(",")) <= set(ids)


def test_a_folded_term_names_a_related_one_that_stands_for_itself(t_cell_table):
    go = GeneOntology.load()
    folded = t_cell_table[t_cell_table["folded_into"] != ""]
    assert len(folded)
    stands = dict(zip(t_cell_table["go_id"], t_cell_table["folded_into"]))
    for row in folded.itertuples():
        assert stands[row.folded_into] == ""
        own, head = (go.dag[term] for term in (row.go_id, row.folded_into))
        assert row.folded_into in own.get_all_parents() or row.go_id in head.get_all_parents()


def test_without_a_limit_all_tested_terms_are_listed(t_cell_table):
    everything = enrich_go(T_GENES, max_fdr=None)
    assert len(everything) > len(t_cell_table)
    assert everything["background_count"].between(5, 500).all()


def test_a_background_of_the_same_genes_has_nothing_to_find():
    assert len(enrich_go(T_GENES, background=T_GENES, min_size=1)) == 0


def marked(scores, fractions):
    """Marker genes as tl.marker_genes leaves them, of one group."""
    names = list(scores)
    table = pd.DataFrame({"immune": names})
    field = lambda values: pd.DataFrame({"immune": values}).to_records(index=False)  # noqa: E731
    values = np.array(list(scores.values()), dtype=float)
    result = {"names": table.to_records(index=False), "reference_fractions": field(fractions)}
    for name in ("scores", "mean_scores", "logfoldchanges", "pvals", "pvals_adj", "fractions"):
        result[name] = field(fractions if name == "fractions" else values)
    return anndata.AnnData(
        np.zeros((1, len(names)), dtype=np.float32),
        var=pd.DataFrame(index=names),
        uns={KEY: result},
    )


@pytest.fixture(scope="module")
def markers():
    others = [s for s in GeneVocabulary.load().symbols[:4000] if s and s not in T_GENES]
    others = list(dict.fromkeys(others))[:1500]
    scores = dict.fromkeys(T_GENES, 1.0) | dict.fromkeys(others, -1.0)
    fractions = np.where(np.arange(len(scores)) < 900, 0.5, 0.0)
    return marked(scores, fractions)


def test_markers_are_studied_against_the_genes_that_the_model_saw(markers):
    table = enrich_go(markers)
    seen = set(markers.var_names[:900])
    annotated = GeneOntology.load().with_ancestors("BP")
    assert table["group"].cat.categories.tolist() == ["immune"]
    assert table["study_n"].iloc[0] == len(T_GENES)
    assert table["background_n"].iloc[0] <= len(seen)
    assert table["name"].str.contains("T cell").any()
    wide = enrich_go(markers, background="annotated")
    assert wide["background_n"].iloc[0] == len(annotated)


def test_only_genes_above_nought_are_studied_and_at_most_n(markers):
    assert enrich_go(markers, n_genes=5, max_fdr=None)["study_n"].max() == 5
    assert enrich_go(markers, n_genes=1000, max_fdr=None)["study_n"].max() == len(T_GENES)


def test_symbols_may_stand_in_a_column(markers):
    renamed = markers.copy()
    renamed.var["symbol"] = renamed.var_names
    renamed.var_names = [f"g{i}" for i in range(renamed.n_vars)]
    renamed.uns[KEY]["names"] = pd.DataFrame({"immune": renamed.var_names}).to_records(index=False)
    table = enrich_go(renamed, gene_ids="symbol")
    assert table["name"].str.contains("T cell").any()
    assert set(table["genes"].iloc[0].split(",")) <= {f"g{i}" for i in range(8)}


def test_markers_are_left_as_they_were(markers):
    before = {name: value.copy() for name, value in markers.uns[KEY].items()}
    enrich_go(markers)
    for name, value in before.items():
        assert (markers.uns[KEY][name] == value).all()


def test_what_cannot_be_studied(markers):
    with pytest.raises(GeneMatchError, match=r"'genes'.*2"):
        enrich_go(["abc", "def"])
    with pytest.raises(OntologyError, match="ontology must be one of"):
        enrich_go(T_GENES, ontology="process")
    with pytest.raises(GeneMatchError, match="no column 'symbols'"):
        enrich_go(markers, gene_ids="symbols")
    with pytest.raises(KeyError, match="no group 'other'"):
        enrich_go(markers, group="other")
    with pytest.raises(KeyError, match="marker_genes"):
        enrich_go(markers, key="none")


def test_a_background_must_be_known(markers):
    for background in ("Tested", "all", "expressed"):
        with pytest.raises(ArgumentError, match=f"'tested', 'annotated'.*'{background}'"):
            enrich_go(markers, background=background)
    with pytest.raises(GeneMatchError, match=r"background.*'nope'"):
        enrich_go(T_GENES, background=["nope", "neither"])


def test_unknown_names_in_a_background_are_logged(caplog):
    others = [s for s in GeneVocabulary.load().symbols[:3000] if s]
    with caplog.at_level("WARNING", logger="sccello_tools"):
        enrich_go(T_GENES, background=[*T_GENES, *others, "nope"])
    assert "'nope'" in caplog.text


def test_a_group_without_enriched_term_is_logged_with_its_lowest_fdr(caplog):
    rng = np.random.default_rng(0)
    unrelated = rng.choice([s for s in GeneVocabulary.load().symbols if s], 30).tolist()
    lowest = enrich_go(unrelated, max_fdr=None)["fdr"].min()
    assert lowest > 0.01
    with caplog.at_level("INFO", logger="sccello_tools"):
        assert enrich_go(unrelated, max_fdr=0.01).empty
    assert f"{lowest:.2g}" in caplog.text
    caplog.clear()
    enrich_go(T_GENES, max_fdr=0.01)
    assert "lowest" not in caplog.text


def test_a_single_text_is_one_gene():
    table = enrich_go("CD3D", max_fdr=None)
    assert set(table["study_n"]) == {1}
    assert set(table["genes"]) == {"CD3D"}


def test_a_group_without_genes_is_skipped(markers):
    two = markers.copy()
    result = two.uns[KEY]
    for name, value in result.items():
        empty = value["immune"].copy()
        if name == "scores":
            empty = -np.abs(empty)
        frame = pd.DataFrame({"immune": value["immune"], "without": empty})
        result[name] = frame.to_records(index=False)
    with pytest.warns(UserWarning, match=r"1 of 2 groups.*'without'"):
        table = enrich_go(two)
    pd.testing.assert_frame_equal(
        table.drop(columns="group"), enrich_go(markers).drop(columns="group")
    )
    assert set(table["group"]) == {"immune"}
    with pytest.raises(GeneMatchError, match="'without'"):
        enrich_go(two, group="without")
