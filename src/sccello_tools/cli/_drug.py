"""``sccello drug``: predicted response to drugs for the cells, or groups of cells, of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ._options import GeneIds, Json, Layer, Out, Overwrite, Source, check_column, print_json

if TYPE_CHECKING:
    from anndata import AnnData

_KEY = "sccello_drug_response"
_SHOWN = 10


def drug(
    source: Source,
    out: Out,
    *,
    model: Annotated[
        str, typer.Option(help="Name of a drug response model, or a folder that holds one.")
    ] = "gdsc-small",
    groupby: Annotated[
        str | None,
        typer.Option(help="Column of obs: one answer for each group, from its summed counts."),
    ] = None,
    center: Annotated[
        bool,
        typer.Option(
            "--center",
            help="With --groupby: take away what all groups have alike, which makes their order surer.",
        ),
    ] = False,
    drug_name: Annotated[
        list[str] | None,
        typer.Option("--drug", help="A drug that the model knows; may be given several times."),
    ] = None,
    smiles: Annotated[
        list[str] | None,
        typer.Option(help="A new drug as NAME=SMILES; may be given several times."),
    ] = None,
    layer: Layer = None,
    gene_ids: GeneIds = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Predict drug response: writes a copy of the file with ln IC50 (µM) of 228 drugs, lower is more sensitive.

    The model learned from cancer cell lines. Groups are surer than single cells; compare groups within a drug.

    [bold]Examples[/bold]

    sccello drug tumour.h5ad -o tumour_drugs.h5ad --groupby cluster --center

    sccello drug tumour.h5ad -o out.h5ad --drug Erlotinib --drug Gefitinib

    sccello drug tumour.h5ad -o out.h5ad --groupby cluster --smiles "aspirin=CC(=O)Oc1ccccc1C(=O)O"
    """
    from sccello_tools import tl

    from ._files import check_output, read_h5ad, write_h5ad

    drugs = _drugs(drug_name, smiles)
    if center and groupby is None:
        msg = "--center compares groups; name a column of obs in --groupby."
        raise typer.BadParameter(msg)
    check_output(out, overwrite=overwrite)
    adata = read_h5ad(source)
    if groupby is not None:
        check_column(adata, groupby, option="--groupby")
    tl.drug_response(
        adata,
        model=model,
        groupby=groupby,
        center=center,
        drugs=drugs,
        layer=layer,
        gene_ids=gene_ids,
    )
    write_h5ad(adata, out)
    _report(adata, str(out), as_json=as_json)


def _drugs(names: list[str] | None, smiles: list[str] | None) -> list[str] | dict[str, str] | None:
    if names and smiles:
        msg = "--drug names drugs that the model knows, --smiles new ones; give one kind at a time."
        raise typer.BadParameter(msg)
    if not smiles:
        return names or None
    new = {}
    for text in smiles:
        name, divider, structure = text.partition("=")
        if not (name.strip() and divider and structure.strip()):
            msg = f"--smiles is {text!r}; expected is NAME=SMILES, such as 'ethanol=CCO'."
            raise typer.BadParameter(msg)
        new[name.strip()] = structure.strip()
    return new


def _report(adata: AnnData, out: str, *, as_json: bool) -> None:
    import numpy as np
    import pandas as pd

    from sccello_tools import get

    made = adata.uns[_KEY]
    groups = None if not made["groupby"] else get.drug_response_df(adata)
    table = cast(pd.DataFrame, adata.obsm[_KEY]) if groups is None else groups
    answered = int(np.isfinite(table.to_numpy()).all(axis=1).sum())
    summary: dict[str, Any] = {
        "file": out,
        "cells": adata.n_obs,
        "groups": None if groups is None else len(groups),
        "answered": answered,
        "drugs": table.shape[1],
        "key": _KEY,
        "model": made["model"],
    }
    if as_json:
        print_json(summary)
        return
    from rich.console import Console
    from rich.table import Table

    spread = table.std(axis=0).fillna(0.0).sort_values(ascending=False)
    what = f"{adata.n_obs:,} cells" if groups is None else f"{len(table):,} groups"
    shown = Table(title=f"{table.shape[1]} drugs, {what}: where predictions differ most")
    shown.add_column("drug")
    shown.add_column("most sensitive" if groups is not None else "lowest", justify="right")
    shown.add_column("least sensitive" if groups is not None else "highest", justify="right")
    for name in spread.index[:_SHOWN]:
        column = table[name].dropna()
        if len(column):
            low, high = column.idxmin(), column.idxmax()
            ends = [
                f"{column[at]:.1f}" + ("" if groups is None else f" {at}") for at in (low, high)
            ]
            shown.add_row(str(name), *ends)
    Console().print(shown)
    where = f"obsm[{_KEY!r}]" if groups is None else f"uns[{_KEY!r}]"
    typer.echo(f"{out}: ln IC50 (µM) in {where}")
