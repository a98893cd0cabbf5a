"""What genes are called in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sccello_tools.errors import NotFoundError
from sccello_tools.tokens import GeneVocabulary

if TYPE_CHECKING:
    from anndata import AnnData


def gene_labels(adata: AnnData, symbols: str | None = None) -> dict[str, str]:
    """Return the name to write by name in ``var_names``: of a column, else the vocabulary's symbol in place of an Ensembl id.

    Raises
    ------
    KeyError
        If ``adata.var`` has no such column.
    """
    names = [str(name) for name in adata.var_names]
    if symbols is None:
        known = GeneVocabulary.load().symbol_of
        return {name: known.get(name.partition(".")[0], name) for name in names}
    if symbols not in adata.var:
        msg = f"adata.var has no column {symbols!r} (columns: {list(adata.var.columns)}). Leave symbols out to write var_names."
        raise NotFoundError(msg)
    return dict(zip(names, adata.var[symbols].astype(str)))
