"""Drug responses joined with the expression of cell lines and the structure of drugs, and their split for validation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools._messages import quoted
from sccello_tools.errors import ConfigError, ResponseError

from .checks import NameMatcher, check_expression, check_responses, clean

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Final

    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike

LINE, DRUG, RESPONSE, SMILES = "cell_line", "drug", "ln_ic50", "smiles"

SplitKind = Literal["pairs", "cell_lines", "drugs", "both"]
SPLITS: Final = ("pairs", "cell_lines", "drugs", "both")


@dataclass(frozen=True)
class JoinReport:
    """Matched and dropped rows of joined tables; ``print`` it for a summary."""

    n_rows: int
    """Number of responses."""
    n_rows_used: int
    """Responses of lines with expression."""
    n_pairs: int
    """Distinct pairs of line and drug among these; repeated measurements are averaged."""
    n_repeated: int
    """Repeated measurements."""
    repeat_std: float
    """Standard deviation of one measurement (ln IC50), estimated from repeated ones."""
    lines_without_expression: tuple[str, ...] = ()
    """Lines with responses only; dropped."""
    lines_without_response: tuple[str, ...] = ()
    """Lines with expression only; dropped."""
    ambiguous_lines: tuple[str, ...] = ()
    """Names of different lines that match the same line of the expression; dropped."""
    drugs_without_smiles: tuple[str, ...] = ()
    """Kept, but only usable with ``drug_encoder="none"``."""

    def __str__(self) -> str:
        text = (
            f"{self.n_rows_used:,} of {self.n_rows:,} responses belong to lines with expression: {self.n_pairs:,} pairs of line and "
            f"drug, {self.n_repeated:,} repeated measurements averaged (standard deviation {self.repeat_std:.2f} ln IC50)"
        )
        for names, what in (
            (self.lines_without_expression, "lines without expression"),
            (self.lines_without_response, "lines without responses"),
            (self.ambiguous_lines, "ambiguous names of lines"),
            (self.drugs_without_smiles, "drugs without SMILES"),
        ):
            if names:
                text += f"; {what}: {len(names):,} ({quoted(names)})"
        return text


@dataclass(frozen=True, eq=False)
class DrugResponseData:
    """Expression, drug responses and structures. Create it with :meth:`join` or :func:`sccello_tools.datasets.gdsc`."""

    expression: pd.DataFrame
    """(n_lines, n_genes) float32, log expression, standardised within each line."""
    ln_ic50: pd.DataFrame
    """(n_lines, n_drugs) float32, natural logarithm of the IC50 in µM; NaN where not measured. Rows as in :attr:`expression`."""
    smiles: pd.Series[str]
    """(n_drugs,) SMILES of each drug, "" if unknown. Rows as the columns of :attr:`ln_ic50`."""
    report: JoinReport | None = field(default=None, repr=False)
    """Matched and dropped rows."""

    @property
    def lines(self) -> list[str]:
        """Names of the cell lines."""
        return [str(name) for name in self.ln_ic50.index]

    @property
    def drugs(self) -> list[str]:
        """Names of the drugs."""
        return [str(name) for name in self.ln_ic50.columns]

    @classmethod
    def join(
        cls,
        expression: pd.DataFrame,
        responses: pd.DataFrame,
        smiles: pd.Series[str],
        *,
        without_expression: Literal["error", "drop"] = "error",
    ) -> DrugResponseData:
        """Join three tables by the names of lines and drugs.

        Names are compared by letters and digits, ignoring case: ``"NCI-H838"`` matches ``"NCIH838"``. Identical names take
        precedence.

        Parameters
        ----------
        expression
            Log expression on any scale (RMA, log TPM, standardised), shape (n_lines, n_genes). Each row is standardised.
        responses
            One row per measurement: columns cell_line, drug, ln_ic50 (natural logarithm, µM).
        smiles
            SMILES by name of drug; may be incomplete.
        without_expression
            Whether responses of lines without expression are an error or are dropped and reported.

        Returns
        -------
        The joined tables, lines and drugs sorted by name.

        Raises
        ------
        ResponseError
            If responses are missing, infinite or not ln µM; expression is missing, infinite or counts; a line has no expression; a
            name is ambiguous; or fewer than two lines remain.

        Examples
        --------
        >>> import pandas as pd
        >>> from sccello_tools.drug import DrugResponseData
        >>> expression = pd.DataFrame([[0.5, 7.0, 3.5], [6.5, 1.0, 4.0]], index=["NCIH838", "A549"], columns=["TP53", "EGFR", "MYC"])
        >>> responses = pd.DataFrame({"cell_line": ["NCI-H838", "A-549"], "drug": "Aspirin", "ln_ic50": [-0.5, 2.0]})
        >>> data = DrugResponseData.join(expression, responses, pd.Series({"aspirin": "CC(=O)Oc1ccccc1C(=O)O"}))
        >>> data.lines, data.drugs
        (['A549', 'NCIH838'], ['Aspirin'])
        """
        if missing := [name for name in (LINE, DRUG, RESPONSE) if name not in responses]:
            msg = f"responses has no column {missing[0]!r} (columns: {list(responses.columns)}). Required: {LINE!r}, {DRUG!r} and {RESPONSE!r}, one row per measurement."
            raise ResponseError(msg)
        values = check_expression(expression)
        measured = check_responses(responses[RESPONSE])
        lines = NameMatcher(values.index, what="cell lines of the expression")
        names = responses[LINE].map(clean)
        found = lines.match(names.unique().tolist())
        absent = tuple(found.absent)
        if absent and without_expression == "error":
            msg = (
                f"{len(absent)} of {names.nunique()} cell lines with responses have no expression: {quoted(absent)}. Add their expression, "
                "drop their responses, or pass without_expression='drop'."
            )
            raise ResponseError(msg)
        table = pd.DataFrame(
            {LINE: names.map(found.names), DRUG: _drug_names(responses[DRUG]), RESPONSE: measured}
        ).dropna(subset=[LINE])
        pairs = table.groupby([LINE, DRUG], sort=True)[RESPONSE]
        matrix = pairs.mean().unstack(DRUG).sort_index().sort_index(axis=1)  # noqa: PD010
        if len(matrix) < 2:
            msg = f"Only {len(matrix)} cell lines have expression and responses; at least 2 are required. Lines of the expression: {quoted(list(values.index))}; of the responses: {quoted(names.unique())}."
            raise ResponseError(msg)
        matrix = matrix.astype(np.float32).rename_axis(index=None, columns=None)
        structures = _smiles_of(list(matrix.columns), smiles)
        report = JoinReport(
            n_rows=len(responses),
            n_rows_used=len(table),
            n_pairs=int(pairs.ngroups),
            n_repeated=len(table) - int(pairs.ngroups),
            repeat_std=_repeat_std(table),
            lines_without_expression=absent,
            lines_without_response=tuple(str(n) for n in values.index if n not in matrix.index),
            ambiguous_lines=tuple(found.ambiguous),
            drugs_without_smiles=tuple(structures.index[structures == ""]),
        )
        return cls(values.loc[matrix.index], matrix, structures, report)

    def select(
        self,
        *,
        lines: Collection[str] | None = None,
        without_lines: Collection[str] = (),
        drugs: Collection[str] | None = None,
    ) -> DrugResponseData:
        """Return a subset of the lines and drugs, by name in any spelling.

        Raises
        ------
        ResponseError
            If a line or drug is unknown.
        """
        kept = self.lines if lines is None else self._named(lines, self.lines, "cell lines")
        out = set(self._named(without_lines, self.lines, "cell lines"))
        rows = [name for name in kept if name not in out]
        columns = self.drugs if drugs is None else self._named(drugs, self.drugs, "drugs")
        return DrugResponseData(
            self.expression.loc[rows],
            self.ln_ic50.loc[rows, columns],
            self.smiles.loc[columns],
            self.report,
        )

    @staticmethod
    def _named(queries: Collection[str], names: list[str], what: str) -> list[str]:
        found = NameMatcher(pd.Index(names), what=what).match([clean(name) for name in queries])
        if unknown := [*found.absent, *found.ambiguous]:
            msg = f"Unknown {what}: {quoted(unknown)}. The data have {len(names)}: {quoted(names)}."
            raise ResponseError(msg)
        return [found.names[clean(name)] for name in queries]


def _drug_names(column: pd.Series[str]) -> pd.Series[str]:
    """Unify the spelling of each drug to its first occurrence."""
    names = column.map(clean)
    first: dict[str, str] = {}
    for name in names.unique():
        first.setdefault(NameMatcher.key(name), name)
    return names.map(lambda name: first[NameMatcher.key(name)])


def _smiles_of(drugs: list[str], smiles: pd.Series[str]) -> pd.Series[str]:
    known = smiles.dropna()
    known = known[known.astype(str).str.strip() != ""]
    found = NameMatcher(pd.Index(known.index.map(clean)), what="drugs with SMILES").match(drugs)
    by_name = {clean(name): str(text).strip() for name, text in known.items()}
    values = [by_name[found.names[drug]] if drug in found.names else "" for drug in drugs]
    return pd.Series(values, index=drugs, dtype=object, name=SMILES)


def _repeat_std(table: pd.DataFrame) -> float:
    """Return the standard deviation of one measurement, pooled over repeated ones."""
    centered = table[RESPONSE] - table.groupby([LINE, DRUG])[RESPONSE].transform("mean")
    n = table.groupby([LINE, DRUG])[RESPONSE].transform("size")
    repeated = n > 1
    degrees = float((1 - 1 / n[repeated]).sum())
    return float(np.sqrt((centered[repeated] ** 2).sum() / degrees)) if degrees else float("nan")


class ResponseSplit(NamedTuple):
    """Disjoint sets of pairs."""

    train: NDArray[np.bool_]
    """(n_lines, n_drugs) training pairs."""
    validation: NDArray[np.bool_]
    """(n_lines, n_drugs) validation pairs."""


def split_responses(
    measured: NDArray[np.bool_], kind: SplitKind, *, validation: float, rng: RNGLike = 0
) -> ResponseSplit:
    """Split measured pairs into training and validation pairs.

    Parameters
    ----------
    measured
        Which pairs have a response, shape (n_lines, n_drugs).
    kind
        ``"pairs"``: random pairs, as published; all lines and drugs occur in training. ``"cell_lines"``: all pairs of some lines.
        ``"drugs"``: all pairs of some drugs. ``"both"``: pairs of validation lines with validation drugs; other pairs of these lines
        and drugs are not used at all.
    validation
        Fraction of pairs, lines, drugs, or of both, in (0, 1).
    rng
        Seed or generator.

    Returns
    -------
    The pairs to train on and those to test on.

    Raises
    ------
    ConfigError
        If ``kind`` is unknown or ``validation`` is not in (0, 1).
    ResponseError
        If there are too few lines, drugs or pairs to split.

    Examples
    --------
    >>> import numpy as np
    >>> from sccello_tools.drug import split_responses
    >>> train, validation = split_responses(np.ones((10, 4), dtype=bool), "cell_lines", validation=0.2)
    >>> int(train.sum()), int(validation.all(axis=1).sum())
    (32, 2)
    """
    if kind not in SPLITS:
        msg = f"split must be one of {', '.join(map(repr, SPLITS))}, or None to train on all pairs, got {kind!r}"
        raise ConfigError(msg)
    if not 0 < validation < 1:
        msg = f"validation must be in (0, 1), got {validation}"
        raise ConfigError(msg)
    generator = np.random.default_rng(rng)
    n_lines, n_drugs = measured.shape
    if kind == "pairs":
        chosen = _draw(int(measured.sum()), validation, generator, "measured pairs")
        held_out = np.zeros_like(measured)
        held_out[measured] = chosen
        return ResponseSplit(measured & ~held_out, held_out)
    lines, drugs = np.zeros(n_lines, bool), np.zeros(n_drugs, bool)
    if kind != "drugs":
        lines = _draw(n_lines, validation, generator, "cell lines")
    if kind != "cell_lines":
        drugs = _draw(n_drugs, validation, generator, "drugs")
    either = lines[:, None] | drugs[None]
    held_out = lines[:, None] & drugs[None] if kind == "both" else either
    split = ResponseSplit(measured & ~either, measured & held_out)
    if not (split.train.any() and split.validation.any()):
        msg = f"split={kind!r} gives {int(split.train.sum())} training and {int(split.validation.sum())} validation pairs of {int(measured.sum())} ({n_lines} lines, {n_drugs} drugs). Change validation or rng, or pass more responses."
        raise ResponseError(msg)
    return split


def _draw(n: int, fraction: float, rng: np.random.Generator, what: str) -> NDArray[np.bool_]:
    if n < 2:
        msg = f"At least 2 {what} are required for validation, got {n}. Pass more responses, or split=None."
        raise ResponseError(msg)
    chosen = np.zeros(n, dtype=bool)
    chosen[rng.permutation(n)[: min(n - 1, max(1, round(fraction * n)))]] = True
    return chosen
