"""``sccello embed``: the embedding of each cell of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sccello_tools.errors import ArgumentError

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
    devices: Annotated[
        int | None,
        typer.Option(help="Work with so many processes, and write OUT as a folder of embeddings."),
    ] = None,
    num_nodes: Annotated[
        int, typer.Option(help="Machines, with --devices; NODE_RANK says which this is.")
    ] = 1,
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

    sccello embed atlas.h5ad -o atlas_embedded --devices 8   [dim]# larger than memory; goes on when called again[/dim]
    """
    import numpy as np

    from sccello_tools import tl

    from ._files import check_output, read_h5ad, write_h5ad

    # what would come to nothing is refused before hours of work
    if representation not in {"cls", "cell"}:
        msg = f"--representation is {representation!r}; expected is 'cls' or 'cell'."
        raise typer.BadParameter(msg)
    if devices is not None or num_nodes > 1:
        _embed_into_folder(
            source,
            out,
            as_json=as_json,
            devices=devices or 1,
            num_nodes=num_nodes,
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


def _embed_into_folder(source: Path, out: Path, *, as_json: bool, **options: Any) -> None:
    """Embed by several processes; what is there already is kept."""
    from sccello_tools.files import embed_files

    if out.suffix == ".h5ad":
        msg = f"With --devices the output is a folder of embeddings, not the file {out}. Name a folder; open_embedded(folder).to_anndata() makes an AnnData of it."
        raise ArgumentError(msg)
    cells = embed_files(source, out, **options)
    summary = {
        "folder": str(out),
        "cells": len(cells),
        "complete": cells.complete,
        "dimensions": cells.shape[1],
        "model": cells.manifest.model,
    }
    if as_json:
        print_json(summary)
        return
    state = "embedded" if cells.complete else "cells; other processes are still at it"
    typer.echo(f"{out}: {len(cells):,} cells {state} in {cells.shape[1]} dimensions")
