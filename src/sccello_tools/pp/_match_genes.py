"""Tell which gene of the vocabulary each variable of an AnnData is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sccello_tools import _keys
from sccello_tools._anndata.genes import names_of
from sccello_tools._anndata.writing import check_writable, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written, logger
from sccello_tools.errors import GeneMatchError
from sccello_tools.tokens import match_gene_names

if TYPE_CHECKING:
    from typing import Literal

    from anndata import AnnData

    from sccello_tools.tokens import GeneMatch


@shared_docs
def match_genes(
    adata: AnnData,
    *,
    gene_ids: str | None = None,
    organism: Literal["human"] = "human",
    min_matched: int = 500,
    key_added: str = _keys.GENE_ID,
) -> GeneMatch:
    """Match the variables of an AnnData to the model's vocabulary of human genes.

    Ensembl ids with or without version, symbols of any age and alternative symbols are understood, also mixed. Variables that
    repeat a gene are kept and are summed with it when tokenizing. ``var_names`` stay as they are.

    Calling this is optional: every function that tokenizes calls it if it must. Call it to see the report, or to name a column.

    Parameters
    ----------
    adata
        Annotated data of shape (n_obs, n_vars).
    gene_ids
        Column of ``adata.var`` that holds Ensembl ids or symbols; ``var_names`` if not given.
    organism
        Only ``"human"``: the vocabulary holds human genes.
    min_matched
        %(min_matched)s
    key_added
        Column of ``adata.var`` to write.

    Returns
    -------
    The report. Fields written:

    `adata.var[key_added]` : str (dtype object), shape (n_vars,)
        Unversioned Ensembl id of the gene, "" if unmatched.

    Raises
    ------
    GeneMatchError
        If fewer than ``min_matched`` variables match, ``gene_ids`` is not a column, or ``organism`` is not human.
    BackedDataError
        If ``adata`` is backed and a copy is asked for, or it is a view of a backed AnnData.

    See Also
    --------
    sccello_tools.pp.tokenize : uses the column that this function writes.

    Notes
    -----
    A symbol that names several genes of the vocabulary goes to the one that no other variable names; among several of those, to
    the one that NCBI and Ensembl call so today, then to the one on the primary assembly; else it is left out and reported as
    ambiguous.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> match = sccello.pp.match_genes(adata)
    >>> match.n_matched
    19964
    """
    if str(organism) != "human":  # callers without a type checker
        msg = (
            f"organism is {organism!r}, but the vocabulary holds human genes only. "
            "Map the genes to human one-to-one orthologues first, then call with organism='human'."
        )
        raise GeneMatchError(msg)
    check_writable(adata, copy=False)
    match = match_gene_names(names_of(adata.var, gene_ids), min_matched=min_matched)
    logger.info(str(match))
    with writing(adata, copy=False) as target:
        target.var[key_added] = match.gene_ids.astype(object)
    log_written("match_genes", f".var[{key_added!r}]")
    return match
