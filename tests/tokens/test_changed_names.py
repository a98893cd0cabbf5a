"""Names that are not genes, and gene names that other software changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sccello_tools.errors import GeneMatchError
from sccello_tools.tokens import GeneVocabulary, feature_type_column, match_gene_names
from sccello_tools.tokens.vocabulary import gene_aliases

VOCABULARY = GeneVocabulary.load()
UNIQUE = sorted(symbol for symbol, genes in VOCABULARY.genes_by_symbol.items() if len(genes) == 1 and gene_aliases().get(symbol, genes) == genes)  # fmt: skip
SYMBOLS = UNIQUE[::40]


def ids_of(names, **options) -> list[str]:
    return match_gene_names(names, **{"min_matched": 0, **options}).gene_ids.tolist()


def gene(symbol: str) -> str:
    return ids_of([symbol])[0]


# --- missing values


@pytest.mark.parametrize("text", ["NA", "NaN", "nan", "None", "none", "NULL", "null", "<NA>", "#N/A", "n/a", "N/A", "n.a.", "-", "--", "?", "."])  # fmt: skip
@pytest.mark.parametrize("suffix", ["", ".1", "-3", "_12", ".4711", " "])
def test_missing_values_match_nothing(text, suffix):
    assert ids_of([text + suffix, "NKG7"]) == ["", "ENSG00000105374"]


def test_missing_values_do_not_take_the_gene_of_an_alias_from_its_symbol():
    assert gene_aliases()["NA"] == (gene("XK"),)
    assert ids_of(["NA", "XK", "NA.1"]) == ["", gene("XK"), ""]


# --- names made unique, and shared aliases


@pytest.mark.parametrize(("base", "renamed"), [("AGT", "AGT-1"), ("ALK", "ALK-5"), ("CBS", "CBS-1"), ("APP", "APP.1"), ("CCK", "CCK_4")])  # fmt: skip
def test_next_to_its_base_a_name_made_unique_is_the_base(base, renamed):
    """ "ALK-5" is an alias of TGFBR1."""
    assert ids_of([base, renamed]) == [gene(base)] * 2
    assert ids_of([renamed, base]) == [gene(base)] * 2


def test_without_its_base_it_may_be_an_alias():
    assert ids_of(["ALK-5"]) == [gene("TGFBR1")]


def test_current_symbols_come_before_names_made_unique():
    assert ids_of(["MIR486", "MIR486-2"])[1] == VOCABULARY.genes_by_symbol["MIR486-2"][0]


@pytest.mark.parametrize("n", [3, 40])
def test_an_alias_of_many_columns_is_not_one_gene(n):
    alias = "T3E"  # of CD3E
    assert ids_of([alias, "NKG7"])[0] == gene("CD3E")
    repeated = [alias, *(f"{alias}-{i}" for i in range(1, n))]
    assert set(ids_of(repeated)) == {""}
    assert set(ids_of([alias] * n)) == {""}
    assert ids_of([*repeated, "CD3E"])[-1] == gene("CD3E")


def test_repeated_symbols_are_one_gene():
    assert ids_of(["CD3E"] * 5) == [gene("CD3E")] * 5


# --- feature types


@pytest.mark.parametrize(
    "kind",
    ["Antibody Capture", "CRISPR Guide Capture", "Multiplexing Capture", "Peaks", "Custom", "Antigen Capture", "VDJ", b"Antibody Capture"],
)  # fmt: skip
def test_other_feature_types_are_not_genes(kind):
    names = ["CD8A", "CD19", "CD14", "NKG7"]
    match = match_gene_names(
        names, min_matched=1, feature_types=["Gene Expression", kind, kind, "Gene Expression"]
    )
    text = kind.decode() if isinstance(kind, bytes) else kind
    assert match.gene_ids.tolist() == [gene("CD8A"), "", "", gene("NKG7")]
    assert match.tokens.tolist()[1:3] == [-1, -1]
    assert match.non_genes == {text: 2}
    assert (match.n_matched, match.n_columns) == (2, 4)
    assert match.excluded.tolist() == [False, True, True, False]
    [warning] = match.warnings()
    assert "2 of 4 variables" in warning
    assert f"2 {text!r}" in warning


@pytest.mark.parametrize("types", [
    ["protein_coding", "lncRNA", "IG_V_gene", "protein_coding"],
    ["Gene Expression"] * 4,
    ["gene", None, "gene", np.nan],
    ["", "", "", ""],
    ["rna"] * 4,
])  # fmt: skip
def test_types_of_genes_exclude_nothing(types):
    match = match_gene_names(["CD8A", "CD19", "CD14", "NKG7"], min_matched=1, feature_types=types)
    assert match.n_matched == 4
    assert not match.non_genes
    assert not match.warnings()


@pytest.mark.parametrize("types", [["ADT"] * 3, ["surface protein"] * 3, ["ATAC peak"] * 3, ["sgRNA"] * 3, ["hashtag"] * 3])  # fmt: skip
def test_a_matrix_without_genes_is_refused_with_its_type(types):
    with pytest.raises(GeneMatchError, match=f"3 {types[0]!r}"):
        match_gene_names(["CD8A", "CD19", "CD14"], feature_types=types)


def test_a_guide_does_not_make_its_gene_a_duplicate():
    types = ["Gene Expression", "Gene Expression", "CRISPR Guide Capture", "CRISPR Guide Capture"]
    match = match_gene_names(["TP53", "MYC", "TP53-1", "MYC"], min_matched=1, feature_types=types)
    assert match.n_duplicates == 0
    assert match.gene_ids.tolist() == [gene("TP53"), gene("MYC"), "", ""]


def test_categorical_types():
    types = pd.Categorical(["Gene Expression", "Antibody Capture"])
    assert match_gene_names(["CD4", "CD8A"], min_matched=1, feature_types=types).n_matched == 1


def test_column_of_feature_types():
    assert feature_type_column(["gene_ids", "feature_types", "genome"]) == "feature_types"
    assert feature_type_column(["Feature_Type"]) == "Feature_Type"
    assert feature_type_column(["feature_biotype", "feature_type"]) == "feature_type"
    assert feature_type_column(["gene_type"]) is None


@pytest.mark.parametrize("name", ["BLANK_0412", "Blank-7", "NegControlCodeword_0500", "NegPrb12", "antisense_PROKR2", "ERCC-00130", "SystemControl4", "UnassignedCodeword_0001", "FalseCode9"])  # fmt: skip
def test_controls_of_panels_and_spike_ins(name):
    match = match_gene_names([name, "NKG7"], min_matched=1)
    assert match.excluded.tolist() == [True, False]
    assert (match.n_controls, match.unmatched) == (1, ())


# --- changed names


@pytest.mark.parametrize("change", [
    "hg38_{}", "GRCh37___{}", "GRCh38-2020-A_{}", "hg19_premrna_{}", "GRCh38.p13-{}", "refdata-gex-GRCh38-2020-A_{}",
    "human_{}", "gene:{}", "gene-{}", "rna_{}",
])  # fmt: skip
@pytest.mark.parametrize("kind", ["symbols", "ids"])
def test_prefixes(change, kind):
    names = SYMBOLS if kind == "symbols" else VOCABULARY.gene_ids[::50].tolist()
    expected = ids_of(names)
    match = match_gene_names([change.format(name) for name in names])
    assert match.gene_ids.tolist() == expected
    assert sum(match.n_repaired.values()) == match.n_matched


def test_of_two_genomes_the_human_genes_match():
    names = [f"GRCh38_{name}" for name in SYMBOLS] + [f"mm10___{name.capitalize()}" for name in SYMBOLS]  # fmt: skip
    match = match_gene_names(names)
    assert match.gene_ids.tolist() == ids_of(SYMBOLS) + [""] * len(SYMBOLS)


@pytest.mark.parametrize("prefix", ["Mmul_10_", "rheMac8_", "macFas5-"])
def test_genomes_of_other_species_keep_their_prefix(prefix):
    """Symbols of primates are those of human genes, but they are not human genes."""
    with pytest.raises(GeneMatchError, match=r"prefix '\w+?[_-]'.*removeprefix"):
        match_gene_names([prefix + name for name in SYMBOLS])


@pytest.mark.parametrize("change", ["{id}_{symbol}", "{symbol}_{id}", "{symbol} ({id})", "{id}:{symbol}", "{symbol}|{id}.12", "{id}.3-{symbol}", "{id};{symbol}"])  # fmt: skip
def test_id_and_symbol_in_one_name(change):
    ids = [VOCABULARY.genes_by_symbol[symbol][0] for symbol in SYMBOLS]
    names = [change.format(id=id_, symbol=symbol) for id_, symbol in zip(ids, SYMBOLS)]
    match = match_gene_names(names)
    assert match.gene_ids.tolist() == ids
    assert match.n_by_id == len(names)


def test_two_ids_in_one_name_are_not_one_gene():
    assert ids_of(["ENSG00000198851-ENSG00000105374", "ENSG00000198851_ENSG00000198851"]) == ["", "ENSG00000198851"]  # fmt: skip


@pytest.mark.parametrize(("name", "symbol"), [
    ("HLA.DRB1", "HLA-DRB1"), ("HLA_DPA1", "HLA-DPA1"), ("MT.CO3", "MT-CO3"), ("MT_ATP6", "MT-ATP6"), ("NKX3.1", "NKX3-1"), ("KRTAP5.9", "KRTAP5-9"),
    ("C9ORF72", "C9orf72"), ("CXorf36", "CXorf36"), ("TP53|7157", "TP53"), ("b'TP53'", "TP53"), ('"TP53"', "TP53"),
    ("\ufeffTP53", "TP53"), (" TP53\t", "TP53"),
])  # fmt: skip
def test_characters_that_were_changed(name, symbol):
    assert ids_of([name]) == [gene(symbol)] != [""]


def test_a_dot_is_not_a_dash_next_to_the_base_name():
    """ "NKX2.1" next to "NKX2" would be its second column; an alias with a dash is no reason to change a name."""
    assert ids_of(["TP53", "TP53.2"]) == [gene("TP53")] * 2
    assert gene_aliases()["AIP-3"]
    assert ids_of(["AIP.3"]) == [""]


def test_exact_names_are_never_changed():
    names = [symbol for symbol in UNIQUE if set(symbol) & set("._-")]
    assert len(names) > 100
    match = match_gene_names(names)
    assert not match.n_repaired
    assert match.n_by_symbol == len(names)


@pytest.mark.parametrize(("date", "symbol"), [
    ("11-Sep", "SEPTIN11"), ("Sep-09", "SEPTIN9"), ("7-SEP", "SEPTIN7"), ("2023-09-06", "SEPTIN6"), ("2021-03-05 00:00:00", "MARCHF5"),
    ("8-Mar", "MARCHF8"), ("Mar-06", "MARCHF6"), ("1-Dec", "DELEC1"), ("15-Sep", "SELENOF"),
])  # fmt: skip
def test_dates_of_spreadsheets(date, symbol):
    match = match_gene_names([date, "NKG7"], min_matched=1)
    assert match.gene_ids.tolist()[0] == gene(symbol) != ""
    assert sum(match.n_repaired.values()) == 1


@pytest.mark.parametrize(
    "date", ["1-Mar", "Mar-02", "14-Oct", "1-Jan", "2020-05-17", "31-Mar", "30-Sep"]
)
def test_dates_that_fit_no_gene_or_two_are_reported(date):
    match = match_gene_names([date, "NKG7"], min_matched=1)
    assert match.gene_ids.tolist()[0] == ""
    assert date in (*match.ambiguous, *match.unmatched)


def test_unmatched_dates_are_counted():
    assert "2 of them dates" in str(match_gene_names(["1-Jan", "4-Oct", "NKG7"], min_matched=1))


def test_a_date_of_two_genes_is_the_one_that_no_other_column_names():
    assert ids_of(["1-Mar", "MARCHF1"]) == [gene("MTARC1"), gene("MARCHF1")]
    assert ids_of(["1-Mar", "1-Mar"]) == ["", ""]


# --- panels


def test_a_panel_whose_names_nearly_all_match_is_accepted_with_a_warning():
    panel = UNIQUE[:95] + [f"unknown gene {i}" for i in range(5)]
    match = match_gene_names(panel)
    assert match.is_panel
    assert match.fraction_matched == pytest.approx(0.95)
    [warning] = match.warnings()
    assert "95 genes" in warning
    assert match_gene_names(UNIQUE[:600]).is_panel is False
    assert match_gene_names(panel, min_matched=50).is_panel is False


@pytest.mark.parametrize(
    "names",
    [
        UNIQUE[:49],
        UNIQUE[:80] + [f"unknown gene {i}" for i in range(20)],
        UNIQUE[:200] + [str(i) for i in range(100)],
        [name.capitalize() for name in UNIQUE[:300]],
        [name.lower() for name in UNIQUE[:300]],
        [str(i) for i in range(7000, 7300)],
        [f"ENSMUSG{i:011d}" for i in range(300)],
    ],
    ids=["too few", "80 %", "67 %", "mouse", "lower case", "Entrez", "mouse IDs"],
)
def test_what_is_not_a_panel_is_refused(names):
    with pytest.raises(GeneMatchError, match="min_matched=500"):
        match_gene_names(names)


def test_a_higher_requirement_of_the_user_holds():
    with pytest.raises(GeneMatchError, match="min_matched=501"):
        match_gene_names(UNIQUE[:400], min_matched=501)


def test_antibodies_do_not_make_a_panel_fail():
    names = [*UNIQUE[:120], *(f"CD{i}" for i in range(200))]
    types = ["Gene Expression"] * 120 + ["Antibody Capture"] * 200
    assert match_gene_names(names, feature_types=types).is_panel
