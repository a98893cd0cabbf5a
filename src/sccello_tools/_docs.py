"""Docstring texts of parameters that several public functions share."""

from __future__ import annotations

from inspect import cleandoc
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

_TEXTS = {
    "adata": """
        Annotated data with raw counts, of shape (n_obs, n_vars). In memory or backed.""",
    "layer": """
        Layer with raw counts, or ``"raw.X"``; ``X`` by default.""",
    "gene_ids": """
        Column of ``adata.var`` with Ensembl IDs or gene symbols. By default, the column written by
        :func:`sccello_tools.pp.match_genes` if it exists, else ``var_names``.""",
    "min_matched": """
        Minimum number of genes that must match the vocabulary. With the default or less, a targeted panel with at least 50 matched
        genes is also accepted, with a warning, if at least 90 % of its names match.""",
    "counts": """
        ``"check"`` requires integer counts. ``"trust"`` also accepts fractions, for ambient-corrected or imputed counts, but no NaN,
        infinite or negative values.""",
    "max_length": """
        Maximum number of tokens per cell, including ``<cls>``; lower-ranked genes are discarded.""",
    "copy": """
        Return a modified copy instead of modifying ``adata``.""",
    "model": """
        Name of a model (see :func:`sccello_tools.models.list`), path of a model folder, or a loaded model.""",
    "show": """
        Whether to show the figure; by default, if it is neither saved nor drawn into ``ax``.""",
    "save": """
        File to write the figure to; the extension determines the format.""",
    "return_fig": """
        Whether to return the figure; by default, if it is not shown, because a notebook would draw it twice.""",
    "device": """
        Device of torch, such as ``"cpu"`` or ``"cuda:1"``; ``"auto"`` uses a GPU if available.""",
}


def shared_docs(function: F) -> F:
    """Replace ``%(name)s`` in a docstring by the shared text of that parameter, with its indentation."""
    lines = []
    for line in cleandoc(function.__doc__ or "").splitlines():
        key = line.strip()
        if key.startswith("%(") and key.endswith(")s"):
            indent = " " * (len(line) - len(line.lstrip()))
            lines += [f"{indent}{text}" for text in cleandoc(_TEXTS[key[2:-2]]).splitlines()]
        else:
            lines.append(line)
    function.__doc__ = "\n".join(lines)
    return function
