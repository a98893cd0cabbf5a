"""What the page says, as plain records: taken from AnnData here, so that the template only writes it down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import __version__, _keys
from sccello_tools._anndata.terms import type_column
from sccello_tools.errors import GroupError
from sccello_tools.get import marker_genes_df
from sccello_tools.ontology import CellOntology
from sccello_tools.pl._gene_labels import gene_labels
from sccello_tools.pl._lineage_colours import lineage_colours
from sccello_tools.pl._term_tree import TermTree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from anndata import AnnData
    from numpy.typing import NDArray

_NOVEL = (_keys.STATUS_NOVEL_SUBTYPE, _keys.STATUS_UNKNOWN)
_GREY = "#b5b5b5"


@dataclass(frozen=True)
class TypeRow:
    """A line of the composition: a type, or an ancestor where types part."""

    name: str
    term: str
    """Cell Ontology id; "" of a name that is no term."""
    level: int
    colour: str
    cells: int
    """Cells of the type itself; 0 of a line that only joins types."""
    share: float
    """Of all cells."""
    confidence: float | None
    """Mean over the type's cells."""
    novel: float | None
    """Share of the type's cells that were called novel."""
    joint: bool
    """The line only joins types."""


@dataclass(frozen=True)
class MarkerRow:
    """Highest ranked genes of a group, with their scores relative to the best one."""

    group: str
    genes: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Facts:
    """All that the page says in words and tables."""

    cells: int
    genes: int
    typed: int
    """Cells that have a type."""
    types: tuple[TypeRow, ...]
    n_types: int
    median_confidence: float | None
    novel: float | None
    """Share of cells that were called novel."""
    statuses: tuple[tuple[str, int], ...]
    samples: tuple[str, ...]
    sample_shares: tuple[tuple[str, tuple[float, ...]], ...]
    """Type, and its share in each sample."""
    markers: tuple[MarkerRow, ...]
    markers_of: str
    """Column that the marker genes' groups are of, if it is another one."""
    provenance: tuple[tuple[str, str], ...]


def gather(adata: AnnData, key: str, *, sample_key: str | None, n_genes: int) -> Facts:
    """Take the facts from annotated data.

    Raises
    ------
    GroupError
        If ``key`` is no column of cell types, or there is no column of samples of that name.
    """
    ontology = CellOntology.load()
    column = type_column(adata, key, ontology)
    confidence = _numbers(adata, key + _keys.CONFIDENCE_SUFFIX)
    status = key + _keys.STATUS_SUFFIX
    novel: NDArray[np.floating] | None = None
    statuses: tuple[tuple[str, int], ...] = ()
    if status in adata.obs:
        values = adata.obs[status].astype(str)
        novel = np.asarray(values.isin(_NOVEL), dtype=float)
        counts = values.value_counts()
        statuses = tuple((str(n), int(c)) for n, c in counts.items() if n not in {"", "nan"})
    rows = _types(column.names, column.terms, column.codes, confidence, novel, ontology)
    samples, shares = _samples(adata, sample_key, column.names, column.codes)
    return Facts(
        cells=adata.n_obs,
        genes=adata.n_vars,
        typed=int((column.codes >= 0).sum()),
        types=rows,
        n_types=sum(not row.joint for row in rows),
        median_confidence=_mean(confidence, np.ones(adata.n_obs, dtype=bool), np.median),
        novel=None if novel is None else float(novel.mean()),
        statuses=statuses,
        samples=samples,
        sample_shares=shares,
        markers=_markers(adata, n_genes),
        markers_of=_markers_of(adata, key),
        provenance=_provenance(adata, key, ontology),
    )


def _types(
    names: Sequence[str],
    terms: Sequence[str],
    codes: NDArray[np.intp],
    confidence: NDArray[np.floating] | None,
    novel: NDArray[np.floating] | None,
    ontology: CellOntology,
) -> tuple[TypeRow, ...]:
    """Lines in the order of the ontology, then names without a term."""
    present = [i for i in range(len(names)) if (codes == i).any()]
    tree = TermTree.of([terms[i] for i in present if terms[i]], ontology)
    colours = lineage_colours(tree)

    def row(name: str, term: str, chosen: NDArray[np.bool_], *, joint: bool) -> TypeRow:
        return TypeRow(
            name=name,
            term=term,
            level=tree.level.get(term, 0),
            colour=colours.get(term, _GREY),
            cells=int(chosen.sum()),
            share=float(chosen.mean()) if len(chosen) else 0.0,
            confidence=_mean(confidence, chosen),
            novel=_mean(novel, chosen),
            joint=joint,
        )

    rows = []
    for node in tree.order:
        own = [i for i in present if terms[i] == node]
        name = names[own[0]] if len(own) == 1 else ontology.name(node)
        rows.append(row(name, node, np.isin(codes, own), joint=not own))
    rows += [row(names[i], "", codes == i, joint=False) for i in present if not terms[i]]
    return tuple(rows)


def _samples(
    adata: AnnData, sample_key: str | None, names: Sequence[str], codes: NDArray[np.intp]
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[float, ...]], ...]]:
    if sample_key is None:
        return (), ()
    if sample_key not in adata.obs:
        msg = f"obs has no column {sample_key!r} with samples (columns: {list(adata.obs.columns)})."
        raise GroupError(msg)
    column = adata.obs[sample_key].astype("category").cat
    own = np.asarray(column.codes)
    samples = [i for i in range(len(column.categories)) if (own == i).any()]
    shares = []
    for code, name in enumerate(names):
        if (codes == code).any():
            of_sample = tuple(float((codes[own == i] == code).mean()) for i in samples)
            shares.append((name, of_sample))
    shares.sort(key=lambda line: -max(line[1]))
    return tuple(str(column.categories[i]) for i in samples), tuple(shares)


def _markers(adata: AnnData, n_genes: int) -> tuple[MarkerRow, ...]:
    if _keys.MARKER_GENES not in adata.uns:
        return ()
    table = marker_genes_df(adata, n_genes=n_genes)
    called = gene_labels(adata)
    rows = []
    for group in table["group"].cat.categories:
        own = table[(table["group"] == group) & (table["scores"] > 0)]
        best = float(own["scores"].max()) if len(own) else 1.0
        genes = tuple(
            (called.get(str(name), str(name)), float(score) / best)
            for name, score in zip(own["names"], own["scores"])
        )
        rows.append(MarkerRow(str(group), genes))
    return tuple(rows)


def _markers_of(adata: AnnData, key: str) -> str:
    params = adata.uns.get(_keys.MARKER_GENES, {}).get("params", {})
    groupby = str(params.get("groupby", key))
    return "" if groupby == key else groupby


def _provenance(adata: AnnData, key: str, ontology: CellOntology) -> tuple[tuple[str, str], ...]:
    given = adata.uns.get(key, {})
    rows = [(str(name), str(value)) for name, value in given.items() if np.ndim(value) == 0]
    if not any(name == "ontology_release" for name, _ in rows):
        rows.append(("Cell Ontology", ontology.release))
    rows.append(("page written by", f"sccello-tools {__version__}"))
    return tuple(rows)


def _numbers(adata: AnnData, key: str) -> NDArray[np.floating] | None:
    return np.asarray(adata.obs[key], dtype=float) if key in adata.obs else None


def _mean(
    values: NDArray[np.floating] | None,
    chosen: NDArray[np.bool_],
    function: Callable[..., Any] = np.mean,
) -> float | None:
    """Mean over chosen cells that have a value; ``None`` if there are none."""
    if values is None:
        return None
    own = values[chosen]
    own = own[np.isfinite(own)]
    return float(function(own)) if len(own) else None
