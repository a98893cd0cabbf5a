"""What genes have in common: enrichment of Gene Ontology terms."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from sccello_tools import _keys
from sccello_tools._logging import logger
from sccello_tools.errors import GeneMatchError
from sccello_tools.get import marker_genes_df
from sccello_tools.perturbation.gene_ontology import GeneOntology
from sccello_tools.tokens import match_gene_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from sccello_tools.perturbation.gene_ontology import Aspect

_COLUMNS = (
    "group",
    "go_id",
    "name",
    "study_count",
    "study_n",
    "background_count",
    "background_n",
    "odds_ratio",
    "pval",
    "fdr",
    "folded_into",
    "genes",
)
_SAME = 0.5  # share of common study genes from which a relative says the same


def enrich_go(
    genes: AnnData | Sequence[str],
    *,
    group: str | Sequence[str] | None = None,
    key: str = _keys.MARKER_GENES,
    n_genes: int = 100,
    max_pval_adj: float | None = None,
    background: Literal["tested", "annotated"] | Sequence[str] = "tested",
    ontology: Aspect = "BP",
    go: GeneOntology | None = None,
    gene_ids: str | None = None,
    min_size: int = 5,
    max_size: int = 500,
    max_fdr: float | None = 0.05,
) -> pd.DataFrame:
    """Find Gene Ontology terms that are frequent among genes, by goatools' Fisher tests.

    Parameters
    ----------
    genes
        Annotated data after :func:`marker_genes`, or names of genes (Ensembl ids or symbols).
    group
        Groups of the marker genes; all if not given.
    key
        Key of ``adata.uns`` with the marker genes.
    n_genes
        Highest ranked genes of a group to study; only those with a score above 0.
    max_pval_adj
        Only genes with an adjusted p-value of at most this.
    background
        What genes could have been found. ``"tested"``: those that the model saw in the cells that the marker genes come from; for
        a list of names, the same as ``"annotated"``: all genes of the vocabulary that have a term. Or names of genes.
    ontology
        ``"BP"`` biological process, ``"MF"`` molecular function, ``"CC"`` cellular component.
    go
        Terms and annotations; the shipped release if not given. See :meth:`sccello_tools.tokens.GeneOntology.load`.
    gene_ids
        Column of ``adata.var`` with Ensembl ids or symbols, where ``var_names`` are neither.
    min_size, max_size
        Terms with fewer or more genes of the background are not tested.
    max_fdr
        Only terms with a false discovery rate of at most this; all tested terms if ``None``.

    Returns
    -------
    DataFrame, one row a group and term, most significant first within a group: group, go_id, name, study_count of study_n genes,
    background_count of background_n genes, odds_ratio, pval, fdr (Benjamini-Hochberg over the tested terms of the group),
    folded_into (id of a more significant ancestor or descendant that holds much the same genes, "" for terms that stand for
    themselves) and genes (names as given, separated by commas).

    Raises
    ------
    GeneMatchError
        If none of the genes is annotated, or the background holds none of them.
    KeyError
        If there are no marker genes of that key or group.
    OntologyError
        If ``ontology`` is no aspect.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> table = sccello.tl.enrich_go(["CD3D", "CD3E", "CD3G", "LCK", "ZAP70", "LAT", "ITK", "CD2"])
    >>> bool(table["name"].str.contains("T cell").any())
    True
    """
    go = go or GeneOntology.load()
    terms_of = go.with_ancestors(ontology)
    if isinstance(genes, AnnData):
        studies, tested = _of_markers(genes, group, key, n_genes, max_pval_adj, gene_ids)
    else:
        names = list(dict.fromkeys(map(str, genes)))
        studies, tested = {"genes": dict(zip(names, _ids(names)))}, None
    if not isinstance(background, str):
        population = set(_ids(list(background))) & terms_of.keys()
    elif background == "tested" and tested is not None:
        population = tested & terms_of.keys()
    else:
        population = set(terms_of)
    tables = [
        _study(name, called, population, terms_of, go, min_size=min_size, max_size=max_size)
        for name, called in studies.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    if max_fdr is not None:
        table = table[table["fdr"] <= max_fdr].reset_index(drop=True)
    table["group"] = pd.Categorical(table["group"], categories=list(studies))
    return table


def _of_markers(
    adata: AnnData,
    group: str | Sequence[str] | None,
    key: str,
    n_genes: int,
    max_pval_adj: float | None,
    gene_ids: str | None,
) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Studied genes of each group, name to id, and all genes that were tested."""
    table = marker_genes_df(adata, group, key=key)
    if gene_ids is None:
        called = adata.var_names.astype(str).tolist()
    elif gene_ids in adata.var:
        called = adata.var[gene_ids].astype(str).tolist()
    else:
        msg = f"adata.var has no column {gene_ids!r} (columns: {list(adata.var.columns)})."
        raise GeneMatchError(msg)
    id_of = dict(zip(adata.var_names.astype(str), _ids(called)))
    shares = table[["shares", "reference_shares"]].fillna(0).to_numpy()
    seen = np.asarray(table["names"])[shares.any(axis=1)]
    tested = {id_of[name] for name in seen} - {""}
    table = table[table["scores"] > 0]
    if max_pval_adj is not None:
        table = table[table["pvals_adj"] <= max_pval_adj]
    return {
        str(name): {gene: id_of[gene] for gene in rows["names"].head(n_genes)}
        for name, rows in table.groupby("group", observed=False)
    }, tested


