"""``sccello markers``: genes that make each group what it is."""

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
    from collections.abc import Mapping, Sequence

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_METHODS = ("perturb", "fast")
_SHOWN = 5


def markers(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="A table (.csv, .tsv), or a copy of the file with the genes in uns (.h5ad).",
        ),
    ],
    *,
    groupby: Annotated[
        str, typer.Option(help="Column of obs with the groups, such as clusters or cell types.")
    ],
    reference: Annotated[str, typer.Option(help="'rest', or the group to compare with.")] = "rest",
    method: Annotated[
        str,
        typer.Option(
            help="'fast' approximates; 'perturb' is exact and takes a pass for each gene of each cell."
        ),
    ] = "fast",
    n_cells: Annotated[
        int, typer.Option("--cells", min=2, help="Most cells drawn from a group.")
    ] = 50,
    n_genes: Annotated[
        int | None,
        typer.Option("--genes", min=1, help="Genes of each group in the table; all if not given."),
    ] = None,
    model: Model = "sccello-small",
    layer: Layer = None,
    gene_ids: GeneIds = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Of the draw of cells.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Rank each group's genes by how far its cells move in the model when the gene is masked.

    The table has a line for each group and gene: score, log2 fold change, p-values and the share of cells that express it.
    In an h5ad file the result lies where scanpy's plots find it: `sc.pl.rank_genes_groups(adata, key="sccello_marker_genes")`.

    [bold]Examples[/bold]

    sccello markers annotated.h5ad --groupby sccello_cell_type -o markers.csv --genes 50

    sccello markers pbmc.h5ad --groupby leiden --reference 0 --method perturb -o with_markers.h5ad
    """
    from sccello_tools import get, tl

    from ._files import check_output, read_h5ad, write_h5ad, write_text

    ending = out.suffix.lower()
    if ending not in {*_SEPARATORS, ".h5ad"}:
        msg = f"--out is {out.name!r}; expected is a name that ends in .csv, .tsv or .h5ad."
        raise typer.BadParameter(msg)
    if method not in _METHODS:
        msg = f"--method is {method!r}; expected is 'fast' or 'perturb'."
        raise typer.BadParameter(msg)
    check_output(out, overwrite=overwrite)
    adata = read_h5ad(source)
    check_column(adata, groupby, option="--groupby")
    tl.marker_genes(
        adata,
        groupby,
        model=model,
        method="fast" if method == "fast" else "perturb",
        n_cells_per_group=n_cells,
        reference=reference,
        layer=layer,
        gene_ids=gene_ids,
        device=device,
        seed=seed,
    )
    table = get.marker_genes_df(adata, n_genes=n_genes)
    if ending == ".h5ad":
        write_h5ad(adata, out)
    else:
        write_text(out, table.to_csv(index=False, sep=_SEPARATORS[ending], float_format="%.6g"))
    groups = list(table["group"].cat.categories)
    top = {str(g): table.loc[table["group"] == g, "names"].head(_SHOWN).tolist() for g in groups}
    n_groups = adata.obs[groupby].value_counts()
    sizes = {str(g): int(n_groups.get(g, 0)) for g in groups}
    if as_json:
        print_json(
            {"file": str(out), "groupby": groupby, "method": method, "cells": sizes, "top": top}
        )
        return
    _show(top, sizes, groupby)
    typer.echo(
        f"{out}: {len(groups):,} groups"
        + ("" if ending == ".h5ad" else f", {len(table):,} lines")
        + ("; uns['sccello_marker_genes']" if ending == ".h5ad" else "")
    )


def _show(top: Mapping[str, Sequence[str]], sizes: Mapping[str, int], groupby: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"Marker genes by {escape(groupby)}")
    table.add_column("group")
    table.add_column("cells", justify="right")
    table.add_column("highest ranked")
    for group, genes in top.items():
        table.add_row(escape(group), f"{sizes[group]:,}", escape(", ".join(genes)))
    Console().print(table)
