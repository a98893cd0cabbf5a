"""Gene matching: IDs, current and former symbols, duplicates, ambiguity, changed names, and names that are not genes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sccello_tools.errors import GeneMatchError
from sccello_tools.tokens import GeneVocabulary, match_gene_names
from sccello_tools.tokens.vocabulary import current_symbols, gene_aliases, primary_genes

VOCABULARY = GeneVocabulary.load()

# Ensembl's ids on the primary assembly of GRCh38; many of these symbols name haplotype copies in the vocabulary too.
PRIMARY = {
    "HLA-A": "ENSG00000206503",
    "HLA-B": "ENSG00000234745",
    "HLA-C": "ENSG00000204525",
    "HLA-E": "ENSG00000204592",
    "HLA-DRA": "ENSG00000204287",
    "HLA-DRB1": "ENSG00000196126",
    "HLA-DQA1": "ENSG00000196735",
    "HLA-DPB1": "ENSG00000223865",
    "B2M": "ENSG00000166710",
    "CD74": "ENSG00000019582",
    "CD3D": "ENSG00000167286",
    "CD3E": "ENSG00000198851",
    "CD4": "ENSG00000010610",
    "CD8A": "ENSG00000153563",
    "MS4A1": "ENSG00000156738",
    "CD79A": "ENSG00000105369",
    "NKG7": "ENSG00000105374",
    "GNLY": "ENSG00000115523",
    "LYZ": "ENSG00000090382",
    "CD14": "ENSG00000170458",
    "FCGR3A": "ENSG00000203747",
    "PPBP": "ENSG00000163736",
    "IL7R": "ENSG00000168685",
    "CCR7": "ENSG00000126353",
    "TNF": "ENSG00000232810",
    "LTA": "ENSG00000226979",
    "LTB": "ENSG00000227507",
    "CCL3": "ENSG00000277632",
    "CCL4": "ENSG00000275302",
    "CCL5": "ENSG00000271503",
    "TAP1": "ENSG00000168394",
    "PSMB9": "ENSG00000240065",
    "IFNG": "ENSG00000111537",
    "INS": "ENSG00000254647",
    "GCG": "ENSG00000115263",
    "ACTB": "ENSG00000075624",
}
OLD_SYMBOLS = {
    "SEPT7": "SEPTIN7",
    "MARCH1": "MARCHF1",
    "GNB2L1": "RACK1",
    "WARS": "WARS1",
    "FAM129A": "NIBAN1",
}


def ids_of(names, **options) -> list[str]:
    return match_gene_names(names, **{"min_matched": 0, **options}).gene_ids.tolist()


def test_every_gene_is_found_by_its_id():
    names = [
        f"{gene}.{i % 20}" if i % 2 else str(gene) for i, gene in enumerate(VOCABULARY.gene_ids)
    ]
    match = match_gene_names(names)
    np.testing.assert_array_equal(match.gene_ids, VOCABULARY.gene_ids)
    np.testing.assert_array_equal(match.tokens, VOCABULARY.tokens)
    assert (match.n_by_id, match.n_by_symbol, match.n_by_alias) == (25_424, 0, 0)
    assert (match.n_duplicates, match.ambiguous, match.unmatched) == (0, (), ())


def test_every_symbol_of_one_gene_is_found():
    of_one = {s: genes[0] for s, genes in VOCABULARY.genes_by_symbol.items() if len(genes) == 1}
    retired = {s for s, gene in of_one.items() if gene not in gene_aliases().get(s, [gene])}
    assert len(retired) == 167
    symbols = [symbol for symbol in of_one if symbol not in retired]
    match = match_gene_names(symbols)
    assert match.gene_ids.tolist() == [of_one[symbol] for symbol in symbols]
    assert match.n_by_symbol == match.n_matched == len(symbols) > 22_000


def test_symbols_of_retired_ids_go_to_the_gene_of_today():
    assert VOCABULARY.genes_by_symbol["SEPT1"] == ("ENSG00000270466",)
    assert VOCABULARY.genes_by_symbol["ATP5L"] == ("ENSG00000268551",)
    match = match_gene_names(["SEPT1", "ATP5L", "HIST1H4B"], min_matched=3)
    assert match.gene_ids.tolist() == ["ENSG00000180096", "ENSG00000167283", "ENSG00000278705"]
    assert match.n_by_alias == 3
    # TAZ was WWTR1's nickname too; where that has its own column, TAZ can only be TAFAZZIN
    assert ids_of(["TAZ", "WWTR1"]) == ["ENSG00000102125", "ENSG00000018408"]


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_symbols_reach_the_primary_genes(together):
    names = list(PRIMARY)
    found = ids_of(names) if together else [ids_of([name])[0] for name in names]
    assert dict(zip(names, found)) == PRIMARY


def test_few_symbols_stay_ambiguous():
    symbols = list(VOCABULARY.genes_by_symbol)
    match = match_gene_names(symbols)
    assert len(match.ambiguous) < 90
    assert match.n_matched + len(match.ambiguous) == len(symbols)
    assert match.n_by_alias < 170


def test_a_symbol_goes_to_a_gene_that_bears_or_bore_it():
    symbols = [s for s, genes in VOCABULARY.genes_by_symbol.items() if len(genes) > 1]
    for symbol, gene in zip(symbols, ids_of(symbols)):
        listed = {*VOCABULARY.genes_by_symbol[symbol], *gene_aliases().get(symbol, ())}
        assert gene == "" or gene in listed


def test_haplotype_copies_that_are_named_by_id_leave_the_other_gene():
    # TNF is ENSG00000232810, ENSG00000230108 its haplotype copy: if the data name the first by id, the symbol is the other
    assert VOCABULARY.genes_by_symbol["TNF"] == ("ENSG00000230108", "ENSG00000232810")
    assert ids_of(["ENSG00000232810", "TNF"]) == ["ENSG00000232810", "ENSG00000230108"]
    assert ids_of(["TNF", "ENSG00000230108"]) == ["ENSG00000232810", "ENSG00000230108"]


@pytest.mark.parametrize(("old", "new"), OLD_SYMBOLS.items())
def test_old_and_new_symbols_are_one_gene(old, new):
    assert ids_of([old]) == ids_of([new]) != [""]
    match = match_gene_names([old, new], min_matched=2)
    assert match.n_duplicates == 1
    assert match.n_by_symbol + match.n_by_alias == 2
    assert match.n_by_alias >= 1


@pytest.mark.parametrize(
    "name",
    [
        "ENSG00000198851",
        "ENSG00000198851.15",
        " ENSG00000198851 ",
        "ensg00000198851",
        "ENSG00000198851.15_PAR_Y",
        "CD3E",
        "T3E",
    ],
)
def test_spellings_of_one_gene(name):
    assert ids_of([name]) == ["ENSG00000198851"]


def test_pseudoautosomal_genes():
    # CD99; GENCODE wrote the copy on chromosome Y in two ways, one of which has tokens of its own in the vocabulary
    assert ids_of(["ENSG00000002586.20_PAR_Y"]) == ["ENSG00000002586"]
    assert ids_of(["ENSGR0000002586.15"]) == ["ENSGR0000002586"]
    assert "ENSGR0000198851" not in VOCABULARY.token_of
    assert ids_of(["ENSGR0000198851"]) == ["ENSG00000198851"]


@pytest.mark.parametrize(
    "name",
    [
        "cd3e",
        "Cd3e",
        "",
        "nan",
        "ENSG00000000000",
        "ENSG0000019885",
        "ENSMUSG00000032093",
        "7157",
        "RP11-34P13.7",
    ],
)
def test_names_that_are_no_gene(name):
    match = match_gene_names([name, "NKG7"], min_matched=1)
    assert match.gene_ids.tolist() == ["", "ENSG00000105374"]
    assert match.tokens[0] == -1
    assert match.unmatched == (name,)


@pytest.mark.parametrize("suffix", ["-1", ".1", "-2", ".12"])
def test_renamed_duplicates_go_with_their_first_column(suffix):
    names = ["PNRC2", f"PNRC2{suffix}", "HLA-A", f"HLA-A{suffix}", "SEPT7", f"SEPT7{suffix}"]
    first, second = ids_of(names)[::2], ids_of(names)[1::2]
    assert first == second
    assert all(first)
    assert match_gene_names(names, min_matched=6).n_duplicates == 3
    assert ids_of([f"PNRC2{suffix}"]) == [""], "without its first column it is no known name"


def test_a_symbol_that_ends_like_a_renamed_one_is_itself():
    assert ids_of(["NKX2", "NKX2-1"])[1] == VOCABULARY.genes_by_symbol["NKX2-1"][0]


def test_the_same_symbol_twice_is_one_gene_twice():
    for symbol in ("CD3E", "HLA-A", "TNF"):
        match = match_gene_names([symbol, symbol], min_matched=2)
        assert match.gene_ids.tolist() == [PRIMARY[symbol]] * 2
        assert match.n_duplicates == 1


def test_ambiguous_symbols_are_left_out_and_named():
    match = match_gene_names(["CD3E", "UBD"], min_matched=1)
    assert len(VOCABULARY.genes_by_symbol["UBD"]) == 2
    assert match.ambiguous == ("UBD",)
    assert match.unmatched == ()
    assert match.gene_ids.tolist() == ["ENSG00000198851", ""]
    assert "1 names fit several genes and are left out ('UBD')" in str(match)


def test_one_ambiguous_gene_by_id_settles_the_symbol():
    one, other = VOCABULARY.genes_by_symbol["UBD"]
    assert ids_of([one, "UBD"]) == [one, other]
    assert ids_of(["UBD", other]) == [one, other]


POOL = [
    *list(PRIMARY)[:12], *OLD_SYMBOLS, "TNF", "TBCE", "TNFA", "HLA-A-1", "TNF.1", "ENSG00000232810", "ENSG00000230108.3", "junk", "",
    *(symbol for symbol, genes in list(VOCABULARY.genes_by_symbol.items()) if len(genes) > 2),
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(POOL), max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_the_names_does_not_matter(names, random):
    found = dict(zip(names, ids_of(names)))
    assert ids_of(names) == [found[name] for name in names], "equal names, equal genes"
    shuffled = random.sample(names, len(names))
    assert ids_of(shuffled) == [found[name] for name in shuffled]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(POOL), max_size=25))
def test_the_report_adds_up(names):
    match = match_gene_names(names, min_matched=0)
    assert match.n_columns == len(names)
    assert match.n_matched + len(match.ambiguous) + len(match.unmatched) == len(names)
    assert (
        match.n_matched
        == np.count_nonzero(match.gene_ids != "")
        == np.count_nonzero(match.tokens >= 0)
    )
    assert match.n_genes == len(set(match.gene_ids.tolist()) - {""})
    assert match.n_duplicates == match.n_matched - match.n_genes
    for gene, token in zip(match.gene_ids.tolist(), match.tokens.tolist()):
        assert token == VOCABULARY.token_of.get(gene, -1)


def test_report():
    names = ["CD3E", "ENSG00000105374.10", "SEPT7", "SEPTIN7", "TBCE", "a", "b", "c", "d", "e", "f"]
    assert str(match_gene_names(names, min_matched=1)) == (
        "4 of 11 genes match (names look like symbols): 1 by Ensembl ID, 2 by symbol, 1 by alias; "
        "3 of the vocabulary's 25,424 genes are covered; 1 columns repeat a gene and are summed ('SEPTIN7'); "
        "1 names fit several genes and are left out ('TBCE'); "
        "6 are not in the vocabulary ('a', 'b', 'c', 'd', 'e', ...)"
    )


MOUSE = [
    "Actb",
    "Cd3e",
    "Gapdh",
    "H2-K1",
    "mt-Nd1",
    "Gm12345",
    "1700001C02Rik",
    "Cd8b1",
    "Il2ra",
    "Trp53",
    "Ptprc",
    "Nkx2-1",
]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["7157", "1956", "3845", "100130426"], r"Entrez IDs: '7157', '1956', '3845', '100130426'.*map the numbers"),
        (["7157.0", "1956.0", "100130426.0"], "Entrez IDs"),
        ([str(i) for i in range(50)], r"row numbers: '0', '1', '2', '3', '4', \.\.\."),
        ([str(i + 1) for i in range(50)], "row numbers"),
        (MOUSE[:8], "mouse or rat genes: 'Actb', 'Cd3e'.*organism='mouse'"),
        ([f"ENSMUSG{i:011d}" for i in range(9)], "another species"),
        ([f"ENSMUSG{i:011d}.4" for i in range(9)], "one-to-one orthologs"),
        ([f"ENST{i:011d}.1" for i in range(9)], "Ensembl transcripts: "),
        (["CD3E", "NKG7", "LYZ"], r"Only 3 of 3 genes match.*min_matched=500.*symbols"),
        ([f"ENSG{i:011d}" for i in range(9)], "human Ensembl IDs"),
        (["", "", "", "CD3E"], "empty or missing"),
        (["NA", "nan", "None", "CD3E"], "empty or missing"),
        ([], r"Only 0 of 0 genes match.*min_matched=500"),
        ([f"Mmul_{i}" for i in range(40)], "share the prefix 'Mmul_'"),
        ([f"chr1:{i}000-{i}500" for i in range(9)], "genomic regions.*RNA modality"),
        (["cd3e", "nkg7", "lyz", "cd8a"], "lower case.*zebrafish.*str.upper"),
    ],
)  # fmt: skip
def test_errors_describe_the_names(names, says):
    with pytest.raises(GeneMatchError, match=says):
        match_gene_names(names)


def test_min_matched_counts_columns():
    names = ["CD3E", "NKG7", "junk"]
    assert match_gene_names(names, min_matched=2).n_matched == 2
    with pytest.raises(GeneMatchError, match=r"Only 2 of 3 genes match.*min_matched=3"):
        match_gene_names(names, min_matched=3)


def test_the_vocabulary():
    assert len(VOCABULARY) == 25_424
    assert sorted(VOCABULARY.tokens.tolist()) == list(range(2, 25_426))
    assert np.isnan(VOCABULARY.median_of_token[[0, 1, 25_426]]).all()
    assert (VOCABULARY.median_of_token[VOCABULARY.tokens] > 0).all()
    assert len(VOCABULARY.sha256) == 64
    for gene in ("ENSG00000105374", "ENSG00000198851"):
        assert VOCABULARY.gene_of[VOCABULARY.token_of[gene]] == gene
    assert VOCABULARY.symbol_of["ENSG00000105374"] == "NKG7"


def test_tables_name_genes_of_the_vocabulary_only():
    genes = set(VOCABULARY.token_of)
    for table in (gene_aliases(), current_symbols()):
        assert {gene for of_name in table.values() for gene in of_name} <= genes
    assert primary_genes() <= genes
    assert len(primary_genes()) > 1000
