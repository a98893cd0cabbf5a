"""`pl.drug_response` shows what was predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import sccello_tools as sccello
from sccello_tools.errors import ArgumentError, DrugError, NotFoundError

KEY = "sccello_drug_response"
rng = np.random.default_rng(0)


@pytest.fixture
def cells_with_drugs():
    """Predictions of two drugs for 80 cells, one of them missing."""
    adata = AnnData(np.zeros((80, 3), np.float32))
    values = rng.normal(2, 1, (80, 2)).astype(np.float32)
    values[5] = np.nan
    for key, table in ((KEY, values), (f"{KEY}_std", np.abs(values))):
        adata.obsm[key] = pd.DataFrame(table, index=adata.obs_names, columns=["x", "y"])
    adata.obs["kind"] = pd.Categorical(["one", "two"] * 40)
    return adata


@pytest.fixture
def table():
    truth = rng.normal(2, 2, 120)
    return pd.DataFrame(
        {
            "cell_line": [f"line {i % 30}" for i in range(120)],
            "drug": [f"drug {i // 30}" for i in range(120)],
            "measured": truth,
            "predicted": truth + rng.normal(0, 1, 120),
            "std": 0.2,
        }
    )


def test_the_heat_map_shows_differences_of_the_drugs_that_differ_most(grouped):
    figure = sccello.pl.drug_response(grouped, n_drugs=5, show=False)
    ax = figure.axes[0]
    shown = [label.get_text() for label in ax.get_yticklabels()]
    values = pd.DataFrame(
        grouped.uns[KEY]["ln_ic50"], index=list("abcd"), columns=grouped.uns[KEY]["drugs"]
    )
    assert set(shown) == set(values.std().nlargest(5).index)
    columns = [label.get_text() for label in ax.get_xticklabels()]
    expected = (values - values.mean())[shown].T[columns]
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), expected, rtol=1e-5)


def test_the_waterfall_begins_with_the_most_sensitive(grouped):
    figure = sccello.pl.drug_response(grouped, "DRUG 3", show=False)
    values = pd.Series(grouped.uns[KEY]["ln_ic50"][:, 3], index=list("abcd")).sort_values()
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == values.index.tolist()
    ends = [p.get_y() + p.get_height() for p in ax.patches]
    np.testing.assert_allclose(ends, values, rtol=1e-5)


def test_the_waterfall_of_cells_leaves_out_those_without_an_answer(cells_with_drugs):
    figure = sccello.pl.drug_response(cells_with_drugs, "x", color="kind", show=False)
    ax = figure.axes[0]
    assert len(ax.patches) == 79
    assert "79 cells" in ax.get_xlabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


def test_predicted_against_measured_shows_its_score(table):
    figure = sccello.pl.drug_response(table, show=False)
    ax = figure.axes[0]
    r = np.corrcoef(table["measured"], table["predicted"])[0, 1]
    assert f"Pearson r = {r:.3f}" in ax.texts[0].get_text()
    assert len(ax.collections[0].get_offsets()) == 120
    one = sccello.pl.drug_response(table, "Drug 2", show=False).axes[0]
    assert one.get_title() == "drug 2"
    assert len(one.collections[0].get_offsets()) == 30


def test_many_pairs_become_a_density(table):
    many = pd.concat([table] * 40, ignore_index=True)
    figure = sccello.pl.drug_response(many, show=False)
    assert "pairs" in [ax.get_ylabel() for ax in figure.axes]


def test_names_of_drugs_in_any_case_unless_ambiguous(cells_with_drugs):
    for key in (KEY, f"{KEY}_std"):
        table = cells_with_drugs.obsm[key]
        cells_with_drugs.obsm[key] = table.set_axis(["AbC", "aBc"], axis=1)
    draw = sccello.pl.drug_response
    assert draw(cells_with_drugs, "AbC", show=False).axes[0].get_title() == "AbC"
    with pytest.raises(DrugError, match=r"'abc'.*'AbC', 'aBc'"):
        draw(cells_with_drugs, "abc", show=False)


def test_what_cannot_be_drawn(grouped, cells_with_drugs, table):
    draw = sccello.pl.drug_response
    for source in (cells_with_drugs, table):
        with pytest.raises(DrugError, match="'z'"):
            draw(source, "z", show=False)
    with pytest.raises(DrugError, match=r"needs a drug.*'x', 'y'"):
        draw(cells_with_drugs, kind="waterfall", show=False)
    with pytest.raises(NotFoundError, match=r"tl\.drug_response"):
        draw(AnnData(np.zeros((2, 2))), "x", show=False)
    with pytest.raises(NotFoundError, match="groupby"):
        draw(cells_with_drugs, show=False)
    with pytest.raises(NotFoundError, match=r"'colour'.*'kind'.*color="):
        draw(cells_with_drugs, "x", color="colour", show=False)
    with pytest.raises(NotFoundError, match=r"'measured'.*validation"):
        draw(table.drop(columns="measured"), show=False)
    with pytest.raises(ArgumentError, match="'pie'"):
        draw(cells_with_drugs, kind="pie", show=False)
    with pytest.raises(ArgumentError, match="validation"):
        draw(cells_with_drugs, kind="measured", show=False)
    with pytest.raises(ArgumentError, match="'heatmap'"):
        draw(table, kind="heatmap", show=False)
    grouped.obs["kind"] = "one"
    with pytest.raises(ArgumentError, match="without groupby"):
        draw(grouped, "drug 0", color="kind", show=False)
