"""The embedding for annotation is reused if it matches the request, and recomputed or reported if it does not."""

from __future__ import annotations

import logging

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sccello_tools as sccello
from sccello_tools import models
from sccello_tools._anndata.counts import CountsSource
from sccello_tools.errors import BackendError, ConfigError, NotCountsError
from sccello_tools.tl._hidden_states import hidden_states

KEY = "X_sccello"


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return models.load(tiny_model_folder, device="cpu")


@pytest.fixture
def embedded(adata, model):
    sccello.tl.embed(adata, model=model, precision="float32")
    return adata


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of tl.embed."""
    from importlib import import_module

    module = import_module("sccello_tools.tl._hidden_states")
    made = []
    original = module.embed
    monkeypatch.setattr(module, "embed", lambda *args, **kw: made.append(kw) or original(*args, **kw))  # fmt: skip
    return made


def states(adata, model, *, use_rep=None, **source):
    return hidden_states(adata, model, CountsSource(**source), use_rep=use_rep).hidden


def test_computed_once(adata, model, calls):
    first = states(adata, model)
    np.testing.assert_array_equal(states(adata, model), first)
    assert len(calls) == 1


def test_an_embedding_of_another_model_is_replaced(embedded, model, calls):
    embedded.uns[KEY]["weights_sha256"] = "0" * 64
    states(embedded, model)
    assert len(calls) == 1
    assert embedded.uns[KEY]["weights_sha256"] == model.sha256


@pytest.mark.parametrize("change", ["uns removed", "obsm removed", "width", "representation"])
def test_an_embedding_without_provenance_is_replaced(embedded, model, calls, change):
    if change == "uns removed":
        del embedded.uns[KEY]
    elif change == "obsm removed":
        del embedded.obsm[KEY]
    elif change == "width":
        embedded.obsm[KEY] = embedded.obsm[KEY][:, :5]
    else:
        embedded.uns[KEY]["representation"] = "cell"
    states(embedded, model)
    assert len(calls) == 1


def warned(caplog) -> str:
    [record] = [r for r in caplog.records if r.levelno == logging.WARNING]
    return record.getMessage()


def test_another_layer(adata, model, calls, caplog):
    adata.layers["soup"] = adata.X[::-1].copy()
    adata.layers["clean"] = adata.X.copy()
    soup = states(adata, model, layer="soup")
    clean = states(adata, model, layer="clean")
    assert len(calls) == 2
    assert "'soup', not from 'clean'" in warned(caplog)
    np.testing.assert_allclose(clean, soup[::-1], rtol=0, atol=1e-5)
    states(adata, model, layer="clean")
    assert len(calls) == 2


def test_a_shorter_max_length(adata, model, calls, caplog):
    sccello.tl.embed(adata, model=model, max_length=20)
    states(adata, model)
    assert len(calls) == 1
    assert "max_length=20" in warned(caplog)
    assert adata.uns[KEY]["max_length"] == 256


def test_other_gene_ids(embedded, model, calls, caplog):
    embedded.var["other"] = np.roll(embedded.var_names, 450)
    embedded.var.iloc[:20, 0] = "no gene"
    states(embedded, model, gene_ids="other")
    assert len(calls) == 1
    assert "other genes" in warned(caplog)


def test_gene_ids_of_the_same_genes(embedded, model, calls):
    embedded.var["versioned"] = [f"{name}.3" for name in embedded.var_names]
    states(embedded, model, gene_ids="versioned")
    assert not calls


@pytest.mark.parametrize("how", ["removed", "added"])
def test_genes_that_changed_since(adata, model, calls, caplog, how):
    part = adata[:, :700].copy()
    if how == "removed":
        sccello.tl.embed(adata, model=model)
        part.obsm[KEY], part.uns[KEY] = adata.obsm[KEY], adata.uns[KEY]
        states(part, model)
    else:
        sccello.tl.embed(part, model=model)
        adata.obsm[KEY], adata.uns[KEY] = part.obsm[KEY], part.uns[KEY]
        states(adata, model)
    assert len(calls) == 1
    assert "other genes" in warned(caplog)


def test_what_cannot_be_recomputed_is_reused_with_a_warning(embedded, model, calls, caplog):
    """Variable genes are often selected after embedding, and X is normalised."""
    before = embedded.obsm[KEY].copy()
    part = embedded[:, :700].copy()
    part.X = part.X.log1p()
    np.testing.assert_array_equal(states(part, model), before)
    assert not calls
    assert "reused" in warned(caplog)
    caplog.clear()
    few = embedded[:, :30].copy()
    np.testing.assert_array_equal(states(few, model), before)
    assert not calls
    assert "reused" in warned(caplog)


def test_normalised_after_embedding(embedded, model, calls, caplog):
    embedded.X = embedded.X.log1p()
    states(embedded, model)
    embedded.X = None
    states(embedded, model)
    assert not calls
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]


def test_the_layer_of_the_embedding_is_meant_if_x_holds_no_counts(adata, model, calls):
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    sccello.tl.embed(adata, model=model, layer="counts")
    states(adata, model)
    assert not calls
    del adata.layers["counts"]
    states(adata, model, layer="counts")
    assert not calls


def test_x_is_meant_if_it_holds_counts(adata, model, calls):
    adata.layers["other"] = adata.X[::-1].copy()
    sccello.tl.embed(adata, model=model, layer="other")
    states(adata, model)
    assert len(calls) == 1
    assert adata.uns[KEY]["layer"] == "X"


def test_a_missing_layer_is_an_error(embedded, model):
    with pytest.raises(NotCountsError, match="'spliced'"):
        states(embedded, model, layer="spliced")


def test_use_rep(embedded, model, calls):
    embedded.obsm["mine"], embedded.uns["mine"] = embedded.obsm[KEY], embedded.uns[KEY]
    embedded.uns["mine"] = {**embedded.uns[KEY], "max_length": 20}
    np.testing.assert_array_equal(states(embedded, model, use_rep="mine"), embedded.obsm[KEY])
    for spoil, says in (
        ({"weights_sha256": "0" * 64}, "weights 000000000000"),
        ({"representation": "cell"}, "'cell'"),
    ):
        embedded.uns["mine"] = {**embedded.uns[KEY], **spoil}
        with pytest.raises(ConfigError, match=f"'mine'.*{says}.*tl.embed"):
            states(embedded, model, use_rep="mine")
    with pytest.raises(ConfigError, match=r"no 'X_pca'.*tl\.embed"):
        states(embedded, model, use_rep="X_pca")
    assert not calls


def test_device_of_a_loaded_model(embedded, model):
    with pytest.raises(BackendError, match="cuda:3"):
        hidden_states(embedded, model, CountsSource(), use_rep=None, device="cuda:3")


def test_summed_columns_change_the_embedding(adata, model, calls):
    """The genes are the same, but their counts are not."""
    twice = anndata.AnnData(
        sparse.hstack([adata.X, adata.X[:, :30]]).tocsr(),
        var=pd.DataFrame(index=[*adata.var_names, *(f"{name}.2" for name in adata.var_names[:30])]),
    )
    sccello.tl.embed(adata, model=model)
    twice.obsm[KEY], twice.uns[KEY] = adata.obsm[KEY], adata.uns[KEY]
    with pytest.warns(UserWarning, match="30 of 930 variables repeat"):
        states(twice, model)
    assert len(calls) == 1
