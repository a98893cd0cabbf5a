"""Warnings point to the code that called the package."""

from __future__ import annotations

import pytest

from sccello_tools._anndata.counts import warn_user


def test_warnings_reach_code_without_a_module_name():
    with pytest.warns(UserWarning, match="careful"):
        exec("warn('careful')", {"warn": warn_user, "__builtins__": {}})
