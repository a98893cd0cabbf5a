"""Published marker genes of Cell Ontology terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._messages import quoted
from sccello_tools.errors import ArgumentError, GeneMatchError, LabelError
from sccello_tools.ontology import CellOntology, match_label
from sccello_tools.tokens import GeneVocabulary, match_gene_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from numpy.typing import NDArray

TERM: Final = "cell_type_ontology_term_id"
GENE: Final = "gene_id"
_RESOURCE = "cell_markers.parquet"


@dataclass(frozen=True, eq=False)
class CellMarkers:
    """Marker genes of Cell Ontology terms.

    Examples
    --------
    >>> from sccello_tools.annotation import CellMarkers
    >>> markers = CellMarkers.load()
    >>> len(markers.terms) > 700, markers.of("CL:0000236").head(1)[["symbol", "evidence"]].values.tolist()
    (True, [['MS4A1', 17]])
    """

    table: pd.DataFrame
    """One row per term and gene: cell_type_ontology_term_id, gene_id (Ensembl), positive (bool), evidence (number of sources that list
    the gene), weight (expected standardised expression in cells of the type, positive markers only), and for the packaged table
    specificity, sources and tissues (Uberon ids)."""

    @classmethod
    @cache
    def load(cls) -> CellMarkers:
        """Read the packaged table: the human part of the Cell Marker Accordion, matched to the gene vocabulary."""
        with as_file(files("sccello_tools.resources").joinpath(_RESOURCE)) as path:
            return cls(pd.read_parquet(path))

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, ontology: CellOntology | None = None) -> CellMarkers:
        """Read markers from a table.

        Parameters
        ----------
        frame
            One row per marker. Columns: ``cell_type_ontology_term_id`` or ``cell_type`` (names are looked up in the ontology);
            ``gene_id`` or ``symbol``; optionally ``positive`` (default True) and ``evidence`` (default 1, higher is stronger).
        ontology
            Cell Ontology; the packaged release if not given.

        Raises
        ------
        LabelError
            If a cell type is unknown or ambiguous.
        ArgumentError
            If columns are missing or no gene matches the vocabulary.
        """
        ontology = ontology or CellOntology.load()
        term_column = TERM if TERM in frame else "cell_type"
        gene_column = GENE if GENE in frame else "symbol"
        missing = [column for column in (term_column, gene_column) if column not in frame]
        if missing or frame.empty:
            msg = (
                f"Marker table with columns {list(frame.columns)} and {len(frame)} rows; required are {TERM!r} or 'cell_type', "
                f"and {GENE!r} or 'symbol', with at least one row."
            )
            raise ArgumentError(msg)
        names = frame[term_column].astype(str)
        term_of = {name: _resolve(name, ontology) for name in names.unique()}
        genes = frame[gene_column].astype(str)
        distinct = genes.unique().tolist()
        try:
            ids = match_gene_names(distinct, min_matched=1).gene_ids.tolist()
        except GeneMatchError:
            ids = [""] * len(distinct)
        gene_of = dict(zip(distinct, ids))
        table = pd.DataFrame(
            {
                TERM: names.map(term_of).to_numpy(),
                GENE: genes.map(gene_of).to_numpy(),
                "positive": frame["positive"].to_numpy(bool) if "positive" in frame else True,
                "evidence": frame["evidence"].to_numpy(float) if "evidence" in frame else 1.0,
            }
        )
        table = table[table[GENE] != ""]
        if table.empty:
            msg = f"None of the {len(distinct)} genes of the marker table matches the vocabulary ({quoted(distinct)}). Pass human gene symbols or Ensembl ids."
            raise ArgumentError(msg)
        most = table.groupby([TERM, GENE, "positive"])["evidence"].max()
        table = most.reset_index()
        # genes shared by many terms are less informative
        shared = table[table["positive"]].groupby(GENE)[TERM].nunique()
        n_terms = table[TERM].nunique()
        rarity = np.log((1 + n_terms) / table[GENE].map(shared).fillna(1).to_numpy())
        table["weight"] = np.where(
            table["positive"], np.sqrt(table["evidence"]) * np.maximum(rarity, 0.1), 0.0
        )
        return cls(table)

    @classmethod
    def from_dict(
        cls, markers: Mapping[str, Sequence[str]], ontology: CellOntology | None = None
    ) -> CellMarkers:
        """Read markers from a dict of term (id or name) to positive marker genes (symbols or Ensembl ids).

        Examples
        --------
        >>> from sccello_tools.annotation import CellMarkers
        >>> CellMarkers.from_dict({"B cell": ["CD19", "MS4A1"], "CL:0000084": ["CD3D", "CD3E"]}).terms
        ('CL:0000084', 'CL:0000236')
        """
        rows = [(term, gene) for term, genes in markers.items() for gene in genes]
        return cls.from_frame(pd.DataFrame(rows, columns=["cell_type", "symbol"]), ontology)

    @classmethod
    def of_user(
        cls,
        markers: pd.DataFrame | Mapping[str, Sequence[str]],
        ontology: CellOntology | None = None,
    ) -> CellMarkers:
        """Read user-defined markers: a table as in :meth:`from_frame`, or a mapping as in :meth:`from_dict`.

        Raises
        ------
        LabelError
            If a cell type is unknown or ambiguous.
        ArgumentError
            If it is something else, is empty, or no gene matches the vocabulary.
        """
        if isinstance(markers, pd.DataFrame):
            return cls.from_frame(markers, ontology)
        if not isinstance(markers, Mapping):
            msg = f"markers must be a DataFrame or a dict from cell types to lists of genes, got {type(markers).__name__}"  # type: ignore[unreachable]
            raise ArgumentError(msg)
        for term, genes in markers.items():
            if isinstance(genes, str):
                msg = f"markers[{term!r}] must be a list of genes, got {genes!r}"
                raise ArgumentError(msg)
        return cls.from_dict(markers, ontology)

    def updated(self, other: CellMarkers) -> CellMarkers:
        """Replace the markers of the terms that another table holds; its weights are scaled to the same mean."""
        own = self.table[~self.table[TERM].isin(other.table[TERM].unique())]
        new = other.table.copy()
        positive = new["positive"].to_numpy()
        usual = float(self.table.loc[self.table["positive"], "weight"].mean())
        if positive.any():
            new["weight"] *= usual / float(new.loc[positive, "weight"].mean())
        if "sources" in own:
            new["sources"] = "user"
        both = pd.concat([own.astype({TERM: str, GENE: str}), new], ignore_index=True)
        return CellMarkers(both.astype({"positive": bool, "evidence": float, "weight": np.float32}))

    @property
    def terms(self) -> tuple[str, ...]:
        """Terms with at least one positive marker, ascending."""
        return tuple(sorted(self.table.loc[self.table["positive"], TERM].unique().tolist()))

    def of(self, term: str) -> pd.DataFrame:
        """Return the markers of a term with their symbols, positive ones first, by evidence."""
        symbols = GeneVocabulary.load().symbol_of
        rows = self.table[self.table[TERM] == term]
        rows = rows.assign(symbol=[symbols.get(gene, gene) for gene in rows[GENE]])
        return rows.sort_values(
            ["positive", "evidence", "weight"], ascending=False, kind="stable"
        ).reset_index(drop=True)

    def n_sources(self, terms: Sequence[str]) -> NDArray[np.int64]:
        """Count the distinct resources that list markers of each term; 1 where the table does not name its sources."""
        positive = self.table[self.table["positive"]]
        if "sources" not in positive:
            listed = set(positive[TERM])
            return np.array([int(term in listed) for term in terms], dtype=np.int64)
        found: dict[str, set[str]] = {}
        pairs = positive[[TERM, "sources"]].drop_duplicates()
        for term, sources in zip(pairs[TERM].astype(str), pairs["sources"].astype(str)):
            found.setdefault(term, set()).update(sources.split(","))
        return np.array([len(found.get(term, ())) for term in terms], dtype=np.int64)


def _resolve(name: str, ontology: CellOntology) -> str:
    if name in ontology or name.startswith("CL:"):
        return ontology.current(name)
    match = match_label(name, ontology)
    if match.is_mapped:
        return match.id
    near = ", ".join(f"{hit.id} ({hit.name})" for hit in match.candidates[:5])
    msg = f"Cell type {name!r} of the marker table matches no term{': ' + near if near else ''}. Use an id such as CL:0000084; see ontology.match_label."
    raise LabelError(msg)