def _ids(names: Sequence[str]) -> list[str]:
    found: list[str] = match_gene_names(names, min_matched=0).gene_ids.tolist()
    return found


def _study(
    group: str,
    called: dict[str, str],
    population: set[str],
    terms_of: dict[str, set[str]],
    go: GeneOntology,
    *,
    min_size: int,
    max_size: int,
) -> pd.DataFrame:
    from goatools.go_enrichment import GOEnrichmentStudy

    name_of = {gene: name for name, gene in called.items() if gene}
    study = set(name_of) & population
    if not study:
        msg = (
            f"Of the {len(called)} genes of {group!r} none is annotated and in the background ({len(population):,} genes). "
            "Pass Ensembl ids or human symbols; for another background, background='annotated'."
        )
        raise GeneMatchError(msg)
    if lost := len(called) - len(study):
        logger.info(
            "enrich_go: %s: %d of %d genes have no term or are not in the background",
            group,
            lost,
            len(called),
        )
    sizes: dict[str, int] = {}
    for gene in population:
        for term in terms_of[gene]:
            sizes[term] = sizes.get(term, 0) + 1
    wanted = {term for term, size in sizes.items() if min_size <= size <= max_size}
    # a term that no studied gene has cannot be enriched; it is not tested
    wanted &= set().union(*(terms_of[gene] for gene in study))
    if not wanted:
        return pd.DataFrame(columns=list(_COLUMNS))
    kept = {gene: terms_of[gene] & wanted for gene in population}
    with contextlib.redirect_stdout(io.StringIO()):
        tests = GOEnrichmentStudy(
            population,
            kept,
            go.dag,
            propagate_counts=False,
            alpha=0.05,
            methods=["fdr_bh"],
            log=None,
        ).run_study(study, prt=None)
    rows = [
        (
            group,
            test.GO,
            test.name,
            test.study_count,
            test.study_n,
            test.pop_count,
            test.pop_n,
            _odds(test.study_count, test.study_n, test.pop_count, test.pop_n),
            test.p_uncorrected,
            test.p_fdr_bh,
            "",
            sorted(test.study_items),
        )
        for test in tests
        if test.enrichment == "e"
    ]
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    table = table.sort_values(["pval", "go_id"], ignore_index=True)
    table["folded_into"] = _fold(table, go)
    table["genes"] = [",".join(sorted(name_of[g] for g in items)) for items in table["genes"]]
    return table


def _odds(study: int, study_n: int, pop: int, pop_n: int) -> float:
    """Odds ratio of the two-by-two table, with a half added to each field (Haldane) so that it is finite."""
    a, b = study + 0.5, study_n - study + 0.5
    c, d = pop - study + 0.5, pop_n - study_n - pop + study + 0.5
    return float(a * d / (b * c))


def _fold(table: pd.DataFrame, go: GeneOntology) -> list[str]:
    """For each term, the most significant relative before it that holds much the same study genes."""
    heads: list[tuple[str, set[str], set[str]]] = []
    folded = []
    for go_id, items in zip(table["go_id"], table["genes"]):
        own, above = set(items), go.dag[go_id].get_all_parents()
        into = ""
        for head, held, head_above in heads:
            related = head in above or go_id in head_above
            if related and len(own & held) >= _SAME * len(own | held):
                into = head
                break
        if not into:
            heads.append((go_id, own, above))
        folded.append(into)
    return folded
