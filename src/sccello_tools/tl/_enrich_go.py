"""Enrichment of Gene Ontology terms among genes."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from sccello_tools import _keys
from sccello_tools._anndata.columns import missing_column
from sccello_tools._anndata.counts import RAW, warn_user
from sccello_tools._logging import logger
from sccello_tools._messages import quoted
from sccello_tools.errors import ArgumentError, GeneMatchError
from sccello_tools.get import marker_genes_df
from sccello_tools.perturbation import GeneOntology
from sccello_tools.tokens import match_gene_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Literal

    from sccello_tools.perturbation import Aspect

_COLUMNS: Final = (
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
_MIN_OVERLAP: Final = 0.5  # Jaccard index of study genes from which related terms are redundant


def enrich_go(
    genes: AnnData | Sequence[str] | str,
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
    """Test for enrichment of Gene Ontology terms among genes (Fisher's exact test of goatools).

    Parameters
    ----------
    genes
        Annotated data with the result of :func:`marker_genes`, or names of genes (Ensembl ids or symbols).
    group
        Groups of the marker genes; by default all.
    key
        Key of ``adata.uns`` with the marker genes.
    n_genes
        Number of highest-ranked genes of a group to study; only genes with a score above 0.
    max_pval_adj
        Maximum adjusted p-value of studied genes.
    background
        Background genes. ``"tested"``: those with a token in the cells that the marker genes come from; for a list of names, the
        same as ``"annotated"``: all genes of the vocabulary that have a term. Or names of genes.
    ontology
        ``"BP"`` biological process, ``"MF"`` molecular function, ``"CC"`` cellular component.
    go
        Terms and annotations; the bundled release by default. See :meth:`sccello_tools.perturbation.GeneOntology.load`.
    gene_ids
        Column of ``adata.var`` with Ensembl ids or symbols; by default ``var_names``.
    min_size, max_size
        Minimum and maximum number of background genes of tested terms.
    max_fdr
        Maximum false discovery rate; ``None`` returns all tested terms.

    Returns
    -------
    DataFrame with one row per group and term, most significant first within a group: group, go_id, name, study_count of study_n
    genes, background_count of background_n genes, odds_ratio, pval, fdr (Benjamini-Hochberg over the tested terms of the group),
    folded_into (id of a more significant ancestor or descendant with largely the same genes, "" otherwise) and genes (names as
    passed, separated by commas). Groups without genes to study are skipped with a warning.

    Raises
    ------
    GeneMatchError
        If no group has an annotated gene in the background, or none of the background names matches.
    ArgumentError
        If ``background`` is another string.
    NotFoundError
        If there are no marker genes of that key or group.
    OntologyError
        If ``ontology`` is unknown.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> table = sccello.tl.enrich_go(["CD3D", "CD3E", "CD3G", "LCK", "ZAP70", "LAT", "ITK", "CD2"])
    >>> bool(table["name"].str.contains("T cell").any())
    True
    """
    if isinstance(background, str) and background not in {"tested", "annotated"}:
        msg = (
            f"background must be 'tested', 'annotated' or a list of gene names, got {background!r}"
        )
        raise ArgumentError(msg)
    go = go or GeneOntology.load()
    terms_of = go.with_ancestors(ontology)
    if isinstance(genes, AnnData):
        studies, tested = _of_markers(genes, group, key, n_genes, max_pval_adj, gene_ids)
    else:
        names = [genes] if isinstance(genes, str) else list(dict.fromkeys(map(str, genes)))
        studies, tested = {"genes": dict(zip(names, _ids(names)))}, None
    if not isinstance(background, str):
        population = _background(list(background)) & terms_of.keys()
    elif background == "tested" and tested is not None:
        population = tested & terms_of.keys()
    else:
        population = set(terms_of)
    usable = {
        name: called
        for name, called in studies.items()
        if any(gene in population for gene in called.values())
    }
    if not usable:
        n_genes_of = {name: len(called) for name, called in studies.items()}
        msg = (
            f"No gene of {quoted(studies)} is annotated and in the background ({len(population):,} genes; genes passed: {n_genes_of}). "
            "Pass Ensembl ids or human symbols, raise max_pval_adj, or use background='annotated'."
        )
        raise GeneMatchError(msg)
    if skipped := [name for name in studies if name not in usable]:
        warn_user(
            f"{len(skipped)} of {len(studies)} groups have no gene to study (after max_pval_adj, positive scores and the background) and are skipped: {quoted(skipped)}."
        )
    tables = [
        _study(name, called, population, terms_of, go, min_size=min_size, max_size=max_size)
        for name, called in usable.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    if max_fdr is not None:
        for name, found in zip(usable, tables):
            if not (found["fdr"] <= max_fdr).any():
                logger.info(
                    "enrich_go: no term of %r has an FDR of at most %g (lowest: %.2g)",
                    name,
                    max_fdr,
                    found["fdr"].min(),
                )
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
    """Return the studied genes of each group, name to id, and all tested genes."""
    table = marker_genes_df(adata, group, key=key)
    from_raw = adata.uns[key].get("params", {}).get("layer") == RAW and adata.raw is not None
    var = adata.raw.var if from_raw else adata.var
    if gene_ids is not None and gene_ids not in var:
        raise GeneMatchError(missing_column("adata.var", gene_ids, var.columns, "gene_ids"))
    called = (var.index if gene_ids is None else var[gene_ids]).astype(str).tolist()
    id_of = dict(zip(var.index.astype(str), _ids(called)))
    fractions = table[["fractions", "reference_fractions"]].fillna(0).to_numpy()
    with_token = np.asarray(table["names"])[fractions.any(axis=1)]
    tested = {id_of[name] for name in with_token} - {""}
    table = table[table["scores"] > 0]
    if max_pval_adj is not None:
        table = table[table["pvals_adj"] <= max_pval_adj]
    return {
        str(name): {gene: id_of[gene] for gene in rows["names"].head(n_genes)}
        for name, rows in table.groupby("group", observed=False)
    }, tested


def _background(names: list[str]) -> set[str]:
    found = _ids([str(name) for name in names])
    if n_unknown := found.count(""):
        logger.warning(
            "enrich_go: %d of %d background names are not genes of the vocabulary: %s",
            n_unknown,
            len(names),
            quoted([name for name, gene in zip(names, found) if not gene]),
        )
    if not any(found):
        msg = f"None of the {len(names)} background names is a gene of the vocabulary ({quoted(names)}). Pass Ensembl ids or human symbols."
        raise GeneMatchError(msg)
    return set(found) - {""}


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
    if n_dropped := len(called) - len(study):
        logger.info(
            "enrich_go: %s: %d of %d genes have no term or are not in the background",
            group,
            n_dropped,
            len(called),
        )
    sizes: dict[str, int] = {}
    for gene in population:
        for term in terms_of[gene]:
            sizes[term] = sizes.get(term, 0) + 1
    tested = {term for term, size in sizes.items() if min_size <= size <= max_size}
    # terms without studied genes cannot be enriched
    tested &= set().union(*(terms_of[gene] for gene in study))
    if not tested:
        return pd.DataFrame(columns=list(_COLUMNS))
    kept = {gene: terms_of[gene] & tested for gene in population}
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
    """Odds ratio of the 2 x 2 table with 0.5 added to each cell (Haldane-Anscombe correction)."""
    a, b = study + 0.5, study_n - study + 0.5
    c, d = pop - study + 0.5, pop_n - study_n - pop + study + 0.5
    return float(a * d / (b * c))


def _fold(table: pd.DataFrame, go: GeneOntology) -> list[str]:
    """Return for each term a more significant related term with largely the same study genes, or ""."""
    heads: list[tuple[str, set[str], set[str]]] = []
    folded = []
    for go_id, items in zip(table["go_id"], table["genes"]):
        own, above = set(items), go.dag[go_id].get_all_parents()
        into = ""
        for head, head_genes, head_above in heads:
            related = head in above or go_id in head_above
            if related and len(own & head_genes) >= _MIN_OVERLAP * len(own | head_genes):
                into = head
                break
        if not into:
            heads.append((go_id, own, above))
        folded.append(into)
    return folded
