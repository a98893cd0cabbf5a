"""No pair, line or drug of the validation set is in training."""

from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.drug import split_responses
from sccello_tools.errors import ConfigError, ResponseError

MEASURED = np.random.default_rng(0).random((40, 25)) < 0.8


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["pairs", "cell_lines", "drugs", "both"])
def test_train_and_test_do_not_meet(kind, seed):
    train, test = split_responses(MEASURED, kind, validation=0.2, rng=seed)
    assert not (train & test).any()
    assert not ((train | test) & ~MEASURED).any()
    if kind == "pairs":
        assert (train | test).sum() == MEASURED.sum()
        assert test.sum() == round(0.2 * MEASURED.sum())
    if kind in {"cell_lines", "both"}:
        assert test.any(axis=1).sum() == 8
        assert not (train.any(axis=1) & test.any(axis=1)).any()
    if kind in {"drugs", "both"}:
        assert test.any(axis=0).sum() == 5
        assert not (train.any(axis=0) & test.any(axis=0)).any()


def test_the_seed_decides():
    a, b = (
        split_responses(MEASURED, "cell_lines", validation=0.2, rng=s).validation for s in (0, 1)
    )
    assert (a != b).any()
    again = split_responses(MEASURED, "cell_lines", validation=0.2, rng=0).validation
    np.testing.assert_array_equal(a, again)


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ConfigError, match=r"split must be one of.*'rows'"):
        split_responses(MEASURED, "rows", validation=0.2, rng=0)
    with pytest.raises(ConfigError, match=r"validation must be in \(0, 1\), got 1"):
        split_responses(MEASURED, "pairs", validation=1, rng=0)
    with pytest.raises(ResponseError, match="drugs"):
        split_responses(MEASURED[:, :1], "drugs", validation=0.2, rng=0)
