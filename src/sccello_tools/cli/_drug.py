"""``sccello drug``: predicted drug response of cells or groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from . import _common as common

if TYPE_CHECKING:
    from anndata import AnnData

_KEY = "sccello_drug_response"
_SHOWN = 10


def drug(
    source: common.Source,
    out: common.Out,
    *,
    model: Annotated[
        str, typer.Option(help="Name of a drug response model, or path of a model folder.")
    ] = "gdsc-small",
    groupby: Annotated[
        str | None,
        typer.Option(help="Column of obs: one prediction per group, from its summed counts."),
    ] = None,
    center: Annotated[
        bool,
        typer.Option(
            "--center",
            help="With --groupby: subtract what all groups have in common, which makes their order more reliable.",
        ),
    ] = False,
    drugs: Annotated[
        list[str] | None,
        typer.Option("--drug", help="A drug that the model knows, repeatable."),
    ] = None,
    smiles: Annotated[
        list[str] | None, typer.Option(help="A new drug as NAME=SMILES, repeatable.")
    ] = None,
    layer: common.Layer = None,
    gene_ids: common.GeneIds = None,
    counts: common.Counts = "check",
    min_matched: common.MinMatched = 500,
    device: common.Device = "auto",
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
) -> None:
    """Predict drug response: writes a copy of the file with ln IC50 (µM) of each drug; lower is more sensitive.

    The model was trained on cancer cell lines. Predictions for groups are more reliable than for single cells;
    compare groups within a drug.

    [bold]Examples[/bold]

    sccello drug tumour.h5ad -o tumour_drugs.h5ad --groupby cluster --center

    sccello drug tumour.h5ad -o out.h5ad --drug Erlotinib --drug Gefitinib

    sccello drug tumour.h5ad -o out.h5ad --groupby cluster --smiles "aspirin=CC(=O)Oc1ccccc1C(=O)O"
    """
    from sccello_tools import tl
    from sccello_tools._io import check_output
    from sccello_tools.files import WRITABLE, read_any, write_any

    chosen = _drugs(drugs, smiles)
    if center and groupby is None:
        msg = "--center compares groups; pass a column of obs as --groupby."
        raise typer.BadParameter(msg)
    needed = common.expected_size(source)
    check_output(out, suffixes=WRITABLE, overwrite=overwrite, needed=needed)
    adata = read_any(source)
    if groupby is not None:
        common.use_groups(adata, groupby, option="--groupby")
    tl.drug_response(
        adata,
        model=model,
        groupby=groupby,
        center=center,
        drugs=chosen,
        layer=layer,
        gene_ids=gene_ids,
        counts=counts,
        min_matched=min_matched,
        device=device,
    )
    write_any(adata, out)
    _report(adata, str(out), as_json=as_json)


def _drugs(names: list[str] | None, smiles: list[str] | None) -> list[str] | dict[str, str] | None:
    if names and smiles:
        msg = "--drug selects drugs of the model, --smiles new ones; pass one of the two."
        raise typer.BadParameter(msg)
    if not smiles:
        return names or None
    new = {}
    for text in smiles:
        name, equals, structure = text.partition("=")
        if not (name.strip() and equals and structure.strip()):
            msg = f"--smiles must be NAME=SMILES, such as 'ethanol=CCO', got {text!r}"
            raise typer.BadParameter(msg)
        new[name.strip()] = structure.strip()
    return new


def _report(adata: AnnData, out: str, *, as_json: bool) -> None:
    import numpy as np
    import pandas as pd

    from sccello_tools import get

    made = adata.uns[_KEY]
    groups = get.drug_response_df(adata) if made["groupby"] else None
    table = cast(pd.DataFrame, adata.obsm[_KEY]) if groups is None else groups
    summary: dict[str, Any] = {
        "file": out,
        "cells": adata.n_obs,
        "groups": None if groups is None else len(groups),
        "predicted": int(np.isfinite(table.to_numpy()).all(axis=1).sum()),
        "drugs": table.shape[1],
        "key": _KEY,
        "model": made["model"],
    }
    if as_json:
        common.print_json(summary)
        return
    spread = table.std(axis=0).fillna(0.0).sort_values(ascending=False)
    columns = ["drug", "lowest ln IC50", "highest ln IC50"]
    rows = []
    for name in spread.index[:_SHOWN]:
        found = table[name].dropna()
        if len(found):
            ends = (found.idxmin(), found.idxmax())
            shown = [f"{found[at]:.1f}" + ("" if groups is None else f" {at}") for at in ends]
            rows.append([str(name), *shown])
    what = f"{adata.n_obs:,} cells" if groups is None else f"{len(table):,} groups"
    title = f"{table.shape[1]} drugs, {what}: largest differences"
    common.print_table(title, columns, rows, right=columns[1:])
    where = f"obsm[{_KEY!r}]" if groups is None else f"uns[{_KEY!r}]"
    typer.echo(f"{out}: ln IC50 (µM) in {where}")
