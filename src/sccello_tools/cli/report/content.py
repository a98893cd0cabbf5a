"""Texts and tables of the report as plain records, taken from AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import __version__, _keys
from sccello_tools._anndata.columns import require_obs
from sccello_tools._anndata.terms import type_column
from sccello_tools.get import annotation_df, marker_genes_df
from sccello_tools.get.deciding_genes import SOURCES
from sccello_tools.ontology import CellOntology
from sccello_tools.pl.colors import UNKNOWN, category_colors, lineage_colors
from sccello_tools.pl.term_tree import TermTree

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools._anndata.terms import TypeColumn


@dataclass(frozen=True)
class TypeRow:
    """A line of the composition: a cell type or a common ancestor of cell types."""

    name: str
    term: str
    """Cell Ontology id; "" for a name that is not a term."""
    level: int
    """Depth in the tree."""
    color: str
    cells: int
    """Number of cells; 0 for a common ancestor."""
    fraction: float
    """Of all cells."""
    confidence: float | None
    """Mean over the cells of the type."""
    novel: float | None
    """Fraction of the type's cells that are not of a known type."""

    @property
    def ancestor(self) -> bool:
        """Whether the line is a common ancestor without cells of its own."""
        return not self.cells


@dataclass(frozen=True)
class MarkerRow:
    """Highest ranked genes of a group, with their scores relative to the highest score."""

    group: str
    genes: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class EvidenceRow:
    """Evidence for the type of some cells."""

    name: str
    cells: int
    runner_up: str
    sources: tuple[tuple[str, float], ...]
    """Mean contribution of each source in log odds against the runner-up."""
    supporting: tuple[str, ...]
    """Symbols of expressed marker genes."""
    missing: tuple[str, ...]
    """Symbols of expected marker genes that are not expressed."""


@dataclass(frozen=True)
class Content:
    """Texts and tables of a report."""

    cells: int
    genes: int
    annotated: int
    """Cells that have a type."""
    types: tuple[TypeRow, ...]
    n_types: int
    median_confidence: float | None
    novel: float | None
    """Fraction of cells that are not of a known type."""
    statuses: tuple[tuple[str, int], ...]
    """Number of cells of each status."""
    batches: tuple[str, ...]
    batch_fractions: tuple[tuple[str, tuple[float, ...]], ...]
    """Type, and its fraction in each batch, the most frequent first."""
    evidence: tuple[EvidenceRow, ...]
    markers: tuple[MarkerRow, ...]
    markers_of: str
    """Column of the groups of the marker genes, if it is not that of the cell types."""
    parameters: tuple[tuple[str, str], ...]


def content_of(adata: AnnData, key: str, *, batch_key: str | None, n_genes: int) -> Content:
    """Collect the content of a report from annotated data.

    Raises
    ------
    GroupError
        If ``key`` is not a column of cell types, or ``batch_key`` not a column.
    """
    ontology = CellOntology.load()
    column = type_column(adata, key, ontology)
    cells = annotation_df(adata, key=key, n_markers=0)
    status = cells["status"].value_counts()
    novel = None
    if status.sum():
        novel = (cells["status"] != _keys.STATUS_KNOWN) & cells["status"].notna()
    rows = _types(adata, key, column, cells["confidence"].to_numpy(), novel, ontology)
    batches, fractions = _batches(adata, batch_key, column)
    confidence = cells["confidence"].dropna()
    made = adata.uns.get(_keys.MARKER_GENES, {}).get("params", {})
    groupby = str(made.get("groupby", key))
    return Content(
        cells=adata.n_obs,
        genes=adata.n_vars,
        annotated=int((column.codes >= 0).sum()),
        types=rows,
        n_types=sum(not row.ancestor for row in rows),
        median_confidence=float(np.median(confidence)) if len(confidence) else None,
        novel=None if novel is None else float(novel.mean()),
        statuses=tuple((str(name), int(status[name])) for name in _keys.STATUSES if status[name]),
        batches=batches,
        batch_fractions=fractions,
        evidence=_evidence(adata, key),
        markers=_markers(adata, n_genes),
        markers_of="" if groupby == key else groupby,
        parameters=_parameters(adata, key, ontology),
    )


