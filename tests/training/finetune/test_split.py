from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccello_tools.errors import GroupError
from sccello_tools.training.finetune.data import hold_out


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=60), st.floats(0.05, 0.9), st.integers(0, 5)
)
def test_fraction_of_each_label_is_held_out(labels, share, seed):
    _, codes = np.unique(labels, return_inverse=True)
    split = hold_out(codes, validation=share, seed=seed)
    assert sorted([*split.train, *split.validation]) == list(range(len(codes)))
    assert set(codes[split.train]) == set(codes)
    counts = np.bincount(codes)
    assert set(codes[split.validation]) == set(np.flatnonzero(counts > 1))
    assert split.groups == ()


@given(st.integers(2, 8), st.integers(0, 20))
def test_whole_donors_are_held_out_and_all_labels_remain(n_donors, seed):
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(n_donors), rng.integers(3, 30, n_donors))
    codes = np.concatenate([np.arange(n) % 3 for n in np.bincount(member)])
    donors = np.array([f"d{m}" for m in member])
    split = hold_out(codes, validation=0.3, groups=donors, seed=seed)
    assert 1 <= len(split.groups) < n_donors
    assert set(donors[split.validation]) == set(split.groups)
    assert set(donors[split.train]).isdisjoint(split.groups)
    assert set(codes[split.train]) == {0, 1, 2}


def test_fraction_in_whole_donors_is_approximate():
    codes = np.tile([0, 1], 500)
    donors = np.repeat([f"d{i}" for i in range(20)], 50)
    for share in (0.1, 0.25, 0.5):
        split = hold_out(codes, validation=share, groups=donors)
        assert abs(len(split.validation) / 1000 - share) <= 0.05


def test_donor_with_a_unique_label_is_not_held_out():
    codes = np.array([0, 1, 0, 1, 0, 1, 2, 2])
    donors = np.array(["a", "a", "b", "b", "c", "c", "c", "c"])
    for seed in range(10):
        assert "c" not in hold_out(codes, validation=0.4, groups=donors, seed=seed).groups


def test_held_out_donors_cover_many_labels():
    # a and b hold one label each, c holds both; sizes would favour a or b
    codes = np.array([0] * 4 + [1] * 4 + [0, 1] * 3)
    donors = np.array(["a"] * 4 + ["b"] * 4 + ["c"] * 6)
    for seed in range(5):
        split = hold_out(codes, validation=0.3, groups=donors, seed=seed)
        assert set(codes[split.validation]) == {0, 1}


def test_seed_determines_the_result():
    codes, donors = np.tile([0, 1], 50), np.repeat(list("abcdefghij"), 10)
    chosen = [
        hold_out(codes, validation=0.2, groups=donors, seed=s).groups for s in (0, 0, *range(1, 9))
    ]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1


def test_donors_that_cannot_be_held_out():
    with pytest.raises(GroupError, match=r"one batch \('a'\).*Omit batch_key"):
        hold_out(np.array([0, 1]), validation=0.2, groups=np.array(["a", "a"]))
    with pytest.raises(GroupError, match=r"each of the 2 .* \(such as 'T', 'B'\)"):
        hold_out(
            np.array([0, 0, 1, 1]),
            validation=0.2,
            groups=np.array(["a", "a", "b", "b"]),
            labels=["T", "B"],
        )
