"""``sccello annotate``: Cell Ontology terms for the cells of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._options import (
    Device,
    GeneIds,
    Json,
    Layer,
    Model,
    Out,
    Overwrite,
    Source,
    check_column,
    print_json,
)

if TYPE_CHECKING:
    from anndata import AnnData

_KEY = "sccello_cell_type"


def annotate(
    source: Source,
    out: Out,
    *,
    model: Model = "sccello-small",
    reference: Annotated[
        Path | None,
        typer.Option(help="Labelled cells to annotate from: an h5ad file or a saved reference."),
    ] = None,
    label_key: Annotated[
        str | None, typer.Option(help="Column of the reference's obs with the labels.")
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            help="Cell Ontology id or name to choose from; may be given several times. One alone stands for all below it."
        ),
    ] = None,
    tissue: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the cells are from, such as 'blood'; may be given several times. Types bound to other organs are ruled out."
        ),
    ] = None,
    level: Annotated[
        str,
        typer.Option(help="'auto' backs off to a broader term where unsure, 'type' never does."),
    ] = "auto",
    alpha: Annotated[float, typer.Option(help="Share of wrong terms that is allowed.")] = 0.1,
    groupby: Annotated[
        str | None, typer.Option(help="Column of obs with clusters, which get their majority.")
    ] = None,
    layer: Layer = None,
    gene_ids: GeneIds = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Name each cell's type: writes a copy of the file with terms, confidence and novelty in obs.

    A cell gets the narrowest Cell Ontology term that is sure enough, a broader one where it is not, and is called novel
    where no training cell was like it. With --reference the labels come from your own cells instead.

    [bold]Examples[/bold]

    sccello annotate pbmc.h5ad -o pbmc_annotated.h5ad

    sccello annotate islets.h5ad -o out.h5ad --candidate "pancreatic endocrine cell"   [dim]# something below that[/dim]

    sccello annotate islets.h5ad -o out.h5ad --tissue pancreas

    sccello annotate query.h5ad -o out.h5ad --reference atlas.h5ad --label-key cell_type
    """
    from sccello_tools import tl

    from ._files import check_output, read_h5ad, write_h5ad

    if level not in {"auto", "type"}:
        msg = f"--level is {level!r}; expected is 'auto' or 'type'."
        raise typer.BadParameter(msg)
    if reference is not None and candidate:
        msg = "--reference brings its own labels; leave --candidate out, or --reference."
        raise typer.BadParameter(msg)
    if reference is not None and tissue:
        msg = "--reference brings its own types; leave --tissue out, or --reference."
        raise typer.BadParameter(msg)
    if reference is not None and label_key is None and not reference.is_dir():
        msg = "--reference is a file of cells; --label-key must name the column of its obs with the labels."
        raise typer.BadParameter(msg)
    check_output(out, overwrite=overwrite)
    adata = read_h5ad(source)
    if groupby is not None:
        check_column(adata, groupby, option="--cluster-key")
    shared: dict[str, Any] = {
        "model": model,
        "level": level,
        "alpha": alpha,
        "layer": layer,
        "gene_ids": gene_ids,
        "device": device,
    }
    if reference is not None:
        labelled = reference if reference.is_dir() else read_h5ad(reference)
        tl.annotate(adata, reference=labelled, label_key=label_key, **shared)
    else:
        candidates = candidate[0] if candidate and len(candidate) == 1 else candidate
        tl.annotate_novel(
            adata,
            candidates=candidates or None,
            tissue=tissue or None,
            groupby=groupby,
            **shared,
        )
    write_h5ad(adata, out)
    _report(adata, out, as_json=as_json)


def _report(adata: AnnData, out: Path, *, as_json: bool) -> None:
    types = adata.obs[_KEY].value_counts()
    types = types[types > 0]
    summary = {
        "file": str(out),
        "cells": adata.n_obs,
        "annotated": int(adata.obs[_KEY].notna().sum()),
        "types": {str(name): int(n) for name, n in types.items()},
        "key": _KEY,
        "model": adata.uns[_KEY]["model"],
    }
    status = f"{_KEY}_status"
    if status in adata.obs:
        counts = adata.obs[status].value_counts()
        summary["status"] = {str(name): int(n) for name, n in counts.items() if n and name}
    if as_json:
        print_json(summary)
        return
    import numpy as np
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{summary['annotated']:,} of {adata.n_obs:,} cells annotated")
    table.add_column("cell type")
    table.add_column("cells", justify="right")
    table.add_column("confidence", justify="right")
    confidence = np.asarray(adata.obs[f"{_KEY}_confidence"])
    for name, n in types.items():
        mean = confidence[np.asarray(adata.obs[_KEY] == name)].mean()
        table.add_row(escape(str(name)), f"{n:,}", f"{mean:.2f}")
    Console().print(table)
    for name, n in summary.get("status", {}).items():
        typer.echo(f"{name}: {n:,}")
    typer.echo(f"{out}: terms, confidence and novelty in obs[{_KEY!r}...]")