def _types(
    adata: AnnData,
    key: str,
    column: TypeColumn,
    confidence: NDArray[np.float32],
    novel: pd.Series | None,
    ontology: CellOntology,
) -> tuple[TypeRow, ...]:
    """Lines in the order of the tree, then names that are not terms."""
    present = [i for i, n in enumerate(column.counts) if n]
    tree = TermTree.of([column.terms[i] for i in present if column.terms[i]], ontology)
    by_term = lineage_colors(tree)
    default = [by_term.get(term, UNKNOWN) for term in column.terms]
    colors = category_colors(adata, key, column.names, None, default)  # those of the UMAP

    def row(name: str, term: str, own: list[int]) -> TypeRow:
        chosen = np.isin(column.codes, own)
        values = confidence[chosen]
        values = values[np.isfinite(values)]
        return TypeRow(
            name=name,
            term=term,
            level=tree.level.get(term, 0),
            color=colors[own[0]] if own else UNKNOWN,
            cells=int(chosen.sum()),
            fraction=float(chosen.mean()) if len(chosen) else 0.0,
            confidence=float(values.mean()) if len(values) else None,
            novel=float(novel[chosen].mean()) if novel is not None and chosen.any() else None,
        )

    rows = []
    for node in tree.order:
        own = [i for i in present if column.terms[i] == node]
        rows.append(row(column.names[own[0]] if len(own) == 1 else ontology.name(node), node, own))
    return (*rows, *(row(column.names[i], "", [i]) for i in present if not column.terms[i]))


def _batches(
    adata: AnnData, batch_key: str | None, column: TypeColumn
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[float, ...]], ...]]:
    if batch_key is None:
        return (), ()
    obs = require_obs(adata, batch_key, argument="batch_key")
    batches = pd.Categorical(obs).remove_unused_categories()
    names = [str(name) for name in batches.categories]
    counts = np.zeros((len(column.names), len(names)))
    both = (column.codes >= 0) & (batches.codes >= 0)
    np.add.at(counts, (column.codes[both], batches.codes[both]), 1)
    # of all cells of a batch, also those without a type
    fractions = counts / np.bincount(batches.codes[batches.codes >= 0], minlength=len(names))
    order = np.argsort(-fractions.max(axis=1), kind="stable")
    rows = ((column.names[i], tuple(map(float, fractions[i]))) for i in order if column.counts[i])
    return tuple(names), tuple(rows)


def _evidence(adata: AnnData, key: str) -> tuple[EvidenceRow, ...]:
    """Lines for annotations with contributions of sources, the most frequent types first."""
    if key + _keys.EVIDENCE_SUFFIX not in adata.obsm:
        return ()
    table = annotation_df(adata, key, key=key)
    table = table[table["n_cells"] > 0].sort_values("n_cells", ascending=False, kind="stable")
    rows = []
    for name, row in table.iterrows():
        sources = tuple((s, float(row[s])) for s in SOURCES if np.isfinite(row[s]))
        genes = [
            tuple(gene for gene in (row[column] or "").split(", ") if gene)
            for column in ("supporting_markers", "missing_markers")
        ]
        rows.append(
            EvidenceRow(
                str(name), int(row["n_cells"]), str(row["runner_up"] or ""), sources, *genes
            )
        )
    return tuple(rows)


def _markers(adata: AnnData, n_genes: int) -> tuple[MarkerRow, ...]:
    if _keys.MARKER_GENES not in adata.uns:
        return ()
    table = marker_genes_df(adata, n_genes=n_genes)
    rows = []
    for group in table["group"].cat.categories:
        own = table[(table["group"] == group) & (table["scores"] > 0)]
        best = float(own["scores"].max()) if len(own) else 1.0
        genes = ((str(name), float(x) / best) for name, x in zip(own["symbol"], own["scores"]))
        rows.append(MarkerRow(str(group), tuple(genes)))
    return tuple(rows)


def _parameters(adata: AnnData, key: str, ontology: CellOntology) -> tuple[tuple[str, str], ...]:
    stored = adata.uns.get(key, {})
    rows = [(str(name), str(value)) for name, value in stored.items() if np.ndim(value) == 0]
    if "ontology_release" not in stored:
        rows.append(("ontology_release", ontology.release))
    return (*rows, ("report", f"sccello-tools {__version__}"))
