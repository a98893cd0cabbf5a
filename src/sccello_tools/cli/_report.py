"""``sccello report``: an HTML report of the cells of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _common as common

if TYPE_CHECKING:
    from anndata import AnnData

_KEY = "sccello_cell_type"
_EMBEDDING = "X_sccello"
_MARKERS = "sccello_marker_genes"
_MIN_CELLS = 5  # of a type whose marker genes are computed


def report(
    source: common.Source,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT.html", help="HTML file to write.")
    ],
    *,
    title: Annotated[
        str | None, typer.Option(help="Heading; the name of the file by default.")
    ] = None,
    label_key: Annotated[
        str | None, typer.Option(help="Column of obs with existing labels to compare with.")
    ] = None,
    batch_key: Annotated[
        str | None, typer.Option(help="Column of obs with samples or donors to compare.")
    ] = None,
    with_markers: Annotated[
        bool, typer.Option("--markers/--no-markers", help="Compute marker genes of each type.")
    ] = True,
    n_cells_per_group: Annotated[
        int, typer.Option("--cells", min=2, help="Maximum number of cells per type for them.")
    ] = 10,
    n_genes: Annotated[
        int, typer.Option("--genes", min=1, help="Number of marker genes per type.")
    ] = 10,
    model: common.Model = "sccello-small",
    layer: common.Layer = None,
    gene_ids: common.GeneIds = None,
    counts: common.Counts = "check",
    min_matched: common.MinMatched = 500,
    device: common.Device = "auto",
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
) -> None:
    """Write an HTML report: composition, UMAP, confidence, novelty, marker genes. A single file that works offline.

    Results that the file already contains (of `sccello embed`, `annotate` or `markers`, or a UMAP) are shown; the
    others are computed. The input is not changed.

    [bold]Examples[/bold]

    sccello report pbmc.h5ad -o pbmc.html

    sccello report annotated.h5ad -o page.html --title "Islets, donor 7" --label-key cell_type --batch-key donor
    """
    from sccello_tools._io import check_output, write_text
    from sccello_tools.files import read_any

    from .report import render_report

    check_output(out, suffixes=(".html", ".htm"), overwrite=overwrite)
    adata = read_any(source)
    for key, option in ((label_key, "--label-key"), (batch_key, "--batch-key")):
        if key is not None:
            common.use_groups(adata, key, option=option)
    options: dict[str, Any] = {
        "model": model,
        "layer": layer,
        "gene_ids": gene_ids,
        "counts": counts,
        "min_matched": min_matched,
        "device": device,
    }
    _annotate(adata, options)
    notes: list[str] = []
    if with_markers and _MARKERS not in adata.uns:
        notes += _find_markers(adata, n_cells_per_group, options)
    page = render_report(
        adata,
        title=title if title is not None else source.stem,
        label_key=label_key,
        batch_key=batch_key,
        n_genes=n_genes,
        notes=tuple(notes),
    )
    write_text(out, page)
    types = adata.obs[_KEY].value_counts()
    summary: dict[str, Any] = {
        "file": str(out),
        "bytes": out.stat().st_size,
        "cells": adata.n_obs,
        "types": {str(name): int(n) for name, n in types.items() if n},
        "markers": _MARKERS in adata.uns,
        "notes": notes,
    }
    if as_json:
        common.print_json(summary)
        return
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(
        f"{out}: {adata.n_obs:,} cells, {len(summary['types']):,} cell types, {summary['bytes'] / 1e6:.1f} MB"
    )


def _annotate(adata: AnnData, options: dict[str, Any]) -> None:
    """Add the annotation and, if there is no UMAP, the embedding, unless the file contains them."""
    from sccello_tools import tl

    if _KEY not in adata.obs:
        tl.annotate_novel(adata, **options)
    if "X_umap" not in adata.obsm and _EMBEDDING not in adata.obsm:
        tl.embed(adata, **options)


def _find_markers(adata: AnnData, n_cells: int, options: dict[str, Any]) -> list[str]:
    """Compute marker genes of types with enough cells by the fast method; returns a note about the other types."""
    from sccello_tools import tl

    sizes = adata.obs[_KEY].value_counts()
    enough = [name for name, n in sizes.items() if n >= _MIN_CELLS]
    if len(enough) < 2:
        return [f"No marker genes: fewer than two cell types have {_MIN_CELLS} cells."]
    chosen = adata[adata.obs[_KEY].isin(enough).to_numpy()].copy()
    chosen.obs[_KEY] = chosen.obs[_KEY].astype("category").cat.remove_unused_categories()
    tl.marker_genes(chosen, _KEY, method="fast", n_cells_per_group=n_cells, **options)
    adata.uns[_MARKERS] = chosen.uns[_MARKERS]
    small = [str(name) for name, n in sizes.items() if 0 < n < _MIN_CELLS]
    if not small:
        return []
    return [f"No marker genes of types with fewer than {_MIN_CELLS} cells: {', '.join(small)}."]
