"""`pl.training`: what it draws, from which sources, and its errors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from sccello_tools import pl
from sccello_tools.errors import ArgumentError, FileFormatError, ModelNotFoundError


@pytest.fixture
def short_curve():
    step = np.arange(1, 101)
    return pd.DataFrame(
        {
            "step": step,
            "seconds": step * 2.0,
            "cells": 48,
            "loss": 100.0 / step,
            "regularization": 1.0 / step,
            "masked_gene": 50.0 / step,
            "gene_accuracy": step / 100,
            "val_gene_accuracy": np.where(step % 25 == 0, step / 200, np.nan),
        }
    )


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_losses_and_scores_have_panels_of_their_own(short_curve):
    figure = pl.training(short_curve, smooth=1, show=False)
    shown = {ax.get_title(loc="left"): set(lines(ax)) for ax in figure.axes}
    assert shown == {
        "Loss": {"loss"},
        "Loss components": {"regularization", "masked gene"},
        "Scores": {"gene accuracy", "val gene accuracy"},
    }
    np.testing.assert_array_equal(lines(figure.axes[0])["loss"].get_ydata(), short_curve["loss"])


def test_held_out_scores_are_dashed_in_the_colour_of_their_training_score(short_curve):
    drawn = lines(pl.training(short_curve, show=False).axes[2])
    train, held_out = drawn["gene accuracy"], drawn["val gene accuracy"]
    assert (train.get_linestyle(), held_out.get_linestyle()) == ("-", "--")
    assert train.get_color() == held_out.get_color()
    # scored four times: drawn as they are, never smoothed
    np.testing.assert_allclose(held_out.get_ydata(), [0.125, 0.25, 0.375, 0.5])


def test_the_running_mean_keeps_a_straight_line_and_the_axis_is_chosen(short_curve):
    line = lines(pl.training(short_curve, x="seconds", smooth=11, show=False).axes[2])[
        "gene accuracy"
    ]
    np.testing.assert_array_equal(line.get_xdata(), short_curve["seconds"])
    np.testing.assert_allclose(line.get_ydata()[5:-5], short_curve["gene_accuracy"][5:-5])


def test_a_folder_a_file_a_loaded_model_and_a_name_are_found(short_curve, tmp_path):
    short_curve.to_csv(tmp_path / "training_curve.csv", index=False)
    for what in (
        tmp_path,
        str(tmp_path),
        tmp_path / "training_curve.csv",
        SimpleNamespace(folder=tmp_path),
    ):
        assert len(pl.training(what, show=False).axes) == 3
    named = pl.training("sccello-small", show=False)
    assert "masked gene" in lines(named.axes[1])


def test_what_cannot_be_drawn(short_curve, tmp_path):
    with pytest.raises(FileFormatError, match=r"training_curve\.csv not found"):
        pl.training(tmp_path, show=False)
    (tmp_path / "training_curve.csv").write_text("")
    with pytest.raises(FileFormatError, match=r"training_curve\.csv"):
        pl.training(tmp_path, show=False)
    with pytest.raises(ModelNotFoundError, match="'sccello-smal'"):
        pl.training("sccello-smal", show=False)
    with pytest.raises(ArgumentError, match=r"'epoch'.*'step'.*x="):
        pl.training(short_curve, x="epoch", show=False)
    with pytest.raises(ArgumentError, match=r"smooth.*0"):
        pl.training(short_curve, smooth=0, show=False)
    with pytest.raises(FileFormatError, match="'step', 'seconds'"):
        pl.training(short_curve[["step", "seconds"]], show=False)
    assert plt.get_fignums() == []
