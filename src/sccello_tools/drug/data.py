"""Responses of cell lines to drugs, joined with the expression of the lines and the structure of the drugs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools.errors import ResponseError

from .names import Matcher, clean
from .scales import check_expression, check_responses

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Literal

LINE, DRUG, RESPONSE, SMILES = "cell_line", "drug", "ln_ic50", "smiles"
_MAX_SHOWN = 5


@dataclass(frozen=True)
class JoinReport:
    """What became of the rows of the tables that were joined; printing it says all."""

    n_rows: int
    """Responses as they came."""
    n_rows_used: int
    """Those of a line with expression."""
    n_pairs: int
    """Distinct pairs of line and drug among these; the mean stands for repeated ones."""
    n_repeated: int
    """Rows beyond the first of their pair."""
    repeat_spread: float
    """Root mean square difference between measurements of one pair, over the square root of two: the noise of one of them, ln IC50."""
    lines_without_expression: tuple[str, ...] = ()
    """Lines with responses only; left out."""
    lines_without_response: tuple[str, ...] = ()
    """Lines with expression only; left out."""
    ambiguous_lines: tuple[str, ...] = ()
    """Names of different lines that differ in hyphens or case only, and so fit one line of the expression; left out."""
    drugs_without_smiles: tuple[str, ...] = ()
    """Kept, but no network that reads molecules can learn from them."""

    def __str__(self) -> str:
        text = (
            f"{self.n_rows_used:,} of {self.n_rows:,} responses have a line with expression: {self.n_pairs:,} pairs of line and "
            f"drug; the mean stands for {self.n_repeated:,} repeated measurements, which spread by {self.repeat_spread:.2f} ln IC50"
        )
        for names, what in (
            (self.lines_without_expression, "lines with responses but no expression"),
            (self.lines_without_response, "lines with expression but no response"),
            (self.ambiguous_lines, "names of lines that fit one line of the expression alike"),
            (self.drugs_without_smiles, "drugs without SMILES"),
        ):
            if names:
                text += f"; {what}: {len(names):,} ({_examples(names)})"
        return text


@dataclass(frozen=True, eq=False)
class DrugResponseData:
    """Cell lines, drugs, and how they got on with each other. Make it with :meth:`join` or :func:`sccello_tools.datasets.gdsc`."""

    expression: pd.DataFrame
    """(n_lines, n_genes) float32, rows standardised: log expression of each line, minus its mean, over its standard deviation."""
    ln_ic50: pd.DataFrame
    """(n_lines, n_drugs) float32, natural logarithm of the IC50 in µM; NaN where not measured. Rows as in :attr:`expression`."""
    smiles: pd.Series[str]
    """(n_drugs,) SMILES of each drug, "" where there is none. Rows as the columns of :attr:`ln_ic50`."""
    report: JoinReport | None = field(default=None, repr=False)
    """What became of the rows of the tables."""

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
        without_expression: Literal["error", "leave_out"] = "error",
    ) -> DrugResponseData:
        """Join three tables by the names of lines and drugs.

        Names are compared by their letters and digits, whatever the case: ``"NCI-H838"`` is ``"NCIH838"``. A name that is written
        alike in both tables wins over one that is only alike.

        Parameters
        ----------
        expression
            (n_lines, n_genes) logarithm of expression, on any scale: RMA, log TPM, or standardised. Each row is standardised here.
        responses
            One row a measurement: columns cell_line, drug, ln_ic50 (natural logarithm, µM).
        smiles
            SMILES by name of drug; missing where there is none.
        without_expression
            What to do with responses of lines without expression: refuse them, or leave them out and say so in the report.

        Returns
        -------
        The joined tables, lines and drugs sorted by name, with a report.

        Raises
        ------
        ResponseError
            If responses are missing, infinite or on another scale than ln µM; expression is missing, infinite or made of counts; a
            line lacks expression; a name stands for two rows; or fewer than two lines are left.

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
            msg = f"responses have no column {missing[0]!r} (columns: {list(responses.columns)}). Expected are {LINE!r}, {DRUG!r} and {RESPONSE!r}, one row a measurement."
            raise ResponseError(msg)
        values = check_expression(expression)
        measured = check_responses(responses[RESPONSE])
        lines = Matcher(values.index, what="cell lines of the expression")
        given = responses[LINE].map(clean)
        found = lines.match(given.unique().tolist())
        absent = tuple(found.absent)
        if absent and without_expression == "error":
            msg = (
                f"{len(absent)} of {given.nunique()} cell lines with responses have no expression: {_examples(absent)}. Add their rows to the "
                "expression, take their responses out, or pass without_expression='leave_out' to have them left out and reported."
            )
            raise ResponseError(msg)
        table = pd.DataFrame(
            {LINE: given.map(found.names), DRUG: _drug_names(responses[DRUG]), RESPONSE: measured}
        ).dropna(subset=[LINE])
        pairs = table.groupby([LINE, DRUG], sort=True)[RESPONSE]
        matrix = pairs.mean().unstack(DRUG).sort_index().sort_index(axis=1)  # noqa: PD010
        if len(matrix) < 2:
            msg = f"Only {len(matrix)} cell line has both expression and responses; at least 2 are needed. Lines of the expression: {_examples(list(values.index))}; of the responses: {_examples(given.unique())}."
            raise ResponseError(msg)
        matrix = matrix.astype(np.float32).rename_axis(index=None, columns=None)
        structures = _smiles_of(list(matrix.columns), smiles)
        report = JoinReport(
            n_rows=len(responses),
            n_rows_used=len(table),
            n_pairs=int(pairs.ngroups),
            n_repeated=len(table) - int(pairs.ngroups),
            repeat_spread=_repeat_spread(table),
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
        """Return some of the lines and drugs, named in any way of writing them.

        Raises
        ------
        ResponseError
            If a line or drug is not there.
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
    def _named(wanted: Collection[str], there: list[str], what: str) -> list[str]:
        found = Matcher(pd.Index(there), what=what).match([clean(name) for name in wanted])
        if unknown := [*found.absent, *found.ambiguous]:
            msg = f"The data have no {what} {_examples(unknown)}; there are {len(there)}: {_examples(there)}."
            raise ResponseError(msg)
        return [found.names[clean(name)] for name in wanted]


def _drug_names(given: pd.Series[str]) -> pd.Series[str]:
    """Bring the ways of writing one drug to the one that is met first."""
    names = given.map(clean)
    matcher: dict[str, str] = {}
    for name in names.unique():
        matcher.setdefault(Matcher.key(name), name)
    return names.map(lambda name: matcher[Matcher.key(name)])


def _smiles_of(drugs: list[str], smiles: pd.Series[str]) -> pd.Series[str]:
    there = smiles.dropna()
    there = there[there.astype(str).str.strip() != ""]
    found = Matcher(pd.Index(there.index.map(clean)), what="drugs with SMILES").match(drugs)
    by_name = {clean(name): str(text).strip() for name, text in there.items()}
    values = [by_name[found.names[drug]] if drug in found.names else "" for drug in drugs]
    return pd.Series(values, index=drugs, dtype=object, name=SMILES)


def _repeat_spread(table: pd.DataFrame) -> float:
    """Noise of one measurement, from those that were made again."""
    centred = table[RESPONSE] - table.groupby([LINE, DRUG])[RESPONSE].transform("mean")
    n = table.groupby([LINE, DRUG])[RESPONSE].transform("size")
    again = n > 1
    degrees = float((1 - 1 / n[again]).sum())
    return float(np.sqrt((centred[again] ** 2).sum() / degrees)) if degrees else float("nan")


def _examples(names: Collection[str]) -> str:
    shown = ", ".join(repr(str(name)) for name in list(names)[:_MAX_SHOWN])
    return shown + (", ..." if len(names) > _MAX_SHOWN else "")
