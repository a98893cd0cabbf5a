"""``sccello tokenize``: files of labelled cells to a corpus for pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._collections import on_error
from ._common import Counts, GeneIds, Json, Layer, MinMatched, SkipBadFiles, print_json


def tokenize(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...",
            help="Labelled cells with raw counts: h5ad, zarr, Cell Ranger files, or folders of them.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Corpus to build.")],
    *,
    label_key: Annotated[
        str, typer.Option(help="Column of obs with Cell Ontology ids.")
    ] = "cell_type_ontology_term_id",
    obs_key: Annotated[
        list[str] | None, typer.Option(help="Column of obs to keep; may be given several times.")
    ] = None,
    layer: Layer = None,
    gene_ids: GeneIds = None,
    counts: Counts = "check",
    min_matched: MinMatched = 500,
    max_length: Annotated[int, typer.Option(help="Maximum number of tokens of a cell.")] = 2048,
    cells_per_shard: Annotated[int, typer.Option(help="Rows of an input per file.")] = 8192,
    n_workers: Annotated[int, typer.Option("--workers", help="Number of local processes.")] = 1,
    leave_out_unknown: Annotated[
        bool,
        typer.Option(
            "--leave-out-unknown", help="Leave out cells whose label is not a current id."
        ),
    ] = False,
    skip_bad_files: SkipBadFiles = False,
    as_json: Json = False,
) -> None:
    """Tokenize files into a corpus for pretraining. If interrupted, call it again: finished files are kept.

    Labels must be Cell Ontology ids; `sccello_tools.pp.map_cell_types` maps names to ids.

    [bold]Examples[/bold]

    sccello tokenize a.h5ad b.h5ad -o corpus --workers 2

    sccello tokenize atlas.zarr -o corpus --obs-key donor --obs-key assay --leave-out-unknown
    """
    from sccello_tools import pp

    corpus = pp.build_corpus(
        inputs,
        out,
        label_key=label_key,
        obs_keys=obs_key or (),
        layer=layer,
        gene_ids=gene_ids,
        counts=counts,
        min_matched=min_matched,
        max_length=max_length,
        cells_per_shard=cells_per_shard,
        unknown_labels="leave_out" if leave_out_unknown else "error",
        n_workers=n_workers,
        errors=on_error(skip=skip_bad_files),
    )
    if as_json:
        print_json(
            {
                "folder": str(out),
                "cells": len(corpus),
                "cell_types": len(corpus.cell_types),
                "files": len(corpus.shards),
            }
        )
        return
    typer.echo(
        f"{out}: {len(corpus):,} cells of {len(corpus.cell_types):,} types in {len(corpus.shards):,} files"
    )
