"""Shared fixtures."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from scipy import sparse

import sccello_tools
from sccello_tools.tokens import GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

N_CELLS, N_GENES = 30, 900

# examples take as long as the load of the machine makes them
settings.register_profile("sccello", deadline=None)
settings.load_profile("sccello")


@pytest.fixture(autouse=True)
def _global_state():
    """Undo what a test did to the state of the process: a test must not depend on the tests that ran before it."""
    logger = logging.getLogger("sccello_tools")
    level, handlers, propagate = logger.level, logger.handlers[:], logger.propagate
    options = dict(vars(sccello_tools.settings))
    environment, folder = dict(os.environ), Path.cwd()
    mpl, torch = sys.modules.get("matplotlib"), sys.modules.get("torch")
    style = dict.copy(mpl.rcParams) if mpl else {}
    style.pop("backend", None)
    n_threads = torch.get_num_threads() if torch else 0
    seed(torch)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers
    logger.propagate = propagate
    vars(sccello_tools.settings).update(options)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(folder)
    if mpl:
        dict.update(mpl.rcParams, style)
    if torch and torch.get_num_threads() != n_threads:
        torch.set_num_threads(n_threads)


def seed(torch: ModuleType | None) -> None:
    """Seed the global generators, so that a test that draws from them draws the same numbers in any order of tests."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from it
    if torch:
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder with numbers printed by the published code."""
    return Path(__file__).parent / "data" / "golden"


@pytest.fixture(scope="session")
def dense_counts() -> np.ndarray:
    """Synthetic raw counts, float32 of shape (30, 900), between 0 and 200, without empty cells."""
    rng = np.random.default_rng(7)
    depth = rng.uniform(0.2, 3, size=(N_CELLS, 1))
    abundance = rng.lognormal(-1, 1.5, size=(1, N_GENES))
    return np.minimum(rng.poisson(depth * abundance), 200).astype(np.float32)


@pytest.fixture(scope="session")
def gene_ids() -> list[str]:
    """Ensembl IDs of the columns of `dense_counts`, in random order."""
    genes = GeneVocabulary.load().gene_ids
    return np.random.default_rng(8).choice(genes, N_GENES, replace=False).tolist()


@pytest.fixture
def adata(dense_counts: np.ndarray, gene_ids: list[str]) -> anndata.AnnData:
    """AnnData of `dense_counts` as CSR, with Ensembl ids; a test may change it."""
    obs = pd.DataFrame(
        {"donor": pd.Categorical(["a", "b", "c"] * (N_CELLS // 3))},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    return anndata.AnnData(
        sparse.csr_matrix(dense_counts), obs=obs, var=pd.DataFrame(index=gene_ids)
    )


@pytest.fixture(scope="session")
def write_zarr() -> Callable[[anndata.AnnData, Path], None]:
    """Write an AnnData to zarr, ignoring warnings about versions of anndata and zarr."""
    pytest.importorskip("zarr")

    def write(adata: anndata.AnnData, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata.write_zarr(path)

    return write


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory) -> Path:
    """Folder of a model with 16 dimensions and 256 positions and random weights."""
    import torch

    from sccello_tools import models
    from sccello_tools.nn import EncoderConfig, ScCelloModel

    config = EncoderConfig(
        hidden_size=16, n_layers=2, n_heads=2, intermediate_size=24, max_positions=256
    )
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        network = ScCelloModel(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * drawn if name.endswith("norm.weight") else 0.5 * drawn)
    labels = pd.DataFrame(
        {
            "cell_type_ontology_term_id": ["CL:0000084", "CL:0000236"],
            "cell_type": ["T cell", "B cell"],
        }
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return models.save(network, folder, labels=labels, metadata={"name": "tiny"})


@pytest.fixture(scope="session")
def golden_model_folder() -> Path:
    """The small checkpoint in the published format (hidden size 32) whose numbers the published code printed; 398 labels."""
    return Path(__file__).parent / "data" / "golden" / "checkpoint"


@pytest.fixture(scope="session")
def published_size_model_folder(tmp_path_factory) -> Path:
    """Folder of a model of the published size (10,681,094 parameters) with random weights and the 398 published labels, 21 MB."""
    import torch

    from sccello_tools import models
    from sccello_tools.nn import EncoderConfig, ScCelloModel
    from sccello_tools.ontology import CellOntology, published_labels

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ScCelloModel(EncoderConfig(initializer_range=0.1))
    ontology = CellOntology.load()
    ids = list(published_labels())
    names = [ontology.name(term) for term in ids]
    labels = pd.DataFrame({"cell_type_ontology_term_id": ids, "cell_type": names})
    folder = tmp_path_factory.mktemp("models") / "published-size"
    return models.save(network, folder, labels=labels, metadata={"name": "random"}, dtype="float16")


@pytest.fixture
def sigint():
    """Python's handler of Ctrl-C: a shell that starts the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
