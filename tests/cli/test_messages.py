from __future__ import annotations

import pytest

from sccello_tools.cli._messages import for_the_shell


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Pass layer='counts'.", "Pass --layer counts."),
        ('Name the column in gene_ids="symbol".', "Name the column in --gene-ids symbol."),
        ("Name a column in label_key=, please.", "Name a column in --label-key, please."),
        ("Use overwrite=True to replace it.", "Use --overwrite to replace it."),
        ("my_layer='x' and n=3 stay", "my_layer='x' and n=3 stay"),
        ("nothing to say", "nothing to say"),
    ],
)
def test_parameters_become_options(said, shown):
    assert for_the_shell(said) == shown
