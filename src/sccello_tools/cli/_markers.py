"""``sccello markers``: marker genes of groups of cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import _common as common

_SHOWN = 5


def markers(
    source: common.Source,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="Table (.csv, .tsv), or a copy of the file with the genes in uns (.h5ad, .zarr).",
        ),
    ],
    *,
    groupby: Annotated[
        str, typer.Option(help="Column of obs with the groups, such as clusters or cell types.")
    ],
    reference: Annotated[str, typer.Option(help="'rest', or the group to compare with.")] = "rest",
    method: Annotated[
        Literal["perturb", "fast", "screen"],
        typer.Option(
            help="'perturb' is exact, with one forward pass per gene and cell; 'fast' is an approximation; 'screen' is exact for the 100 genes of each cell that rank highest by 'fast'."
        ),
    ] = "perturb",
    n_cells_per_group: Annotated[
        int, typer.Option("--cells", min=2, help="Maximum number of cells sampled per group.")
    ] = 50,
    n_genes: Annotated[
        int | None,
        typer.Option("--genes", min=1, help="Genes per group in a table; all by default."),
    ] = None,
    model: common.Model = "sccello-small",
    layer: common.Layer = None,
    gene_ids: common.GeneIds = None,
    counts: common.Counts = "check",
    min_matched: common.MinMatched = 500,
    device: common.Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the sampling of cells.")] = 0,
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
) -> None:
    """Rank the genes of each group by how far its cells move in the embedding when the gene is masked.

    A table has one line per group and gene: score, log2 fold change, p-values and the fraction of cells that express
    it. In a file, scanpy's plots read the result: `sc.pl.rank_genes_groups(adata, key="sccello_marker_genes")`.

    [bold]Examples[/bold]

    sccello markers annotated.h5ad --groupby sccello_cell_type -o markers.csv --genes 50

    sccello markers pbmc.h5ad --groupby leiden --reference 0 --method fast -o with_markers.h5ad
    """
    from sccello_tools import get, tl
    from sccello_tools._io import check_output
    from sccello_tools.files import WRITABLE, read_any

    check_output(out, suffixes=(*common.TABLES, *WRITABLE), overwrite=overwrite)
    adata = read_any(source)
    common.use_groups(adata, groupby, option="--groupby")
    tl.marker_genes(
        adata,
        groupby,
        model=model,
        method=method,
        n_cells_per_group=n_cells_per_group,
        reference=reference,
        layer=layer,
        gene_ids=gene_ids,
        counts=counts,
        min_matched=min_matched,
        device=device,
        rng=seed,
    )
    table = get.marker_genes_df(adata, n_genes=n_genes)
    common.write_result(adata, table, out)
    groups = [str(name) for name in table["group"].cat.categories]
    top = {g: table.loc[table["group"] == g, "symbol"].head(_SHOWN).tolist() for g in groups}
    n_cells = adata.obs[groupby].astype(str).value_counts()
    sizes = {g: int(n_cells.get(g, 0)) for g in groups}
    if as_json:
        common.print_json(
            {"file": str(out), "groupby": groupby, "method": method, "cells": sizes, "top": top}
        )
        return
    common.print_table(
        f"Marker genes by {groupby}",
        ["group", "cells", "highest ranked genes"],
        ([group, f"{sizes[group]:,}", ", ".join(genes)] for group, genes in top.items()),
        right=["cells"],
    )
    where = (
        f"{len(table):,} lines" if out.suffix in common.TABLES else "uns['sccello_marker_genes']"
    )
    typer.echo(f"{out}: {len(groups):,} groups, {where}")
