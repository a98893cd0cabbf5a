"""With any arrays, a metric returns numbers or raises a ScCelloError that states what is required; the arrays do not change."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sccello_tools import metrics
from sccello_tools.errors import ScCelloError
from sccello_tools.ontology import CellOntology

if TYPE_CHECKING:
    from typing import Any

ONTOLOGY = CellOntology.load()
TERMS = ["CL:0000084", "CL:0000236", "CL:0000540", "CL:0000000"]
NAMES = [*TERMS, "CL:9999999", "", "T cell", "βセル", "nan"]
SIZES = st.sampled_from([0, 1, 2, 3, 8, 8, 20])


@st.composite
def numbers(draw, shape: tuple[int, ...], *, share: bool = False) -> np.ndarray:
    """Numbers of any dtype, some of them not finite."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.random(shape) if share else rng.normal(size=shape)
    kind = draw(
        st.sampled_from(
            ["plain", "plain", "plain", "nan", "inf", "huge", "constant", "f2", "f4", "int"]
        )
    )
    if kind in {"nan", "inf", "huge"} and x.size:
        x[tuple(rng.integers(0, n) for n in shape)] = {"nan": np.nan, "inf": np.inf, "huge": 1e100}[
            kind
        ]
    if kind == "constant":
        x[...] = 0.5
    return x.astype({"f2": np.float16, "f4": np.float32, "int": np.int64}.get(kind, np.float64))


@st.composite
def labels(draw, n: int) -> np.ndarray:
    """Names or ids of cell types."""
    pool = draw(st.sampled_from([TERMS, TERMS[:2], TERMS[:1], NAMES]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    found = np.array([pool[i] for i in rng.integers(0, len(pool), n)], dtype=str)
    return found.astype(object) if draw(st.booleans()) else found


def flags(n: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.booleans(), min_size=n, max_size=n).map(lambda x: np.array(x, dtype=bool))


@st.composite
def calls(draw, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a score."""
    n = draw(SIZES)
    m = draw(st.sampled_from([n, n, n, n, n + 1]))  # sometimes of unequal length
    k = draw(st.sampled_from([15, 5, 5, 5, 1, 0, -1]))
    if name == "accuracy_at":
        return (draw(numbers((n, 4))), TERMS, draw(labels(m))), {"k": k}
    if name == "term_auroc":
        return (draw(numbers((n, 4))), TERMS, draw(labels(m))), {}
    if name == "annotation_score":
        return (draw(labels(n)), draw(labels(m)), {t: {t} for t in TERMS}), {}
    if name == "ontology_score":
        return (draw(labels(n)), draw(labels(m)), ONTOLOGY), {}
    if name == "scgraph_onto_rwr":
        return (draw(numbers((n, 3))), draw(labels(m)), ONTOLOGY), {"min_cells": k}
    if name == "knn_vote":
        metric = draw(st.sampled_from(["cosine", "euclidean", "x"]))
        return (draw(numbers((n, 3))), draw(labels(m)), draw(numbers((4, 3)))), {
            "n_neighbors": k,
            "metric": metric,
        }
    if name == "clustering_score":
        return (draw(numbers((n, 3))), draw(labels(m))), {"n_neighbors": k}
    if name == "integration_score":
        return (draw(numbers((n, 3))), draw(labels(m)), draw(labels(n))), {"n_neighbors": k}
    if name == "open_set_auroc":
        return (draw(numbers((n,))), draw(flags(m))), {}
    if name == "reliability":
        return (draw(numbers((n,), share=True)), draw(flags(m))), {"n_bins": k}
    if name == "risk_coverage":
        return (draw(numbers((n,), share=True)), draw(flags(m))), {}
    if name in {"response_score", "drug_correlations"}:
        return (draw(numbers((n, 4))), draw(numbers((m, 4)))), {}
    pytest.fail(f"no arguments for metrics.{name}: add them here")


SCORES = [name for name in metrics.__all__ if name[0].islower()]
NEXT_STEP = (
    "must",
    "required",
    "at least",
    "Predict",
    "Set",
    "Remove",
    "load",
    "expected",
    "Expected",
    "pass",
    "Pass",
    "Call",
    "call",
    "Give",
    "Use",
    "needs",
    "see",
    "Leave",
    "Map",
    "Name",
)
SLOW = {"clustering_score": 20, "integration_score": 60}


@pytest.mark.parametrize("name", SCORES)
def test_a_score_of_anything(name: str) -> None:
    @settings(
        max_examples=SLOW.get(name, 60),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(call=calls(name))
    def holds(call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        given_arrays, options = call
        arrays = [x for x in given_arrays if isinstance(x, np.ndarray)]
        before = [repr(x.tolist()) for x in arrays]
        error = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", RuntimeWarning)
                getattr(metrics, name)(*given_arrays, **options)
        except ScCelloError as found:
            error = str(found)
        assert not error or any(word in error for word in NEXT_STEP), (
            f"no requirement or remedy in: {error}"
        )
        assert [repr(x.tolist()) for x in arrays] == before

    holds()
