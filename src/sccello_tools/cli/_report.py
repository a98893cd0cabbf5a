"""``sccello report``: a page about the cells of a file, for people without Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._options import (
    Device,
    GeneIds,
    Json,
    Layer,
    Model,
    Overwrite,
    Source,
    check_column,
    print_json,
)

if TYPE_CHECKING:
    from anndata import AnnData

_KEY = "sccello_cell_type"
_EMBEDDING = "X_sccello"
_MARKERS = "sccello_marker_genes"
_FEWEST = 5  # cells of a type that marker genes are sought for


def report(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.html", help="Page to write.")],
    *,
    title: Annotated[
        str | None, typer.Option(help="Heading of the page; the name of the file if not given.")
    ] = None,
    label_key: Annotated[
        str | None, typer.Option(help="Column of obs with labels of your own to compare with.")
    ] = None,
    sample_key: Annotated[
        str | None, typer.Option(help="Column of obs with samples, such as donors, to compare.")
    ] = None,
    markers: Annotated[
        bool, typer.Option("--markers/--no-markers", help="Look for marker genes of each type.")
    ] = True,
    n_cells: Annotated[
        int, typer.Option("--marker-cells", min=2, help="Most cells of a type to look at for them.")
    ] = 10,
    n_genes: Annotated[int, typer.Option("--genes", min=1, help="Marker genes of a type.")] = 10,
    model: Model = "sccello-small",
    layer: Layer = None,
    gene_ids: GeneIds = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a page about the cells: composition, map, confidence, novelty, marker genes. One file, no network.

    What the file already holds (of `sccello embed`, `annotate` or `markers`, or a UMAP) is shown as it is; the rest is
    computed. The input is not changed.

    [bold]Examples[/bold]

    sccello report pbmc.h5ad -o pbmc.html

    sccello report annotated.h5ad -o page.html --title "Islets, donor 7" --label-key cell_type --sample-key donor
    """
    from ._files import check_output, read_h5ad, write_text
    from .report import render_report

    check_output(out, overwrite=overwrite)
    adata = read_h5ad(source)
    for key, option in ((label_key, "--label-key"), (sample_key, "--sample-key")):
        if key is not None:
            check_column(adata, key, option=option)
    shared = {"model": model, "layer": layer, "gene_ids": gene_ids, "device": device}
    _annotate(adata, shared)
    notes: list[str] = []
    if markers and _MARKERS not in adata.uns:
        notes += _find_markers(adata, n_cells, shared)
    page = render_report(
        adata,
        title=title if title is not None else source.stem,
        label_key=label_key,
        sample_key=sample_key,
        n_genes=n_genes,
        notes=tuple(notes),
    )
    write_text(out, page)
    types = adata.obs[_KEY].value_counts()
    if as_json:
        print_json(
            {
                "file": str(out),
                "bytes": out.stat().st_size,
                "cells": adata.n_obs,
                "types": {str(name): int(n) for name, n in types.items() if n},
                "markers": _MARKERS in adata.uns,
                "notes": notes,
            }
        )
        return
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(
        f"{out}: {adata.n_obs:,} cells of {int((types > 0).sum()):,} types, "
        f"{out.stat().st_size / 1e6:.1f} MB. Open it in any browser."
    )


def _annotate(adata: AnnData, shared: dict[str, str | None]) -> None:
    """Add what the page needs and the file lacks: terms, and an embedding where there is no map."""
    from typing import Any

    from sccello_tools import tl

    options: dict[str, Any] = dict(shared)
    if _KEY not in adata.obs:
        tl.annotate_novel(adata, **options)
    if "X_umap" not in adata.obsm and _EMBEDDING not in adata.obsm:
        tl.embed(adata, **options)


def _find_markers(adata: AnnData, n_cells: int, shared: dict[str, str | None]) -> list[str]:
    """Rank the genes of every type that has enough cells; says what it left out."""
    from typing import Any

    from sccello_tools import tl

    counts = adata.obs[_KEY].value_counts()
    enough = [name for name, n in counts.items() if n >= _FEWEST]
    if len(enough) < 2:
        return [f"No marker genes: fewer than two types have {_FEWEST} cells to compare."]
    chosen = adata[adata.obs[_KEY].isin(enough).to_numpy()].copy()
    chosen.obs[_KEY] = chosen.obs[_KEY].cat.remove_unused_categories()
    options: dict[str, Any] = dict(shared)
    tl.marker_genes(chosen, _KEY, method="fast", n_cells_per_group=n_cells, **options)
    adata.uns[_MARKERS] = chosen.uns[_MARKERS]
    left = [str(name) for name, n in counts.items() if 0 < n < _FEWEST]
    if not left:
        return []
    return [f"No marker genes of {', '.join(left)}: fewer than {_FEWEST} cells."]
