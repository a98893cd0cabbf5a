"""``sccello embed``: cell embeddings of a file or a collection."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from . import _common as common
from ._collections import embed_collection, on_error


def embed(
    sources: common.Sources,
    out: common.Out,
    *,
    model: common.Model = "sccello-small",
    representation: Annotated[
        Literal["cls", "cell"],
        typer.Option(help="'cls', the hidden state, or 'cell', the unit vector of the cell head."),
    ] = "cls",
    key_added: Annotated[str, typer.Option(help="Key of obsm to write.")] = "X_sccello",
    layer: common.Layer = None,
    gene_ids: common.GeneIds = None,
    counts: common.Counts = "check",
    min_matched: common.MinMatched = 500,
    device: common.Device = "auto",
    n_workers: common.Workers = None,
    skip_bad_files: common.SkipBadFiles = False,
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
) -> None:
    """Embed each cell: writes a copy of the file with the embedding in obsm.

    The file must contain raw counts of human genes. The output has one row per input cell, in the same order; cells
    without counts in known genes are NaN. Several files, or --workers, write a folder of embeddings.

    [bold]Examples[/bold]

    sccello embed pbmc.h5ad -o pbmc_embedded.h5ad

    sccello embed pbmc.h5ad -o out.zarr --layer counts --gene-ids ensembl_id

    sccello embed pbmc.h5ad -o out.h5ad --json | jq .embedded

    sccello embed atlas_1.h5ad atlas_2.h5ad -o folder --workers 8   [dim]# larger than memory; resumes if interrupted[/dim]
    """
    import numpy as np

    from sccello_tools import tl
    from sccello_tools._io import check_output
    from sccello_tools.files import WRITABLE, read_any, write_any

    options: dict[str, Any] = {
        "model": model,
        "representation": representation,
        "layer": layer,
        "gene_ids": gene_ids,
        "counts": counts,
        "min_matched": min_matched,
        "device": device,
    }
    if len(sources) > 1 or n_workers is not None:
        options |= {"n_workers": n_workers or 1, "errors": on_error(skip=skip_bad_files)}
        embed_collection(sources, out, as_json=as_json, **options)
        return
    needed = common.expected_size(sources[0])
    check_output(out, suffixes=WRITABLE, overwrite=overwrite, needed=needed)
    adata = read_any(sources[0])
    tl.embed(adata, key_added=key_added, **options)
    write_any(adata, out)
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
        common.print_json(summary)
        return
    typer.echo(
        f"{out}: {summary['embedded']:,} of {summary['cells']:,} cells embedded in {summary['dimensions']} dimensions, obsm[{key_added!r}]"
    )
