"""Data to draw, and image baselines. `SCCELLO_NEW_BASELINES=1 pytest tests/pl/test_images.py` redraws the baselines: look at them."""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from sccello_tools import pl, tl
from sccello_tools.ontology import CellOntology

BASELINES = Path(__file__).parent / "baseline"
# The font is part of matplotlib. Without hinting, its outlines hardly depend on the machine; the tolerance covers the rest.
STYLE = {
    "backend": "agg",
    "font.family": "DejaVu Sans",
    "text.hinting": "none",
    "savefig.dpi": 55,
}
TOLERANCE = 7.0  # root mean squared difference of 255; a changed colour or a moved label exceeds it, see test_images


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def ontology():
    return CellOntology.load()


@pytest.fixture
def cells(ontology):
    """Six types in blobs, with an annotation that is mostly right."""
    rng = np.random.default_rng(0)
    terms = np.array(
        ["CL:0000624", "CL:0000625", "CL:0000236", "CL:0000169", "CL:0000171", "CL:0000540"]
    )
    codes = np.repeat(np.arange(6), 30)
    adata = anndata.AnnData(np.zeros((180, 1), dtype=np.float32))
    names = [ontology.name(t) for t in terms]
    adata.obs["truth"] = pd.Categorical.from_codes(codes, names)
    given = np.where(rng.random(180) < 0.8, codes, (codes + 1) % 6)
    adata.obs["sccello_cell_type"] = pd.Categorical.from_codes(given, names)
    adata.obs["sccello_cell_type_ontology_term_id"] = pd.Categorical.from_codes(given, terms)
    adata.obs["sccello_cell_type_confidence"] = rng.random(180).astype(np.float32)
    adata.obs["sccello_novelty"] = rng.normal(size=180).astype(np.float32)
    status = np.where(adata.obs["sccello_novelty"] > 1, "novel_subtype", "known")
    adata.obs["sccello_cell_type_status"] = pd.Categorical(status)
    centres = rng.normal(size=(6, 2)) * 8
    adata.obsm["X_umap"] = centres[codes] + rng.normal(size=(180, 2))
    return adata


@pytest.fixture
def explained(cells):
    """The annotation with contributions of the sources of evidence, without counts."""
    rng = np.random.default_rng(1)
    values = rng.normal(1, 1, size=(cells.n_obs, 4)).astype(np.float32)
    columns = ["embedding", "ontology", "markers", "prior"]
    cells.obsm["sccello_cell_type_evidence"] = pd.DataFrame(values, cells.obs_names, columns)
    cells.obs["sccello_cell_type_runner_up"] = cells.obs["truth"]
    return cells


MARKER_FIELDS = (
    "scores",
    "mean_scores",
    "logfoldchanges",
    "pvals",
    "pvals_adj",
    "fractions",
    "reference_fractions",
)


@pytest.fixture
def marked():
    """Marker genes of four groups, 40 genes."""
    names = [f"g{i}" for i in range(40)]
    values = pd.DataFrame({g: np.linspace(2 + i, -1, 40) for i, g in enumerate("abcd")})
    result = {field: values.to_records(index=False) for field in MARKER_FIELDS}
    result["names"] = pd.DataFrame(dict.fromkeys("abcd", names)).to_records(index=False)
    var = pd.DataFrame({"symbol": [f"S{i}" for i in range(40)]}, index=names)
    uns = {"sccello_marker_genes": result}
    return anndata.AnnData(np.zeros((1, 40), dtype=np.float32), var=var, uns=uns)


@pytest.fixture
def terms():
    """Enriched Gene Ontology terms of two groups."""
    rows = [
        ("a", "GO:1", 8, 1e-9, ""),
        ("a", "GO:2", 7, 1e-8, "GO:1"),
        ("a", "GO:3", 4, 1e-4, ""),
        ("b", "GO:3", 6, 1e-6, ""),
        ("b", "GO:4", 2, 1e-2, ""),
    ]
    table = pd.DataFrame(rows, columns=["group", "go_id", "study_count", "fdr", "folded_into"])
    table["name"] = "name of " + table["go_id"]
    table["study_n"] = 10
    table["group"] = pd.Categorical(table["group"], categories=["b", "a", "empty"])
    return table


@pytest.fixture
def grouped():
    """Predicted response of four groups to twelve drugs."""
    adata = anndata.AnnData(np.zeros((8, 3), np.float32))
    adata.uns["sccello_drug_response"] = {
        "groups": np.array(list("abcd"), dtype=object),
        "groupby": "cluster",
        "drugs": np.array([f"Drug {i}" for i in range(12)], dtype=object),
        "ln_ic50": np.random.default_rng(0).normal(2, 3, (4, 12)).astype(np.float32),
        "std": np.full((4, 12), 0.3, np.float32),
        "n_cells": np.full(4, 2),
    }
    return adata


