"""Match the variables of an AnnData to the genes of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sccello_tools import _keys
from sccello_tools._anndata.columns import missing_column
from sccello_tools._anndata.counts import warn_user
from sccello_tools._anndata.genes import feature_types_of, names_of
from sccello_tools._anndata.writing import check_writable, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written, logger
from sccello_tools.errors import GeneMatchError
from sccello_tools.tokens import match_gene_names

if TYPE_CHECKING:
    from anndata import AnnData

    from sccello_tools.tokens import GeneMatch, Organism


@shared_docs
def match_genes(
    adata: AnnData,
    *,
    gene_ids: str | None = None,
    organism: Organism = "auto",
    min_matched: int = 500,
    key_added: str = _keys.GENE_ID,
) -> GeneMatch:
    """Match the variables of an AnnData to the model's vocabulary of human genes.

    Ensembl IDs with or without version and current, former or alternative symbols are recognised, also mixed. Variables whose
    ``feature_types`` is not gene expression are left unmatched, with a warning. Several variables of one gene are summed when
    tokenizing, with a warning. ``var_names`` do not change.

    Calling this function is optional: functions that need tokens match genes themselves. Call it to inspect the report, or to
    select the column with gene names once.

    Parameters
    ----------
    adata
        Annotated data of shape (n_obs, n_vars).
    gene_ids
        Column of ``adata.var`` with Ensembl IDs or symbols; ``var_names`` by default.
    organism
        ``"human"`` or ``"mouse"``. ``"auto"`` recognises mouse Ensembl IDs and mouse symbols in their usual case ("Cd3e"). Mouse genes
        are matched by their human orthologue, with a warning: the models were trained on human cells.
    min_matched
        %(min_matched)s
    key_added
        Column of ``adata.var`` to write.

    Returns
    -------
    The report. Fields written:

    `adata.var[key_added]` : str (dtype object), shape (n_vars,)
        Unversioned Ensembl ID of the human gene, "" if unmatched. Missing values, as after a concatenation, mean "not matched yet".

    Raises
    ------
    GeneMatchError
        If too few variables match, ``gene_ids`` is not a column, or ``organism`` is not supported.
    ArgumentError
        If ``key_added`` cannot be stored in a file.
    BackedDataError
        If ``adata`` is a view of a backed AnnData.

    See Also
    --------
    sccello_tools.pp.tokenize : uses the column that this function writes.
    sccello_tools.tokens.match_gene_names : the same for a list of names, with the rules in detail.

    Notes
    -----
    Names that other software changed are matched if this is unambiguous, and counted in the report: prefixes of a human genome
    ("GRCh38_CD3E"), an Ensembl ID within a longer name ("ENSG00000198851_CD3E"), "." or "_" instead of "-" ("HLA.A"), names made
    unique ("CD3E-1" next to "CD3E") and symbols converted to dates ("2-Sep").

    Mouse data with symbols in upper case cannot be recognised: pass ``organism="mouse"`` here, and all other functions use the
    result. Of the 18,295 mouse genes with a unique human orthologue, 1,607 share it with another mouse gene and are summed (Ins1,
    Ins2). Another 328 genes have several equally supported orthologues and are left out (Fcgr4).

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> match = sccello.pp.match_genes(adata)
    >>> match.n_matched
    19964
    """
    check_writable(adata, copy=False, key_added=key_added)
    if gene_ids is not None and gene_ids not in adata.var:
        hint = "Omit it to use var_names."
        raise GeneMatchError(
            missing_column("adata.var", gene_ids, adata.var.columns, "gene_ids", hint)
        )
    match = match_gene_names(
        names_of(adata.var, gene_ids),
        min_matched=min_matched,
        feature_types=feature_types_of(adata.var),
        organism=organism,
    )
    logger.info(str(match))
    for message in match.warnings():
        warn_user(message)
    with writing(adata, copy=False) as target:
        target.var[key_added] = match.gene_ids.astype(object)
    log_written("match_genes", f".var[{key_added!r}]")
    return match
