from __future__ import annotations

import importlib.util
import time
from importlib import import_module
from pathlib import Path

import pytest

from sccello_tools import settings

_SPEC = importlib.util.spec_from_file_location(
    "hub_server", Path(__file__).parent / "hub_server.py"
)
hub_server = importlib.util.module_from_spec(_SPEC)
import_module("sys").modules["hub_server"] = hub_server  # dataclasses look it up
_SPEC.loader.exec_module(hub_server)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Empty caches for each test, and no settings of the environment."""
    from huggingface_hub import constants

    monkeypatch.setattr(settings, "cache_dir", tmp_path / "cache")
    monkeypatch.setattr(settings, "offline", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _isolated(cache):
    import_module("sccello_tools.models.load")._encoders.clear()


@pytest.fixture
def hub(cache, monkeypatch):
    """A local stand-in for the Hugging Face Hub, with short pauses. Time-outs exceed the delays of a busy machine."""
    from huggingface_hub import constants

    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 60)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hub_server.serve() as state:
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        yield state


@pytest.fixture(scope="session")
def tiny_network():
    import torch

    from sccello_tools.nn import EncoderConfig, ScCelloModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = EncoderConfig(hidden_size=8, n_layers=1, n_heads=2, intermediate_size=16)
        return ScCelloModel(config)


@pytest.fixture(scope="session")
def tiny_files(tiny_network, tmp_path_factory):
    """The files of a small model with two cell types, by name."""
    import pandas as pd

    from sccello_tools.models import save

    labels = pd.DataFrame(
        {
            "cell_type_ontology_term_id": ["CL:0000084", "CL:0000236"],
            "cell_type": ["T cell", "B cell"],
        }
    )
    metadata = {"name": "tiny", "licence": "MIT", "ontology_release": "2026-03-26"}
    folder = save(tiny_network, tmp_path_factory.mktemp("tiny"), labels=labels, metadata=metadata)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def published_files(tiny_network):
    """The files of a small model in the published format."""
    import io
    import json

    import torch

    from sccello_tools.nn.checkpoint import to_published

    size = tiny_network.config
    config = {
        "architectures": ["PrototypeContrastiveForMaskedLM"],
        "vocab_size": size.vocab_size,
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.n_layers,
        "num_attention_heads": size.n_heads,
        "intermediate_size": size.intermediate_size,
        "model_type": "bert",
    }
    weights = io.BytesIO()
    torch.save(to_published(tiny_network.state_dict(), size), weights)
    return {"config.json": json.dumps(config).encode(), "pytorch_model.bin": weights.getvalue()}
