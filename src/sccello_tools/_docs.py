"""Docstring texts of parameters that several public functions share."""

from __future__ import annotations

import re
from inspect import cleandoc
from textwrap import indent
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

_KEY = re.compile(r"( *)%\((\w+)\)s(.*)")
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
        Name of a model (see :func:`sccello_tools.models.list`), path of a model folder, a repository on the Hugging Face Hub
        (``"hf://owner/name@revision"``), or a loaded model.""",
    "legend_loc": """
        Location of the legend: ``"right margin"``, ``"top margin"``, or one of matplotlib such as ``"upper left"``; None or ``"none"``
        for no legend.""",
    "palette": """
        Colours as in scanpy: the name of a matplotlib colormap, a list of colours, a cycler, or a mapping from categories to colours.
        If None, the colours in ``adata.uns`` are used where they exist; they are never replaced.""",
    "ax": """
        Axes to draw into; a new figure if None.""",
    # the arguments of every plot, in the order of the signatures
    "figure": """
        figsize
            Width and height of a new figure in inches; determined by its content if None.
        show
            Show the figure. By default it is shown unless it is saved, returned with ``return_fig=True`` or drawn into ``ax``.
        save
            File to write the figure to; folders are created. ``True`` or only a file extension such as ``".pdf"`` names the file after
            the function.
        return_fig
            Return the figure. By default it is returned unless it is shown, because a notebook would display it twice.""",
    # the first and the last arguments of functions on collections of files
    "files": """
        inputs
            Files with raw counts: h5ad, zarr, Cell Ranger ``.h5``, folders with ``matrix.mtx``, a modality ``file.h5mu/rna``; or folders of
            h5ad files and annbatch collections. Each is a source, named after the file; a mapping sets other names. A later call may
            add inputs at the end.
        out
            Folder to write; new, empty, or from an earlier call with the same arguments.""",
    "workers": """
        client
            A ``dask.distributed.Client``. Its workers must see the inputs and ``out`` under the same paths.
        n_workers
            Without a client: number of local processes, with one thread each. With 1, everything runs in this process, without dask.
            Scripts that use more must guard their calls with ``if __name__ == "__main__":``.
        errors
            ``"report"`` skips files that cannot be processed, with a warning; ``"raise"`` raises an error at the first one.""",
    "device": """
        Device of torch, such as ``"cpu"`` or ``"cuda:1"``; ``"auto"`` uses a GPU if available.""",
}


# the arguments of every function that reads raw counts, where they follow each other
_TEXTS["counts_source"] = "\n".join(
    f"{name}\n{indent(cleandoc(_TEXTS[name]), '    ')}"
    for name in ("layer", "gene_ids", "counts", "min_matched")
)


def shared_docs(function: F) -> F:
    """Replace lines that begin with ``%(name)s`` by the shared text, indented to their place; the rest of the line follows it."""
    lines = []
    for line in cleandoc(function.__doc__ or "").splitlines():
        if found := _KEY.fullmatch(line):
            margin, name, rest = found.groups()
            *text, last = cleandoc(_TEXTS[name]).splitlines()
            lines += [f"{margin}{part}" for part in (*text, last + rest)]
        else:
            lines.append(line)
    function.__doc__ = "\n".join(lines)
    return function
