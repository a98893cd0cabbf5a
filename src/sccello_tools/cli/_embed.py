"""``sccello embed``: the embedding of each cell of a file."""

from __future__ import annotations

from typing import Annotated

import typer

from ._collections import embed_collection
from ._options import Device, GeneIds, Json, Layer, Model, Out, Overwrite, Source, print_json


def embed(
    source: Source,
    out: Out,
    *,
    model: Model = "sccello-small",
    layer: Layer = None,
    gene_ids: GeneIds = None,
    representation: Annotated[
        str,
        typer.Option(help="'cls', the hidden state, or 'cell', the unit vector of the cell head."),
    ] = "cls",
    key_added: Annotated[str, typer.Option(help="Key of obsm to write.")] = "X_sccello",
    device: Device = "auto",
    n_workers: Annotated[
        int | None,
        typer.Option("--workers", help="Local processes; writes OUT as a folder of embeddings."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Embed each cell: writes a copy of the file with the embedding in obsm.

    The file must hold raw counts of human genes. Every cell has a row, in the order of the file; a cell that the model
    cannot use has NaN, and how many there are is said.

    [bold]Examples[/bold]

    sccello embed pbmc.h5ad -o pbmc_embedded.h5ad

    sccello embed pbmc.h5ad -o out.h5ad --layer counts --gene-ids ensembl_id   [dim]# counts and ids elsewhere[/dim]

    sccello embed pbmc.h5ad -o out.h5ad --json | jq .embedded

    sccello embed atlas.h5ad -o atlas_embedded --workers 8   [dim]# larger than memory; resumes when called again[/dim]
    """
    import numpy as np

    from sccello_tools import tl

    from ._files import check_output, read_h5ad, write_h5ad

    # what would come to nothing is refused before hours of work
    if representation not in {"cls", "cell"}:
        msg = f"--representation is {representation!r}; expected is 'cls' or 'cell'."
        raise typer.BadParameter(msg)
    if n_workers is not None:
        embed_collection(
            [source],
            out,
            as_json=as_json,
            n_workers=n_workers,
            model=model,
            layer=layer,
            gene_ids=gene_ids,
            representation=representation,
            device=device,
        )
        return
    check_output(out, overwrite=overwrite)
    adata = read_h5ad(source)
    tl.embed(
        adata,
        model=model,
        layer=layer,
        gene_ids=gene_ids,
        representation="cls" if representation == "cls" else "cell",
        key_added=key_added,
        device=device,
    )
    write_h5ad(adata, out)
    embedding = np.asarray(adata.obsm[key_added])
    summary = {
        "file": str(out),
        "cells": adata.n_obs,
        "embedded": int(np.isfinite(embedding).all(axis=1).sum()),
        "dimensions": embedding.shape[1],
        "key": key_added,
        "model": adata.uns[key_added]["model"],
    }
    if as_json:
        print_json(summary)
        return
    typer.echo(
        f"{out}: {summary['embedded']:,} of {summary['cells']:,} cells embedded "
        f"in {summary['dimensions']} dimensions, obsm[{key_added!r}]"
    )
