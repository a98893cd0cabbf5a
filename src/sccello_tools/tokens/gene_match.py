"""Result of matching the columns of a matrix to the genes of the vocabulary, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._messages import listed, quoted

from ._name_repair import is_date
from .vocabulary import UNMATCHED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class GeneMatch:
    """Result of matching the columns of a matrix to the vocabulary.

    Examples
    --------
    >>> from sccello_tools.tokens import match_gene_names
    >>> match = match_gene_names(["ENSG00000105374.10", "CD3E", "no such gene"], min_matched=2)
    >>> match.n_matched, match.gene_ids.tolist(), match.unmatched
    (2, ['ENSG00000105374', 'ENSG00000198851', ''], ('no such gene',))
    """

    gene_ids: NDArray[np.str_]
    """Unversioned Ensembl ID of each column, "" if unmatched, array of shape (n_columns,)."""

    tokens: NDArray[np.int32]
    """Token id of each column, -1 if unmatched, array of shape (n_columns,)."""

    excluded: NDArray[np.bool_]
    """Whether a column is known not to be a gene: another feature type, a control probe or a spike-in. Array of shape (n_columns,)."""

    n_by_id: int
    """Number of columns matched by Ensembl ID."""

    n_by_symbol: int
    """Number of columns matched by the vocabulary's symbol."""

    n_by_alias: int
    """Number of columns matched by a current, former or alternative symbol."""

    looks_like: str
    """Description of what the names look like."""

    n_repaired: Mapping[str, int] = field(default_factory=dict)
    """Number of matched columns whose name was changed first, by kind of change."""

    non_genes: Mapping[str, int] = field(default_factory=dict)
    """Number of excluded columns by feature type."""

    n_controls: int = 0
    """Number of excluded columns that are control probes or spike-ins by their name."""

    repeated: tuple[str, ...] = ()
    """Names of matched columns beyond the first one of their gene, without those of ``many_to_one``."""

    organism: str = "human"
    """Organism of the names, "human" or "mouse"; mouse genes are matched by their human orthologue."""

    many_to_one: tuple[str, ...] = ()
    """Names of mouse genes whose human orthologue is also that of another mouse gene among the names."""

    ambiguous: tuple[str, ...] = ()
    """Unmatched names that fit several genes of the vocabulary."""

    unmatched: tuple[str, ...] = ()
    """Names that fit no gene of the vocabulary, without excluded columns."""

    n_vocabulary: int = 0
    """Number of genes in the vocabulary."""

    is_panel: bool = False
    """Whether fewer genes than ``min_matched`` were accepted because nearly all names match."""

    @property
    def n_columns(self) -> int:
        """Number of columns of the matrix."""
        return len(self.tokens)

    @property
    def n_matched(self) -> int:
        """Number of columns that are genes of the vocabulary."""
        return self.n_by_id + self.n_by_symbol + self.n_by_alias

    @property
    def n_genes(self) -> int:
        """Number of distinct genes of the vocabulary among the columns."""
        return len(np.unique(self.tokens[self.tokens != UNMATCHED]))

    @property
    def n_duplicates(self) -> int:
        """Number of matched columns beyond the first of their gene, whose counts are summed when tokenizing."""
        return self.n_matched - self.n_genes

    @property
    def fraction_matched(self) -> float:
        """Fraction of the columns that match, without columns of another feature type."""
        return self.n_matched / max(1, self.n_columns - sum(self.non_genes.values()))

    def __repr__(self) -> str:
        return f"GeneMatch({self.n_matched:,} of {self.n_columns:,} columns match)"

    def __str__(self) -> str:
        summary = (
            f"{self.n_matched:,} of {self.n_columns:,} genes match ({self.looks_like}): "
            f"{self.n_by_id:,} by Ensembl ID, {self.n_by_symbol:,} by symbol, {self.n_by_alias:,} by alias; "
            f"{self.n_genes:,} of the vocabulary's {self.n_vocabulary:,} genes are covered"
        )
        parts = [summary, *(f"{n:,} names changed: {kind}" for kind, n in self.n_repaired.items())]
        if self.organism == "mouse":
            shared = f": {quoted(self.many_to_one)}" if self.many_to_one else ""
            parts.append(
                f"mouse genes are matched by their human orthologue, which {len(self.many_to_one):,} share with another gene and are "
                f"summed{shared}"
            )
        if self.non_genes:
            parts.append(f"excluded feature types: {counted(self.non_genes)}")
        if self.n_controls:
            parts.append(f"{self.n_controls:,} control probes or spike-ins are excluded")
        if self.repeated:
            parts.append(
                f"{len(self.repeated):,} columns repeat a gene and are summed ({quoted(self.repeated)})"
            )
        if self.ambiguous:
            parts.append(
                f"{len(self.ambiguous):,} names fit several genes and are left out ({quoted(self.ambiguous)})"
            )
        if self.unmatched:
            dates = sum(map(is_date, self.unmatched))
            converted = f", {dates:,} of them dates made by spreadsheet software" if dates else ""
            parts.append(
                f"{len(self.unmatched):,} are not in the vocabulary{converted} ({quoted(self.unmatched)})"
            )
        return "; ".join(parts)

    def warnings(self) -> list[str]:
        """Return one sentence for everything about the match that changes results and may be unintended."""
        found = []
        if self.non_genes:
            found.append(
                f"{sum(self.non_genes.values()):,} of {self.n_columns:,} variables are not genes by their feature type and are ignored: "
                f"{counted(self.non_genes)}."
            )
        if self.organism == "mouse":
            found.append(
                f"The genes are mouse genes: {self.n_matched:,} of {self.n_columns:,} variables are matched by their human orthologue. "
                "Models were trained on human cells, so results are less accurate and confidence is not calibrated for mouse cells."
            )
        if self.repeated:
            found.append(
                f"{len(self.repeated):,} of {self.n_columns:,} variables repeat a gene of another variable ({quoted(self.repeated)}), "
                "and the counts of both are summed. Remove or rename variables that should not be counted."
            )
        if self.is_panel:
            found.append(
                f"Only {self.n_matched:,} genes match ({self.fraction_matched:.0%} of the names), as in a targeted panel. Cells have "
                "fewer tokens than the cells that the model was trained and calibrated on, so results are less accurate."
            )
        return found


def counted(counts: Mapping[str, int]) -> str:
    """Return up to five counts with their quoted names for a message."""
    return listed(f"{n:,} {kind!r}" for kind, n in counts.items())
