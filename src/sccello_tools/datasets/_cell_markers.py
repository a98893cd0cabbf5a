"""Published marker genes by Cell Ontology term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sccello_tools.ontology import CellOntology

if TYPE_CHECKING:
    import pandas as pd


def cell_markers(*, ontology: CellOntology | None = None) -> pd.DataFrame:
    """Return published marker genes of Cell Ontology terms: the human part of the Cell Marker Accordion.

    The Cell Marker Accordion (Busarello et al., Nature Communications 2025; MIT licence) integrates CellMarker 2.0, PanglaoDB,
    ASCT+B tables, CellTypist, Azimuth, CELLxGENE and other resources. Terms are current ones of the bundled Cell Ontology, genes are
    those of the vocabulary of scCello.

    Parameters
    ----------
    ontology
        Cell Ontology, for the names of terms; the bundled release by default.

    Returns
    -------
    DataFrame with one row per term, gene and sign:

    ``cell_type_ontology_term_id``, ``cell_type`` : str
        Term and its name.
    ``gene_id``, ``symbol`` : str
        Ensembl id and symbol.
    ``positive`` : bool
        False for genes that speak against the term.
    ``evidence`` : int
        Number of resources that list the gene.
    ``specificity`` : float
        Specificity score of the Accordion; 1 for genes that are listed for a single type.
    ``weight`` : float
        Expected expression in cells of the type, standardised over a broad range of types; 0 for negative markers.
    ``sources``, ``tissues`` : str
        Resources and Uberon ids, separated by commas.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> table = sccello.datasets.cell_markers()
    >>> b_cell = table[(table["cell_type"] == "B cell") & table["positive"]]
    >>> b_cell.nlargest(1, "evidence")["symbol"].tolist()
    ['MS4A1']
    """
    from sccello_tools.annotation import CellMarkers
    from sccello_tools.tokens import GeneVocabulary

    ontology = ontology or CellOntology.load()
    table = CellMarkers.load().table.copy()
    terms = table["cell_type_ontology_term_id"].astype(str)
    genes = table["gene_id"].astype(str)
    names = {term: ontology.name(term) for term in terms.unique() if term in ontology}
    symbols = GeneVocabulary.load().symbol_of
    table["cell_type_ontology_term_id"], table["gene_id"] = terms, genes
    table.insert(1, "cell_type", terms.map(names))
    table.insert(3, "symbol", [symbols.get(gene, gene) for gene in genes])
    return table
