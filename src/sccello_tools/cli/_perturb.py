"""``sccello perturb``: shifts of the cells of a file when genes are masked, deleted or overexpressed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import _common as common

_SHOWN = 5


def perturb(
    source: common.Source,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="Table (.csv, .tsv), or a copy of the file with the result in uns (.h5ad, .zarr).",
        ),
    ],
    *,
    gene: Annotated[
        list[str],
        typer.Option(
            help="Gene to perturb, as in var_names; repeat for several genes. Genes joined by '+' are perturbed together."
        ),
    ],
    mode: Annotated[
        Literal["mask", "delete", "overexpress"],
        typer.Option(help="Mask or delete the genes, or move them to the highest rank."),
    ] = "mask",
    groupby: Annotated[
        str | None, typer.Option(help="Column of obs with the groups; all cells by default.")
    ] = None,
    toward: Annotated[
        str | None,
        typer.Option(
            help="Target: a group of --groupby, or a cell type of the model (Cell Ontology ID or name)."
        ),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Also perturb all pairs of the single genes.")
    ] = False,
    n_cells_per_group: Annotated[
        int, typer.Option("--cells", min=2, help="Maximum number of cells sampled per group.")
    ] = 50,
    n_controls: Annotated[
        int,
        typer.Option(
            "--controls", min=0, help="Random genes of similar rank to compare with; 0 for none."
        ),
    ] = 100,
    model: common.Model = "sccello-small",
    layer: common.Layer = None,
    gene_ids: common.GeneIds = None,
    counts: common.Counts = "check",
    min_matched: common.MinMatched = 500,
    device: common.Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the sampling of cells and controls.")] = 0,
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
) -> None:
    """Measure how far genes or gene sets shift the cells of each group when they are perturbed.

    The table has one line per group and perturbation: mean shift (1 - cosine), that of random genes of similar rank,
    p-values and, with --toward, the shift in the direction of the target.

    [bold]Examples[/bold]

    sccello perturb islets.h5ad --gene INS --gene GCG --groupby cell_type -o shifts.csv

    sccello perturb islets.h5ad --gene PDX1+MAFA --mode overexpress --groupby cell_type --toward "type B pancreatic cell" -o out.h5ad
    """
    from sccello_tools import get, tl
    from sccello_tools._io import check_output
    from sccello_tools.files import WRITABLE, read_any

    check_output(out, suffixes=(*common.TABLES, *WRITABLE), overwrite=overwrite)
    adata = read_any(source)
    if groupby is not None:
        common.use_groups(adata, groupby, option="--groupby")
    names = set(map(str, adata.var_names))
    tl.perturb(
        adata,
        [name if name in names or "+" not in name else tuple(name.split("+")) for name in gene],
        mode=mode,
        groupby=groupby,
        toward=toward,
        pairs=pairs,
        n_cells_per_group=n_cells_per_group,
        n_controls=n_controls,
        model=model,
        layer=layer,
        gene_ids=gene_ids,
        counts=counts,
        min_matched=min_matched,
        device=device,
        rng=seed,
    )
    table = get.perturbation_df(adata)
    common.write_result(adata, table, out)
    column = "toward" if toward is not None else "shift"
    top = {
        str(group): dict(zip(rows["symbol"], rows[column].round(6).tolist()))
        for group, rows in table.dropna(subset="shift").groupby("group", observed=True)
    }
    if as_json:
        common.print_json({"file": str(out), "mode": mode, "column": column, "groups": top})
        return
    typer.echo(f"{out}: {len(table)} rows")
    for group, values in top.items():
        shown = ", ".join(f"{name} {value:.3g}" for name, value in list(values.items())[:_SHOWN])
        typer.echo(f"  {group}: {shown} ({column})")
