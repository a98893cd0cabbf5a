from __future__ import annotations

from collections import Counter

import anndata
import numpy as np
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.errors import GeneMatchError
from sccello_tools.tokens import CLS_ID, GeneVocabulary, MouseOrthologs, Tokenizer, match_gene_names
from sccello_tools.tokens.orthologs import looks_like_mouse

ORTHOLOGS = MouseOrthologs.load()
ONE = {symbol: genes[0] for symbol, genes in ORTHOLOGS.genes_by_symbol.items() if len(genes) == 1}
N_MOUSE = Counter(ONE.values())
PLAIN = [s for s, gene in ONE.items() if s.isalnum() and s[1:2].islower() and N_MOUSE[gene] == 1][
    :1_000
]
CLONES = [f"{number:07d}A01Rik" for number in range(100)]


def human(symbol: str) -> str:
    return GeneVocabulary.load().symbol_of[ORTHOLOGS.genes_of(symbol)[0]]


@pytest.mark.parametrize(
    ("mouse", "expected"),
    [
        ("Cd79a", "CD79A"),
        ("Ms4a1", "MS4A1"),
        ("Cd8b1", "CD8B"),
        ("Trp53", "TP53"),
        ("Ins2", "INS"),
        ("Ins1", "INS"),
        ("Lyz2", "LYZ"),
        ("Nkg7", "NKG7"),
        ("mt-Nd1", "MT-ND1"),
        ("S100a8", "S100A8"),
        ("ENSMUSG00000003379", "CD79A"),
        ("ensmusg00000003379.12", "CD79A"),
        ("CD79A", "CD79A"),
    ],
)
def test_known_orthologues(mouse, expected):
    assert human(mouse) == expected


def test_the_table():
    assert len(ORTHOLOGS) == 18_623
    n_genes = [len(genes) for genes in ORTHOLOGS.genes_by_number.values()]
    assert n_genes.count(1) == 18_295
    assert set().union(*ORTHOLOGS.genes_by_number.values()) <= set(GeneVocabulary.load().token_of)
    assert ORTHOLOGS.genes_of("Gm12345") == ()
    assert ORTHOLOGS.genes_of("ENSMUSG99999999999") == ()
    assert len(ORTHOLOGS.genes_of("Fcgr4")) > 1


def test_mouse_symbols_are_recognised_and_matched():
    match = match_gene_names([*PLAIN, *CLONES, "Fcgr4"])
    assert match.organism == "mouse"
    assert match.gene_ids[: len(PLAIN)].tolist() == [ONE[name] for name in PLAIN]
    assert match.n_by_symbol == match.n_matched == len(PLAIN)
    assert match.unmatched == tuple(CLONES)
    assert match.ambiguous == ("Fcgr4",)
    [warning] = match.warnings()
    assert "mouse genes: 1,000 of 1,101" in warning
    assert "trained on human cells" in warning
    assert "matched by their human orthologue" in str(match)


def test_mouse_ids_are_recognised_with_versions_and_a_prefix():
    ids = [f"ENSMUSG{number:011d}.3" for number in list(ORTHOLOGS.genes_by_number)[:600]]
    plain = match_gene_names(ids)
    assert plain.organism == "mouse"
    assert plain.n_by_id == plain.n_matched > 550
    prefixed = match_gene_names([f"mm10___{name}" for name in ids])
    assert prefixed.gene_ids.tolist() == plain.gene_ids.tolist()
    assert prefixed.n_repaired == {"prefix of a mouse genome removed": plain.n_matched}


def test_genes_with_the_same_orthologue_are_reported_and_summed():
    names = ["Ins1", "Ins2", "Gzmb", "Nkg7", "Nkg7-1", *PLAIN[:500]]
    match = match_gene_names(names)
    assert match.many_to_one == ("Ins1", "Ins2")
    assert match.repeated == ("Nkg7-1",)
    assert len(match.warnings()) == 2
    counts = sparse.csr_matrix(
        ([3.0, 3, 3, 6, 3, 3], [0, 1, 2, 0, 2, 3], [0, 3, 5, 6]), shape=(3, len(names))
    )
    tokens = Tokenizer(match, 64)(counts)
    cells = [row.tolist() for row in np.split(tokens.ids, tokens.indptr[1:-1])]
    assert match.tokens[0] == match.tokens[1]
    assert cells[0] == cells[1] == [CLS_ID, *sorted(match.tokens[1:3], key=cells[0].index)]


def test_the_organism_can_be_stated():
    upper = [name.upper() for name in PLAIN]
    assert match_gene_names(upper).organism == "human"
    match = match_gene_names(upper, organism="mouse")
    assert match.gene_ids.tolist() == [ONE[name] for name in PLAIN]
    with pytest.raises(GeneMatchError, match="organism='mouse'"):
        match_gene_names(PLAIN, organism="human")
    with pytest.raises(GeneMatchError, match="got 'rat'"):
        match_gene_names(PLAIN, organism="rat")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (PLAIN[:9], False),
        (PLAIN[:10], True),
        ([name.upper() for name in PLAIN], False),
        ([*(name.upper() for name in PLAIN), *(name.upper() for name in CLONES)], True),
        ([*(name.upper() for name in PLAIN), *(name.upper() for name in CLONES), "HLA-A"], False),
        (GeneVocabulary.load().symbols.tolist(), False),
        (GeneVocabulary.load().gene_ids.tolist(), False),
        ([*PLAIN, *(f"RGD{i}" for i in range(200))], False),
        ([f"ENSRNOG{i:011d}" for i in range(500)], False),
        ([*(f"GRCh38_{name.upper()}" for name in PLAIN[:400]), *(f"mm10___{name}" for name in PLAIN)], False),
        ([f"Abc{i}d" for i in range(500)], False),
        ([], False),
    ],
    ids=["nine", "ten", "upper case", "upper case with clones", "both species", "human symbols", "human IDs", "rat symbols", "rat IDs",
         "both genomes", "another organism", "none"],
)  # fmt: skip
def test_recognition(names, expected):
    assert looks_like_mouse(names) is expected


def test_every_function_accepts_mouse_counts(tiny_model_folder):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (4, len(PLAIN))).astype(np.float32)
    mouse = anndata.AnnData(counts)
    mouse.var_names = PLAIN
    twin = anndata.AnnData(counts)
    twin.var_names = [ONE[name] for name in PLAIN]
    with pytest.warns(UserWarning, match="trained on human cells") as caught:
        sccello.tl.embed(mouse, model=tiny_model_folder, device="cpu")
    assert [warning.filename for warning in caught] == [__file__]
    sccello.tl.embed(twin, model=tiny_model_folder, device="cpu")
    np.testing.assert_allclose(mouse.obsm["X_sccello"], twin.obsm["X_sccello"], atol=1e-5)


def test_a_stated_organism_is_used_by_later_functions():
    mouse = anndata.AnnData(np.eye(3, len(PLAIN), dtype=np.float32))
    mouse.var_names = [name.upper() for name in PLAIN]
    with pytest.warns(UserWarning, match="mouse genes"):
        sccello.pp.match_genes(mouse, organism="mouse")
    tokens = sccello.pp.tokenize(mouse)
    vocabulary = GeneVocabulary.load()
    genes = [vocabulary.token_of[ONE[name]] for name in PLAIN[:3]]
    assert tokens.ids.tolist() == [token for gene in genes for token in (CLS_ID, gene)]