@pytest.fixture
def curve():
    """A training curve of 300 steps."""
    step = np.arange(1, 301)
    noise = np.random.default_rng(0).normal(0, 0.2, (300, 2))
    loss = 8 * np.exp(-step / 80) + noise[:, 0] + 2
    return pd.DataFrame(
        {
            "step": step,
            "loss": loss,
            "masked_gene": 0.7 * loss,
            "coherence": 0.3 * loss + 0.3 * noise[:, 1],
            "type_accuracy": 1 - np.exp(-step / 90),
            "val_type_accuracy": np.where(step % 50 == 0, 0.9 * (1 - np.exp(-step / 90)), np.nan),
        }
    )


@pytest.fixture
def scores():
    """Scores of two embeddings."""
    values = {
        "nmi": [0.785, 0.616],
        "ari": [0.7, 0.574],
        "asw": [0.55, 0.43],
        "avg_bio": [0.678, 0.54],
        "asw_batch": [0.88, 0.8],
        "graph_connectivity": [0.95, np.nan],
        "avg_batch": [0.915, 0.2],
    }
    return pd.DataFrame(values, index=["scCello", "PCA"])


def _effects(n_groups: int = 3, n_genes: int = 12, *, toward: bool = False) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(n_genes)]
    n = n_groups * n_genes
    table = {
        "group": np.repeat([f"group {i}" for i in range(n_groups)], n_genes).astype(object),
        "perturbation": np.array(genes * n_groups, dtype=object),
        "genes": np.array(genes * n_groups, dtype=object),
        "n_genes": np.ones(n, int),
        "n_cells": np.full(n, 20),
        "n_changed": np.full(n, 18),
        "shift": rng.gamma(1, 1e-3, n),
        "control_shift": np.full(n, 4e-4),
        "interaction": np.full(n, np.nan),
        "pval": np.clip(rng.random(n), 0.01, 1),
        "fdr": np.clip(rng.random(n), 0.03, 1),
    }
    table["shift"][0], table["pval"][0], table["fdr"][0] = np.nan, np.nan, np.nan
    if toward:
        extra = ("toward", "control_toward", "toward_pval", "toward_fdr")
        table |= {name: np.clip(rng.normal(0, 0.3, n), -0.9, 0.9) for name in extra[:2]}
        table |= {name: np.clip(rng.random(n), 0.01, 1) for name in extra[2:]}
    return anndata.AnnData(
        np.zeros((1, n_genes), np.float32),
        var=pd.DataFrame({"symbol": [f"S{i}" for i in range(n_genes)]}, index=genes),
        uns={"sccello_perturbation": {"table": table}},
    )


@pytest.fixture
def effects():
    """Function that makes cells with effects of perturbations."""
    return _effects


@pytest.fixture
def voted():
    """Consensus of three annotators."""
    obs = pd.DataFrame(
        {
            "a": ["T cell"] * 4 + ["B cell"] * 4 + ["neuron", None],
            "b": ["T cell"] * 3 + ["B cell"] * 5 + ["T cell", None],
            "c": ["CD4+ T cell", "B cell", "T cell", "T cell"] + [None] * 6,
        },
        index=[f"c{i}" for i in range(10)],
    )
    adata = anndata.AnnData(np.zeros((10, 1), np.float32), obs=obs)
    tl.consensus(adata, ["a", "b", "c"])
    return adata


@pytest.fixture
def plots(cells, explained, marked, terms, grouped, curve, scores, voted):
    """Every public plot as a function of the arguments that all plots share."""
    return {
        "compare_embeddings": lambda **o: pl.compare_embeddings(
            cells, ["X_umap"], color="truth", **o
        ),
        "confidence": lambda **o: pl.confidence(cells, "truth", **o),
        "confusion": lambda **o: pl.confusion(cells, "truth", **o),
        "consensus": lambda **o: pl.consensus(voted, **o),
        "drug_response": lambda **o: pl.drug_response(grouped, **o),
        "embedding_quality": lambda **o: pl.embedding_quality(scores, **o),
        "evidence": lambda **o: pl.evidence(explained, "truth", **o),
        "go_enrichment": lambda **o: pl.go_enrichment(terms, **o),
        "marker_genes": lambda **o: pl.marker_genes(marked, **o),
        "novelty": lambda **o: pl.novelty(cells, **o),
        "ontology_tree": lambda **o: pl.ontology_tree(cells, key="truth", **o),
        "ontology_umap": lambda **o: pl.ontology_umap(cells, "truth", **o),
        "perturbation": lambda **o: pl.perturbation(_effects(), **o),
        "training": lambda **o: pl.training(curve, **o),
    }


@pytest.fixture
def same_style():
    with mpl.rc_context(STYLE):
        yield


@pytest.fixture(scope="session")
def tolerance() -> float:
    return TOLERANCE


@pytest.fixture
def difference(tmp_path):
    """Root mean square difference of a figure from its baseline."""
    from matplotlib.testing.compare import calculate_rms

    def compare(figure, name: str) -> float:
        drawn = tmp_path / f"{name}.png"
        with mpl.rc_context(STYLE):
            figure.savefig(drawn)
        expected = BASELINES / f"{name}.png"
        if os.environ.get("SCCELLO_NEW_BASELINES"):
            expected.write_bytes(drawn.read_bytes())
        images = [np.asarray(mpl.image.imread(path))[..., :3] * 255 for path in (expected, drawn)]
        assert images[0].shape == images[1].shape
        return float(calculate_rms(*images))

    return compare
