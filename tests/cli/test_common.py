"""Messages in the vocabulary of the command line, groups, JSON, and options that equal the arguments of the functions."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import sccello_tools as sccello
from sccello_tools.cli import _annotate, _drug, _embed, _markers, _perturb, _report
from sccello_tools.cli._common import _options, for_the_shell, print_json, use_groups
from sccello_tools.errors import GroupError

OPTIONS = {
    "layer": "--layer",
    "gene_ids": "--gene-ids",
    "counts": "--counts",
    "min_matched": "--min-matched",
    "label_key": "--label-key",
    "device": "--device",
    "overwrite": "--overwrite",
    "n_cells_per_group": "--cells",
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Pass layer='counts'.", "Pass --layer counts."),
        ("Pass layer='raw counts'.", "Pass --layer 'raw counts'."),
        ("Pass the column as gene_ids=, please.", "Pass the column as --gene-ids, please."),
        ('Pass counts="trust".', "Pass --counts trust."),
        ("Pass overwrite=True, or another name.", "Pass --overwrite, or another name."),
        ("available with layer=None (adata.X) or layer='raw.X' (adata.raw.X).", "available without --layer (X) or --layer raw.X (raw.X)."),
        ("and min_matched=500 are required", "and --min-matched 500 are required"),
        ("Lower min_matched.", "Lower --min-matched."),
        ("n_cells_per_group must be >= 2", "--cells must be >= 2"),
        ("see pp.match_genes(adata, gene_ids='that column').", "see --gene-ids 'that column'."),
        ("Call tl.embed(adata) first.", "Call `sccello embed` first."),
        ("See models.list().", "See `sccello models`."),
        ("Create it with tl.calibrate(adata, label_key, model=...).", "Create it with sccello_tools.tl.calibrate in Python."),
        ("adata.obs['my_layer'] has no column; adata has 3 cells", "obs['my_layer'] has no column; the file has 3 cells"),
        ("use_rep='x' and the layer are unknown here", "use_rep='x' and the layer are unknown here"),
        ("nothing to translate", "nothing to translate"),
    ],
)  # fmt: skip
def test_messages_are_translated(message, expected):
    assert for_the_shell(message, OPTIONS) == expected


def test_no_message_of_the_package_is_half_translated():
    """Messages of the package with arguments that are options: nothing of Python remains of them."""
    source = Path(sccello.__file__).parent
    options = _options(_annotate.annotate)
    literals = [
        text
        for folder in ("_anndata", "tokens", "files")
        for path in (source / folder).rglob("*.py")
        for text in re.findall(r"f?\"([^\"\n]*)\"", path.read_text())
        if re.search(rf"\b({'|'.join(options)})=", text)
    ]
    assert len(literals) > 5
    for text in literals:
        shown = for_the_shell(text, options)
        assert not re.search(rf"(?<![-\w])({'|'.join(options)})=", shown), shown
        assert "adata" not in shown, shown


COMMANDS = {
    _embed.embed: (sccello.tl.embed,),
    _annotate.annotate: (sccello.tl.annotate_novel, sccello.tl.annotate),
    _markers.markers: (sccello.tl.marker_genes,),
    _perturb.perturb: (sccello.tl.perturb,),
    _drug.drug: (sccello.tl.drug_response,),
    _report.report: (sccello.tl.annotate_novel,),
}
SHARED = ("layer", "gene_ids", "counts", "min_matched", "model", "device")


@pytest.mark.parametrize("command", list(COMMANDS), ids=lambda c: c.__name__)
def test_commands_have_the_arguments_and_defaults_of_their_functions(command):
    own = inspect.signature(command).parameters
    assert not [name for name in SHARED if name not in own]
    for function in COMMANDS[command]:
        theirs = inspect.signature(function).parameters
        for name, parameter in own.items():
            if name in theirs and parameter.default is not inspect.Parameter.empty:
                # None leaves the default to the function
                assert parameter.default in (theirs[name].default, None), (command, name)


def obs_of(values):
    adata = anndata.AnnData(np.zeros((len(values), 1), dtype=np.float32))
    adata.obs["g"] = values
    return adata


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([10, 2, 2]), ["10", "2", "2"]),
        (np.array([0.0, 1.0, np.nan]), ["0", "1", None]),
        (pd.array([3, None, 1], dtype="Int64"), ["3", None, "1"]),
    ],
)
def test_whole_numbers_become_groups(values, expected):
    adata = obs_of(values)
    use_groups(adata, "g", option="--groupby")
    column = adata.obs["g"]
    assert isinstance(column.dtype, pd.CategoricalDtype)
    assert [None if pd.isna(v) else v for v in column] == expected
    # in numerical order, 2 before 10
    assert list(column.cat.categories) == sorted(filter(None, set(expected)), key=int)


@pytest.mark.parametrize("values", [["a", "b"], pd.Categorical([1, 2]), [True, False]])
def test_other_groups_stay_as_they_are(values):
    adata = obs_of(values)
    before = adata.obs["g"].copy()
    use_groups(adata, "g", option="--groupby")
    pd.testing.assert_series_equal(adata.obs["g"], before)


def test_columns_that_are_not_groups():
    with pytest.raises(GroupError, match=r"--groupby.*'g'.*fractions"):
        use_groups(obs_of([0.5, 1.0]), "g", option="--groupby")
    with pytest.raises(GroupError, match=r"--label-key.*'leiden'.*columns are: g"):
        use_groups(obs_of(["a", "b"]), "leiden", option="--label-key")


def test_json_has_null_for_nan(capsys):
    print_json({"a": float("nan"), 1: [float("nan"), (2, "x")]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "1": [None, [2, "x"]]}
