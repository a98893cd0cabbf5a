"""Shared by all commands: options, messages in the vocabulary of the command line, groups, JSON output."""

from __future__ import annotations

import functools
import inspect
import json
import re
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import typer

from sccello_tools._messages import listed
from sccello_tools.errors import GroupError, ScCelloError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="Cells with raw counts: .h5ad, .zarr, Cell Ranger .h5 or matrix.mtx folder, or a modality such as file.h5mu/rna.",
    ),
]
Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN...",
        help="Cells with raw counts, one file or several: .h5ad, .zarr, Cell Ranger .h5 or matrix.mtx folder, or a modality such as file.h5mu/rna.",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Number of local processes; OUT is a folder.")
]
SkipBadFiles = Annotated[
    bool,
    typer.Option(
        "--skip-bad-files",
        help="With several files: report those that cannot be read and continue.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="OUT", help="File to write, .h5ad or .zarr.")
]
Model = Annotated[
    str, typer.Option(help="Name of a model (see `sccello models`) or path of a model folder.")
]
Layer = Annotated[str | None, typer.Option(help="Layer with raw counts, or 'raw.X'; X by default.")]
GeneIds = Annotated[
    str | None,
    typer.Option(help="Column of var with Ensembl IDs or symbols; the index by default."),
]
Counts = Annotated[
    Literal["check", "trust"],
    typer.Option(help="'check' requires integer counts, 'trust' also accepts fractions."),
]
MinMatched = Annotated[
    int, typer.Option(help="Minimum number of genes that must match the vocabulary.")
]
Device = Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda', 'cuda:1', ...")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

TABLES = {".csv": ",", ".tsv": "\t"}
"""Separator of tables by extension."""

_COMMANDS = {
    "tl.annotate_novel": "sccello annotate",
    "tl.annotate": "sccello annotate --reference",
    "tl.embed": "sccello embed",
    "tl.marker_genes": "sccello markers",
    "tl.drug_response": "sccello drug",
    "tl.pretrain": "sccello pretrain",
    "pp.build_corpus": "sccello tokenize",
    "models.list": "sccello models",
}


def run_command(function: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command: an error ends in one message and exit code 1, an interruption in exit code 130, a warning is one line."""
    options = _options(function)

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        def show(message: Warning | str, *_: object, **__: object) -> None:
            typer.echo(f"sccello: {for_the_shell(str(message), options)}", err=True)

        before, warnings.showwarning = warnings.showwarning, show
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("sccello: interrupted", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of standard output was closed, which typer handles
            raise
        except (ScCelloError, OSError, ValueError, MemoryError) as error:
            message = for_the_shell(str(error), options) or type(error).__name__
            typer.echo(f"sccello: {message}", err=True)
            raise typer.Exit(1) from error
        finally:
            warnings.showwarning = before

    return command


def _options(function: Callable[..., None]) -> dict[str, str]:
    """Return the option of each parameter of a command."""
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name in inspect.signature(function).parameters:
        declared = [d for meta in get_args(hints[name])[1:] for d in meta.param_decls or ()]
        long = [d for d in declared if d.startswith("--")]
        found[name] = long[0].partition("/")[0] if long else "--" + name.replace("_", "-")
    return found


def for_the_shell(message: str, options: Mapping[str, str]) -> str:
    """Translate a message of the Python functions: parameters become options, functions become commands.

    Parameters
    ----------
    message
        Message of an exception or warning.
    options
        Option of each parameter of the command; other parameters are not changed.

    Examples
    --------
    >>> from sccello_tools.cli._common import for_the_shell
    >>> for_the_shell("Pass layer='counts', or the column as gene_ids=.", {"layer": "--layer", "gene_ids": "--gene-ids"})
    'Pass --layer counts, or the column as --gene-ids.'
    """
    names = "|".join(sorted(options, key=len, reverse=True))
    value = r"'([^']*)'|\"([^\"]*)\"|(True|None|[\w.-]*\w)?"

    def option(found: re.Match[str]) -> str:
        name, *values = found.groups()
        given = next((v for v in values if v is not None), "")
        if given == "None":
            return f"without {options[name]}"
        if given == "True":
            return options[name]
        # a path after "--" would begin a new word; quotes where the shell needs them
        return f"{options[name]} {shlex.quote(given)}" if given else options[name]

    def call(found: re.Match[str]) -> str:
        name, arguments = found.group(1), found.group(2) or ""
        if name in _COMMANDS:
            return f"`{_COMMANDS[name]}`"
        kept = re.findall(rf"\b(?:{names})=(?:{value})", arguments) if names else []
        if kept and name == "pp.match_genes":  # its arguments are options of every command
            return arguments.partition(",")[2].strip(" ()")
        return f"sccello_tools.{name} in Python"

    message = re.sub(r"\b((?:tl|pp|models|datasets)\.[a-z_]+)(\([^()]*\))?", call, message)
    if names:
        message = re.sub(rf"\b(?:with )?({names})=None\b", r"\1=None", message)
        message = re.sub(rf"\b({names})=(?:{value})", option, message)
        # a parameter without a value, such as "lower min_matched"
        bare = [name for name in options if "_" in name]
        if bare:
            pattern = rf"(?<![\w'\"-])({'|'.join(bare)})(?![\w'\"=])"
            message = re.sub(pattern, lambda m: options[m.group(1)], message)
    return re.sub(r"\badata\.(?=\w)", "", re.sub(r"\badata\b(?![.\w\[(])", "the file", message))


def use_groups(adata: AnnData, key: str, *, option: str) -> None:
    """Check a column of groups; whole numbers, such as those of clusters, become categories.

    Raises
    ------
    GroupError
        If the column does not exist or holds fractions.
    """
    import numpy as np
    import pandas as pd

    from sccello_tools._anndata.columns import obs_column

    if key not in adata.obs:
        shown = listed(adata.obs.columns, at_most=12)
        msg = f"{option}: obs has no column {key!r}. Its columns are: {shown or 'none'}."
        raise GroupError(msg)
    column = obs_column(adata, key)
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return
    values = column.to_numpy(dtype=float, na_value=np.nan)
    groups = np.unique(values[np.isfinite(values)])
    if (groups != np.round(groups)).any():
        msg = f"{option}: obs[{key!r}] holds fractions, not groups. Pass a column of clusters, types or samples."
        raise GroupError(msg)
    names = {group: str(int(group)) for group in groups}
    adata.obs[key] = pd.Categorical([names.get(v) for v in values], list(names.values()))


def expected_size(source: Path) -> int:
    """Return a lower bound of the size in bytes of a copy of the input: a tenth, because copies are compressed."""
    paths = source.rglob("*") if source.is_dir() else [source]
    return sum(path.stat().st_size for path in paths if path.is_file()) // 10


def write_result(adata: AnnData, table: pd.DataFrame, out: Path) -> None:
    """Write a table (.csv, .tsv), or the AnnData that contains it (.h5ad, .zarr)."""
    from sccello_tools._io import write_text
    from sccello_tools.files import write_any

    separator = TABLES.get(out.suffix.lower())
    if separator is None:
        write_any(adata, out)
    else:
        write_text(out, table.to_csv(index=False, sep=separator, float_format="%.6g"))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table on standard output; names of files, cells and genes are not interpreted as markup."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)


def print_json(summary: Mapping[str, Any]) -> None:
    """Print a result as one line of JSON, with null for NaN."""
    typer.echo(json.dumps(_plain(summary), allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - only NaN differs from itself
        return None
    return value
