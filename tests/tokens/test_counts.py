"""Detection of values that are not raw counts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sccello_tools.errors import NotCountsError
from sccello_tools.tokens import ValueSummary, looks_like_counts

COUNTS = np.array([0, 1, 2, 0, 30, 7], dtype=np.float32)


def complaint(values, policy="check") -> str:
    summary = ValueSummary()
    summary.add(np.asarray(values))
    return summary.complaint(policy)


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.float32, np.float64, np.longdouble, ">f4", np.int8, np.uint16, np.int64],
)
def test_counts_of_every_type_pass(dtype):
    assert complaint(COUNTS.astype(dtype)) == ""
    assert looks_like_counts(COUNTS.astype(dtype)[None])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1, np.nan, np.nan], "2 values are NaN"),
        ([1, np.inf, -np.inf], "2 values are infinite"),
        ([1.5, -0.5, -2], "2 values are negative, as after scaling or regression"),
        (np.array([3, -1], dtype=np.int32), "1 values are negative"),
        ([0, 1, 0.6931, 2.5], "2 of 3 non-zero values are fractions (maximum 2.5), as after log1p"),
        ([0.5, 1200.25], "fractions (maximum 1200), as after normalisation, denoising"),
        (np.array([True, False]), "boolean"),
    ],
)
@pytest.mark.parametrize("dtype", [None, np.float32, np.float16])
def test_complaints(values, text, dtype):
    values = np.asarray(values)
    assert text in complaint(values.astype(dtype) if values.dtype.kind == "f" else values)


def test_the_worst_is_named_first():
    summary = ValueSummary()
    summary.add(np.array([0.5]))
    assert "fractions" in summary.complaint()
    summary.add(np.array([-1.0]))
    assert "negative" in summary.complaint()
    summary.add(np.array([np.nan]))
    assert "NaN" in summary.complaint()


@pytest.mark.parametrize("values", [[0.5, 2], [True, False], [1, 2]])
def test_trust_lets_fractions_pass(values):
    assert complaint(values, "trust") == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_trust_does_not_let_pass_what_has_no_rank(value):
    assert complaint([1.0, value], "trust") != ""


def test_summary_adds_up_over_blocks_and_threads():
    values = np.zeros(3_000_001, dtype=np.float32)
    values[::1000] = 1
    values[[7, 1_500_000, 3_000_000]] = [0.5, 4096, 2.5]
    summary = ValueSummary()
    summary.add(values)
    summary.add(np.array([9], dtype=np.uint8))
    assert summary.n_fractional == 2
    assert summary.n_positive == 3001 + 1 + 1  # the last fraction took the place of a one
    assert summary.largest == 4096


@pytest.mark.parametrize("values", [["a"], [1 + 1j], [None]])
def test_no_numbers(values):
    with pytest.raises(NotCountsError, match=r"values of type .*must be numbers"):
        complaint(values)


@pytest.mark.parametrize(
    "make", [np.asarray, sparse.csr_array, sparse.csc_matrix, sparse.lil_array]
)
def test_a_first_look(make):
    assert looks_like_counts(make(np.eye(4)))
    assert not looks_like_counts(make(np.eye(4) / 2))
    assert not looks_like_counts(make(np.zeros((4, 4))))
    assert not looks_like_counts(make(-np.eye(4)))
    assert not looks_like_counts(make(np.eye(4) > 0))


def test_a_first_look_at_what_holds_no_numbers():
    assert not looks_like_counts(np.array([["a", "b"]]))


def test_a_first_look_takes_only_the_first_rows():
    x = np.ones((600, 2))
    x[599] = 0.5
    assert looks_like_counts(x)
    assert not looks_like_counts(x, n_rows=600)


def test_a_first_look_at_a_dask_array():
    da = pytest.importorskip("dask.array")
    assert looks_like_counts(da.ones((600, 3), chunks=(100, 3)))
    halves = da.full((600, 3), 0.5, chunks=(100, 3)).map_blocks(sparse.csr_matrix)
    assert not looks_like_counts(halves)
