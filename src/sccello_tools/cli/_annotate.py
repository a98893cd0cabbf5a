"""``sccello annotate``: Cell Ontology terms for the cells of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import _common as common
from ._archives import check_fields, field_options
from ._collections import annotate_collection, on_error

if TYPE_CHECKING:
    from anndata import AnnData

_KEY = "sccello_cell_type"


def annotate(
    sources: common.Sources,
    out: common.Out,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a model (see `sccello models`) or path of a model folder; sccello-small, or the model of the reference, by default."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Labelled cells to annotate from: a file like IN, or a saved reference."),
    ] = None,
    label_key: Annotated[
        str | None, typer.Option(help="Column of the reference's obs with the labels.")
    ] = None,
    batch_key: Annotated[
        str | None, typer.Option(help="Column of the reference's obs with donors or samples.")
    ] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate",
            help="Cell Ontology id or name to choose from, repeatable. A single one stands for all its descendants.",
        ),
    ] = None,
    tissue: Annotated[
        list[str] | None,
        typer.Option(
            help="Tissue of the cells, such as 'blood', repeatable. Types that are rare there become less probable."
        ),
    ] = None,
    level: Annotated[
        Literal["auto", "type"] | None,
        typer.Option(
            help="'auto' reports an ancestor where confidence is too low (default), 'type' always a type (default with --reference)."
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Accepted fraction of wrong terms.")] = 0.1,
    groupby: Annotated[
        str | None,
        typer.Option(
            help="Column of obs with clusters, which are also annotated, by the evidence of all their cells."
        ),
    ] = None,
    layer: common.Layer = None,
    gene_ids: common.GeneIds = None,
    counts: common.Counts = "check",
    min_matched: common.MinMatched = 500,
    device: common.Device = "auto",
    n_workers: common.Workers = None,
    skip_bad_files: common.SkipBadFiles = False,
    write_back: Annotated[
        bool,
        typer.Option(
            "--write-back",
            help="With several files or --workers: also write copies of them with the columns in obs.",
        ),
    ] = False,
    cellxgene: Annotated[
        bool,
        typer.Option(
            "--cellxgene",
            help="Write OUT (.h5ad) as the CELLxGENE schema requires; needs values for its fields, see --set.",
        ),
    ] = False,
    cas: Annotated[
        Path | None,
        typer.Option(
            "--cas",
            metavar="FILE",
            help="Also write the annotation as Cell Annotation Schema JSON; needs --set title=... and --set author_name=...",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Value of a field of --cellxgene or --cas for all cells, or NAME=@COLUMN to copy a column of obs. Repeatable.",
        ),
    ] = None,
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
) -> None:
    """Annotate each cell: writes a copy of the file with cell type, confidence, status and novelty in obs.

    Each cell gets the most specific Cell Ontology term that its confidence allows, and the status known,
    novel_subtype or unknown. With --reference, labels come from your own annotated cells. Several files, or --workers,
    write a folder with tables.

    [bold]Examples[/bold]

    sccello annotate pbmc.h5ad -o pbmc_annotated.h5ad

    sccello annotate islets.h5ad -o out.h5ad --candidate "pancreatic endocrine cell"   [dim]# one of its subtypes[/dim]

    sccello annotate islets.h5ad -o out.h5ad --tissue pancreas

    sccello annotate query.h5ad -o out.h5ad --reference atlas.h5ad --label-key cell_type

    sccello annotate pbmc.h5ad -o out.h5ad --cellxgene --set tissue_type=tissue --set donor_id=@donor   [dim]# and the other required fields[/dim]

    sccello annotate atlas_*.h5ad -o folder --workers 8 --write-back   [dim]# resumes if interrupted[/dim]
    """
    from sccello_tools import export, tl
    from sccello_tools._io import check_output, write_json
    from sccello_tools.files import WRITABLE, read_any, write_any

    if reference is not None and (candidates or tissue):
        other = "--candidate" if candidates else "--tissue"
        msg = f"--reference defines the cell types; omit {other} or --reference."
        raise typer.BadParameter(msg)
    if reference is None and (label_key or batch_key):
        msg = "--label-key and --batch-key are columns of the reference; pass --reference, too."
        raise typer.BadParameter(msg)
    if reference is not None and label_key is None and not reference.is_dir():
        msg = "--reference is a file of cells; pass the column of its obs with the labels as --label-key."
        raise typer.BadParameter(msg)
    options: dict[str, Any] = {
        "alpha": alpha,
        "layer": layer,
        "gene_ids": gene_ids,
        "counts": counts,
        "min_matched": min_matched,
        "device": device,
        **({} if level is None else {"level": level}),
        **({} if model is None else {"model": model}),
    }
    chosen = candidates[0] if candidates and len(candidates) == 1 else candidates
    if reference is None:
        options |= {"candidates": chosen or None, "tissue": tissue or None}
    values = field_options(settings, cellxgene=cellxgene, cas=cas, out=out)
    if len(sources) > 1 or n_workers is not None:
        single = {
            "--reference": reference,
            "--groupby": groupby,
            "--cellxgene": cellxgene or None,
            "--cas": cas,
        }
        if other := next((name for name, value in single.items() if value is not None), ""):
            msg = f"{other} applies to a single file; pass one input and omit --workers."
            raise typer.BadParameter(msg)
        options |= {"n_workers": n_workers or 1, "errors": on_error(skip=skip_bad_files)}
        annotate_collection(sources, out, as_json=as_json, write_back=write_back, **options)
        return
    needed = common.expected_size(sources[0])
    check_output(out, suffixes=WRITABLE, overwrite=overwrite, needed=needed)
    if cas is not None:
        check_output(cas, suffixes=(".json",), overwrite=overwrite)
    adata = read_any(sources[0])
    check_fields(adata, values, cellxgene=cellxgene, cas=cas)
    if groupby is not None:
        common.use_groups(adata, groupby, option="--groupby")
    if reference is None:
        tl.annotate_novel(adata, groupby=groupby, **options)
    else:
        labelled: AnnData | Path = reference
        if label_key is not None:
            labelled = read_any(reference)
            common.use_groups(labelled, label_key, option="--label-key")
        tl.annotate(adata, labelled, label_key=label_key, batch_key=batch_key, **options)
    if cas is not None:
        write_json(cas, export.cell_annotation_schema(adata, values, key=_KEY))
    written = adata
    if cellxgene:
        written = export.cellxgene(adata, values, key=_KEY, layer=layer, gene_ids=gene_ids)
    write_any(written, out)
    _report(adata, out, groupby=groupby, as_json=as_json, is_cellxgene=cellxgene)


def _report(
    adata: AnnData, out: Path, *, groupby: str | None, as_json: bool, is_cellxgene: bool
) -> None:
    from sccello_tools.get import annotation_df

    cells = annotation_df(adata, key=_KEY, n_markers=0)
    types = cells["cell_type"].value_counts()
    status = cells["status"].value_counts()
    summary: dict[str, Any] = {
        "file": str(out),
        "cells": adata.n_obs,
        "annotated": int(cells["cell_type"].notna().sum()),
        "types": {str(name): int(n) for name, n in types.items() if n},
        "status": {str(name): int(n) for name, n in status.items() if n},
        "key": _KEY,
        "model": adata.uns[_KEY]["model"],
    }
    if as_json:
        summary["calibrated"] = bool(adata.uns[_KEY].get("calibrated", True))
        summary["evidence"] = _evidence(adata, groupby or _KEY)
        common.print_json(summary)
        return
    confidence = cells.groupby("cell_type", observed=True)["confidence"].mean()
    common.print_table(
        f"{summary['annotated']:,} of {adata.n_obs:,} cells annotated",
        ["cell type", "cells", "mean confidence"],
        ([name, f"{n:,}", f"{confidence[name]:.2f}"] for name, n in summary["types"].items()),
        right=["cells", "mean confidence"],
    )
    for name, n in summary["status"].items():
        typer.echo(f"{name}: {n:,}")
    typer.echo(f"{out}: cell type, confidence, status and novelty in obs[{_KEY!r}...]")
    if is_cellxgene:
        typer.echo(f"Check the file with: cellxgene-schema validate {out}")


def _evidence(adata: AnnData, groupby: str) -> list[dict[str, Any]]:
    """Return the term of each cluster, or each predicted type, with its reasons."""
    from sccello_tools.get import annotation_df

    table = annotation_df(adata, groupby, key=_KEY)
    rows = []
    for group, row in table[table["n_cells"] > 0].iterrows():
        found: dict[str, Any] = {"group": str(group)}
        for name, value in row.items():
            if str(name).endswith("_markers"):
                found[str(name)] = [gene for gene in str(value or "").split(", ") if gene]
            elif value is None or value != value:  # noqa: PLR0124 - NaN, which JSON does not have
                found[str(name)] = None
            elif isinstance(value, str):
                found[str(name)] = value
            else:
                found[str(name)] = round(float(value), 4)
        found["n_cells"] = int(row["n_cells"])
        rows.append(found)
    return rows
