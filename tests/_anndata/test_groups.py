"""Samples of groups depend on the name and the cells of a group only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sccello_tools._anndata.groups import group_labels, sample_cells
from sccello_tools.errors import ArgumentError, GroupError


def sampled(adata, **options) -> dict[str, list[int]]:
    sample = sample_cells(adata, "group", **{"n_per_group": 4, "seed": 0, **options})
    return {
        name: sample.rows[sample.group == code].tolist() for code, name in enumerate(sample.names)
    }


@pytest.fixture
def grouped(adata):
    adata.obs["group"] = pd.Categorical(["1", "2", "10"] * 10)
    return adata


def test_order_of_categories_and_unused_ones(grouped):
    expected = sampled(grouped)
    grouped.obs["group"] = pd.Categorical(
        grouped.obs["group"], categories=["10", "unused", "2", "1"]
    )
    assert sampled(grouped) == expected


def test_names_that_are_numbers(grouped):
    expected = sampled(grouped)
    grouped.obs["group"] = pd.Categorical([1, 2, 10] * 10)
    assert sampled(grouped) == expected


def test_other_groups(grouped):
    expected = sampled(grouped)
    values = np.asarray(grouped.obs["group"], dtype=object)
    values[values == "10"] = "new"
    values[1] = "another"
    values[4] = "another"
    grouped.obs["group"] = values
    assert sampled(grouped)["1"] == expected["1"]


def test_the_empty_name_is_a_group(grouped):
    grouped.obs["group"] = ["", "b", "c"] * 10
    assert sorted(sampled(grouped)) == ["", "b", "c"]


def test_seed(grouped):
    assert sampled(grouped, seed=1) != sampled(grouped, seed=2)


def test_errors(grouped):
    with pytest.raises(ArgumentError, match=r"n_cells_per_group.*got 1"):
        sampled(grouped, n_per_group=1)
    grouped.obs["number"] = np.arange(30) % 3
    with pytest.raises(GroupError, match=r"'number'.*astype\('category'\)") as raised:
        group_labels(grouped, "number")
    assert "astype(str)" not in str(raised.value)
    grouped.obs["gaps"] = ["a", "b", None] * 10
    with pytest.raises(GroupError, match=r"10 of 30.*notna"):
        group_labels(grouped, "gaps")
