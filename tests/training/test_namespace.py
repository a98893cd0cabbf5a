from __future__ import annotations

import subprocess
import sys

import pytest

import sccello_tools as sccello


def test_configurations_need_no_heavy_imports():
    code = (
        "import sys, sccello_tools as sccello\n"
        "sccello.training.PretrainConfig.published()\n"
        "sccello.training.FinetuneConfig()\n"
        "print(sorted({'torch', 'lightning', 'anndata', 'scanpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_found():
    for name in sccello.training.__all__:
        assert getattr(sccello.training, name).__name__ == name
    assert callable(sccello.training.pretrain.fit)
    with pytest.raises(AttributeError, match="nowhere"):
        _ = sccello.training.pretrain.nowhere
