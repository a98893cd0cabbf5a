"""The command line: ``sccello embed | annotate | tokenize | models | demo``."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ._cli._annotate import annotate
from ._errors import ScCelloError
from ._settings import settings

app = typer.Typer(
    name="sccello",
    help="Embed cells, name them with Cell Ontology terms: scCello on AnnData files.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_MODEL = typer.Option(help="Name of a model (see `sccello models`) or a folder that holds one.")
_JSON = typer.Option("--json", help="Print the result as JSON, for other programs.")


@app.callback()
def _main(
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
) -> None:
    settings.verbosity = "warning" if quiet else "info"
    if offline:
        settings.offline = True


@app.command()
def embed(
    source: Annotated[
        Path, typer.Argument(metavar="IN.h5ad", help="Cells with raw counts, an h5ad file.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.h5ad", help="File to write.")],
    *,
    model: Annotated[str, _MODEL] = "sccello-small",
    layer: Annotated[
        str | None, typer.Option(help="Layer with raw counts; X if not given.")
    ] = None,
    gene_ids: Annotated[
        str | None, typer.Option(help="Column of var with Ensembl ids or symbols.")
    ] = None,
    representation: Annotated[
        str,
        typer.Option(help="'cls', the hidden state, or 'cell', the unit vector of the cell head."),
    ] = "cls",
    key_added: Annotated[str, typer.Option(help="Key of obsm to write.")] = "X_sccello",
    device: Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda', ...")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace OUT.h5ad if it exists.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Embed each cell: writes a copy of the file with the embedding in obsm.

    Example: sccello embed pbmc.h5ad -o pbmc_embedded.h5ad
    """
    import numpy as np

    from . import tl
    from ._files import check_output, read_h5ad, write_h5ad

    # what would come to nothing is refused before hours of work
    if representation not in {"cls", "cell"}:
        msg = f"--representation is {representation!r}; expected is 'cls' or 'cell'."
        raise typer.BadParameter(msg)
    check_output(out, overwrite=overwrite)
    adata = read_h5ad(source)
    tl.embed(
        adata,
        model,
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
        typer.echo(json.dumps(summary))
    else:
        typer.echo(
            f"{out}: {summary['embedded']:,} of {summary['cells']:,} cells embedded "
            f"in {summary['dimensions']} dimensions, obsm[{key_added!r}]"
        )


app.command()(annotate)


@app.command()
def tokenize(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...", help="Labelled cells with raw counts: h5ad files, zarr folders."
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
    layer: Annotated[
        str | None, typer.Option(help="Layer with raw counts, or 'raw.X'; X if not given.")
    ] = None,
    gene_ids: Annotated[
        str | None, typer.Option(help="Column of var with Ensembl ids or symbols.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Most tokens of a cell.")] = 2048,
    cells_per_shard: Annotated[int, typer.Option(help="Rows of an input to a file.")] = 8192,
    n_workers: Annotated[
        int | None, typer.Option("--workers", help="Processes to work with.")
    ] = None,
    leave_out_unknown: Annotated[
        bool, typer.Option(help="Go on without cells whose label is no current id.")
    ] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Tokenize files into a corpus for pretraining. Interrupted, it goes on when called again.

    Example: sccello tokenize a.h5ad b.h5ad -o corpus --workers 2
    """
    from . import pp

    corpus = pp.build_corpus(
        inputs,
        out,
        label_key=label_key,
        obs_keys=obs_key or (),
        layer=layer,
        gene_ids=gene_ids,
        max_length=max_length,
        cells_per_shard=cells_per_shard,
        unknown_labels="leave_out" if leave_out_unknown else "error",
        n_workers=n_workers,
    )
    summary = {
        "folder": str(out),
        "cells": len(corpus),
        "cell_types": len(corpus.cell_types),
        "files": len(corpus.shards),
    }
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo(
            f"{out}: {len(corpus):,} cells of {len(corpus.cell_types):,} types in {len(corpus.shards):,} files"
        )


@app.command()
def models(*, as_json: Annotated[bool, _JSON] = False) -> None:
    """List the models that can be loaded by name."""
    from . import models as catalog

    table = catalog.list()
    if as_json:
        typer.echo(table.to_json(orient="records"))
        return
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="Models", expand=True)
    for heading in ("name", "here", "parameters", "MB", "what it is"):
        shown.add_column(
            heading,
            overflow="fold",
            justify="left" if heading in {"name", "what it is"} else "right",
        )
    for record in table.to_dict("records"):
        shown.add_row(
            record["name"],
            "yes" if record["available"] else "no",
            "" if pd.isna(record["n_parameters"]) else f"{record['n_parameters']:,}",
            "" if pd.isna(record["size_mb"]) else f"{record['size_mb']:.1f}",
            f"{record['description']} Licence: {record['licence']}.",
        )
    Console().print(shown)


@app.command()
def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(
        "demo"
    ),
    model: Annotated[str, _MODEL] = "sccello-small",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Embed 583 real pancreas cells of a study that the model never saw, draw and score them."""
    from ._demo import run_demo

    run_demo(out, model=model, as_json=as_json)


def _say(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as one line, without the place in the code that it came from."""
    typer.echo(f"sccello: {message}", err=True)


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1, never in a traceback."""
    warnings.showwarning = _say
    try:
        app()
    except (ScCelloError, OSError, ValueError, MemoryError) as error:
        typer.echo(f"sccello: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
