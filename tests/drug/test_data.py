"""Joining by name; invalid input is rejected rather than dropped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sccello_tools.drug import DrugResponseData
from sccello_tools.errors import ResponseError

rng = np.random.default_rng(0)
EXPRESSION = pd.DataFrame(
    rng.normal(7, 2, (4, 6)),
    index=["A549", "NCIH838", "KMH2", "TT"],
    columns=["TP53", "EGFR", "MYC", "KRAS", "BRAF", "ACTB"],
)
SMILES = pd.Series({"Aspirin": "CC(=O)Oc1ccccc1C(=O)O", "ethanol ": "CCO"})


def responses(*rows):
    return pd.DataFrame(rows, columns=["cell_line", "drug", "ln_ic50"])


GOOD = responses(
    ("A-549", "aspirin", -1.0), ("NCI-H838", "aspirin", 2.0), ("A-549", "Ethanol", 5.0)
)


def join(table=GOOD, expression=EXPRESSION, **options):
    return DrugResponseData.join(expression, table, SMILES, **options)


def test_names_join_by_letters_and_digits():
    data = join()
    assert data.lines == ["A549", "NCIH838"]
    assert data.smiles.to_dict() == {"Ethanol": "CCO", "aspirin": SMILES["Aspirin"]}
    assert data.ln_ic50.loc["NCIH838", "aspirin"] == 2.0
    assert np.isnan(data.ln_ic50.loc["NCIH838", "Ethanol"])
    assert data.report.lines_without_response == ("KMH2", "TT")


def test_rows_are_standardised_within_the_line():
    data = join()
    np.testing.assert_allclose(data.expression.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(data.expression.std(axis=1, ddof=0), 1, rtol=1e-5)
    again = join(expression=EXPRESSION * 3 + 5)
    pd.testing.assert_frame_equal(data.expression, again.expression, rtol=1e-5)


def test_repeated_measurements_are_averaged_and_counted():
    data = join(pd.concat([GOOD, responses(("A-549 ", "ASPIRIN", 3.0))], ignore_index=True))
    assert data.ln_ic50.loc["A549", "aspirin"] == 1.0
    assert data.report.n_repeated == 1
    assert data.report.repeat_std == pytest.approx(np.sqrt(8))
    assert "repeated" in str(data.report)


def test_ambiguous_lines_are_dropped_and_reported():
    rows = responses(
        ("KM-H2", "aspirin", 1.0),
        ("KMH-2", "aspirin", 4.0),
        ("TT", "aspirin", 0.0),
        ("T-T", "aspirin", 9.0),
    )
    data = join(pd.concat([GOOD, rows], ignore_index=True))
    assert data.report.ambiguous_lines == ("KM-H2", "KMH-2", "T-T")
    assert "KMH2" not in data.lines
    assert data.ln_ic50.loc["TT", "aspirin"] == 0.0  # identical name


def test_a_line_without_expression_is_an_error_or_dropped():
    rows = pd.concat([GOOD, responses(("HeLa", "aspirin", 1.0))], ignore_index=True)
    with pytest.raises(ResponseError, match=r"have no expression: 'HeLa'.*without_expression"):
        join(rows)
    data = join(rows, without_expression="drop")
    assert data.report.lines_without_expression == ("HeLa",)
    assert "HeLa" in str(data.report)


def test_fewer_than_two_lines_are_refused():
    with pytest.raises(ResponseError, match=r"1 cell lines.*at least 2"):
        join(GOOD.iloc[[0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, None, "n.d."])
def test_missing_responses_are_refused(bad):
    rows = GOOD.astype({"ln_ic50": object})
    rows.loc[1, "ln_ic50"] = bad
    with pytest.raises(ResponseError, match=r"1 of 3 responses.*rows \[1\].*dropna"):
        join(rows)


def test_micromolar_in_place_of_its_logarithm_is_refused():
    lines = [f"L{i}" for i in range(30)]
    expression = pd.DataFrame(rng.normal(size=(30, 6)), index=lines, columns=EXPRESSION.columns)
    ln = rng.normal(1, 2.5, 30)
    good = pd.DataFrame({"cell_line": lines, "drug": "aspirin", "ln_ic50": ln})
    assert len(join(good, expression).lines) == 30
    with pytest.raises(ResponseError, match=r"np\.log\(ic50\)"):
        join(good.assign(ln_ic50=np.exp(ln)), expression)
    with pytest.raises(
        ResponseError, match=r"np\.log\(ic50\)"
    ):  # all below 20 µM: recognised by the ratio of quantiles
        join(good.assign(ln_ic50=np.minimum(np.exp(ln), 19)), expression)
    with pytest.raises(ResponseError, match="impossible for logarithms"):
        join(good.assign(ln_ic50=ln - 50), expression)


def test_weak_drugs_whose_logarithms_are_all_positive_pass():
    lines = [f"L{i}" for i in range(30)]
    expression = pd.DataFrame(rng.normal(size=(30, 6)), index=lines, columns=EXPRESSION.columns)
    weak = pd.DataFrame({"cell_line": lines, "drug": "aspirin", "ln_ic50": np.linspace(2.5, 7, 30)})
    assert len(join(weak, expression).lines) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.mask(e == e.iloc[0, 0]), "missing or infinite"),
        (lambda e: e.round().abs(), "counts"),
        (lambda e: e.set_axis(["A549", "A-549", "x", "y"]), "A549.*A-549"),
        (lambda e: e * 0 + 0.5, "constant"),
        (lambda e: e.astype(object).mask(e == e.iloc[0, 0], "high"), "not numbers"),
    ],
)
def test_bad_expression_is_refused(change, message):
    with pytest.raises(ResponseError, match=message):
        join(expression=change(EXPRESSION))


def test_a_missing_column_is_named():
    with pytest.raises(ResponseError, match="no column 'ln_ic50'"):
        join(GOOD.rename(columns={"ln_ic50": "IC50"}))


def test_lines_and_drugs_are_selected_in_any_spelling():
    data = join()
    assert data.select(lines=["nci-h838"]).lines == ["NCIH838"]
    assert data.select(without_lines=["A 549"]).lines == ["NCIH838"]
    assert data.select(drugs=["ETHANOL"]).drugs == ["Ethanol"]
    with pytest.raises(ResponseError, match="cell lines: 'HeLa'"):
        data.select(without_lines=["HeLa"])
