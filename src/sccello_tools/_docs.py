"""Texts of parameters that several public functions share; each stands once, here."""

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
        Layer that holds the raw counts; ``X`` if not given. ``.raw`` is never read.""",
    "gene_ids": """
        Column of ``adata.var`` that holds Ensembl ids or symbols. If not given, the column written by
        :func:`sccello_tools.pp.match_genes` is used where it exists, else ``var_names``.""",
    "min_matched": """
        Fewest genes that must match the vocabulary; fewer raise :class:`GeneMatchError`.""",
    "counts": """
        ``"check"`` makes sure that the matrix holds raw counts. ``"trust"`` takes fractions as they are, for ambient-corrected or
        imputed counts; NaN, infinite and negative values are refused all the same.""",
    "max_length": """
        Most tokens of a cell, ``<cls>`` included; the lowest-ranked genes beyond are cut off.""",
    "copy": """
        Work on a copy and return it, instead of changing ``adata``.""",
    "model": """
        Name of a model (see :func:`sccello_tools.models.list`), a folder that holds one, or a loaded model.""",
    "show": """
        Show the figure; by default only if it is not saved, and not drawn into axes of your own.""",
    "save": """
        File to write the figure to; the ending decides the format.""",
    "return_fig": """
        Return the figure; by default only if it is not shown, since a notebook would draw it twice.""",
    "device": """
        ``"auto"`` takes a GPU where there is one; else a name as torch knows it, such as ``"cpu"`` or ``"cuda:1"``.""",
}


def shared_docs(function: F) -> F:
    """Fill ``%(name)s`` in a docstring with the shared text of that parameter, indented to its place."""
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
