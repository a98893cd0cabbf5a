"""ScCello with the API of scvi-tools: setup, training, saving, query data."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sccello_tools as sccello
from sccello_tools import models
from sccello_tools.errors import ArgumentError, ConfigError, GroupError, LabelError, NotCountsError
from sccello_tools.nn import EncoderConfig, ScCelloModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what scvi-tools' own imports have to say of each other
    scvi = pytest.importorskip("scvi")
    from sccello_tools.scvi import ScCello

pytestmark = [
    pytest.mark.filterwarnings("ignore:Category . in adata.obs.* has fewer than 3 cells"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
FAST = {
    "max_epochs": 30,
    "batch_size": 8,
    "plan_kwargs": {"learning_rate": 0.05, "monitor": "loss"},
}


def cells(gene_ids, n=60, seed=0) -> anndata.AnnData:
    """Counts of cells from four donors; each of two labels has genes of its own."""
    rng = np.random.default_rng(seed)
    state = np.arange(n) % 2
    mean = np.where((np.arange(len(gene_ids)) % 2)[None] == state[:, None], 3.0, 0.3)
    obs = pd.DataFrame(
        {
            "state": pd.Categorical(np.array(["well", "ill"])[state]),
            "donor": pd.Categorical(np.repeat(["a", "b", "c", "d"], n // 4)),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    counts = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=gene_ids))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    config = EncoderConfig(
        hidden_size=16,
        n_layers=2,
        n_heads=2,
        intermediate_size=24,
        max_positions=128,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ScCelloModel(config)
        torch.nn.init.normal_(network.encoder.word_embeddings.weight)
        torch.nn.init.constant_(network.encoder.layers[-1].feed_forward_norm.weight, 20.0)
    folder = tmp_path_factory.mktemp("base") / "tiny"
    return models.load(models.save(network, folder, metadata={"name": "tiny"}), device="cpu")


@pytest.fixture
def adata(gene_ids):
    return cells(gene_ids)


@pytest.fixture
def model(adata, base):
    ScCello.setup_anndata(adata, labels_key="state", batch_key="donor")
    return ScCello(adata, model=base)


@pytest.fixture
def trained(model):
    model.train(**FAST, **QUIET)
    return model


def test_embeds_before_training_like_tl_embed(model, adata, base):
    latent = model.get_latent_representation()
    sccello.tl.embed(adata, model=base)
    assert np.allclose(latent, adata.obsm["X_sccello"], atol=1e-5)
    part = model.get_latent_representation(indices=[3, 1], batch_size=1)
    assert np.allclose(part, latent[[3, 1]], atol=1e-5)
    assert np.allclose(
        np.linalg.norm(model.get_latent_representation(representation="cell"), axis=1), 1, atol=1e-5
    )


def test_predicting_needs_training(model):
    with pytest.raises(RuntimeError, match="untrained model"):
        model.predict()


def test_learns_and_keeps_its_history(trained, adata, base):
    assert trained.is_trained
    assert {"train_loss", "validation_loss", "validation_macro_f1"} <= set(trained.history)
    loss = trained.history["train_loss"]["train_loss"]
    assert float(loss.iloc[-1]) < float(loss.iloc[0])
    # a whole donor is held out
    held = adata.obs["donor"].iloc[trained.validation_indices].unique()
    assert tuple(held) == trained.validation_batches_
    assert len(held) == 1
    assert held[0] not in set(adata.obs["donor"].iloc[trained.train_indices])
    assert (trained.predict() == adata.obs["state"].astype(str)).mean() > 0.9
    soft = trained.predict(soft=True, indices=[4, 2])
    assert soft.index.tolist() == ["cell4", "cell2"]
    assert soft.columns.tolist() == ["ill", "well"]
    assert np.allclose(soft.sum(axis=1), 1, atol=1e-5)
    # a linear layer only: the encoder is still that of the pretrained model
    state = trained.module.network.state_dict()
    assert all(torch.equal(state[n], v) for n, v in base.network.state_dict().items())
    assert "Trained" in trained.summary_string


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_encoder_is_trained_and_updates_are_merged(model, adata, base, mode):
    before = model.get_latent_representation()
    plan = {"learning_rate": 0.01, "lora_rank": 2, "monitor": "loss"}
    model.train(max_epochs=6, mode=mode, batch_size=8, plan_kwargs=plan, **QUIET)
    assert set(model.module.network.state_dict()) == set(base.network.state_dict())
    assert not np.allclose(model.get_latent_representation(), before, atol=1e-3)
    assert (model.predict() == adata.obs["state"].astype(str)).mean() > 0.9
    assert not model.module.training


def test_module_has_the_interface_of_scvi_tools(trained, adata, monkeypatch):
    # the module computes in float32, and so must what it is compared with
    monkeypatch.setattr("sccello_tools.engine._has_bfloat16", lambda device: False)
    loader = trained._make_data_loader(adata, batch_size=7)
    rows, logits, weighted, n = [], [], 0.0, 0
    for tensors in loader:
        with torch.no_grad():
            inference, generative, loss = trained.module(tensors)
        rows.append(inference["z"].numpy())
        logits.append(generative["logits"])
        weighted += float(loss.loss) * loss.n_obs_minibatch
        n += loss.n_obs_minibatch
    assert np.allclose(np.concatenate(rows), trained.get_latent_representation(), atol=1e-4)
    labels = torch.from_numpy(np.array(trained.data_registry("labels")).ravel()).long()
    expected = torch.nn.functional.cross_entropy(torch.cat(logits), labels)
    assert n == adata.n_obs
    assert np.isclose(weighted / n, float(expected), atol=1e-4)
    with pytest.raises(NotImplementedError, match="not generative"):
        trained.module.sample()


def test_saves_and_loads_with_and_without_cells(trained, adata, gene_ids, tmp_path, base):
    expected = trained.predict(soft=True)
    trained.save(tmp_path / "m", save_anndata=True)
    with pytest.raises(ValueError, match="already exists"):
        trained.save(tmp_path / "m")
    trained.save(tmp_path / "m", overwrite=True, save_anndata=True, prefix="p_")
    latent = trained.get_latent_representation()
    for options in ({}, {"adata": adata}, {"prefix": "p_"}):
        found = ScCello.load(tmp_path / "m", accelerator="cpu", **options)
        assert found.is_trained
        assert np.allclose(found.get_latent_representation(), latent, atol=1e-6)
        pd.testing.assert_frame_equal(found.predict(soft=True), expected, atol=1e-6)
        assert found.history.keys() == trained.history.keys()
        assert found.pretrained_ == {"name": "tiny", "sha256": base.sha256}
    bare = ScCello.load(tmp_path / "m", adata=False, accelerator="cpu")
    with pytest.raises(ConfigError, match="loaded without cells"):
        bare.train(**QUIET)
    with pytest.raises(ConfigError, match="loaded without cells"):
        bare.predict()
    assert (bare.predict(cells(gene_ids)) == trained.predict()).all()
    with pytest.raises(ValueError, match="different class"):
        scvi.model.SCVI.load(tmp_path / "m", adata=adata)


def test_predicts_cells_that_were_never_set_up(trained, gene_ids):
    other = cells(gene_ids, n=40, seed=1)
    truth = other.obs["state"].astype(str).to_numpy()
    other.obs["donor"] = pd.Categorical(["new"] * 40)  # a batch that training never saw
    del other.obs["state"]
    columns = list(other.obs)
    found = trained.predict(other)
    assert (found == truth).mean() > 0.8
    assert (list(other.obs), dict(other.uns)) == (columns, {})
    shuffled = cells(gene_ids, n=40, seed=1)[:, ::-1].copy()  # genes are matched by name
    assert (trained.predict(shuffled) == found).all()
    view = cells(gene_ids, n=40, seed=1)[5:15]
    assert (trained.predict(view) == found[5:15]).all()
    assert view.is_view


@pytest.mark.parametrize(
    "labels",
    [["of another study"] * 40, [np.nan] * 40, ["well", "new"] * 20, list(range(40)), [True] * 40],
)
def test_labels_of_the_query_do_not_matter(trained, gene_ids, labels):
    other = cells(gene_ids, n=40, seed=1)
    expected = trained.predict(other)
    other.obs["state"] = labels
    assert (trained.predict(other) == expected).all()


def test_genes_of_the_query_may_differ(trained, gene_ids):
    other = cells(gene_ids, n=40, seed=1)
    whole = trained.get_latent_representation(other)
    x = other.X.tolil()
    x[:, :100] = 0
    zeroed = anndata.AnnData(x.tocsr(), other.obs, other.var)
    fewer = zeroed[:, 100:].copy()  # the same tokens
    latent = trained.get_latent_representation(zeroed)
    assert np.allclose(trained.get_latent_representation(fewer), latent, atol=1e-5)
    extra = sparse.csr_matrix(np.ones((40, 3), dtype=np.float32))
    more = anndata.AnnData(
        sparse.hstack([other.X, extra]).tocsr(),
        other.obs,
        pd.DataFrame(index=[*gene_ids, "unknown1", "unknown2", "unknown3"]),
    )
    assert np.allclose(trained.get_latent_representation(more), whole, atol=1e-5)
    ScCello.prepare_query_anndata(fewer, trained)  # the way of other scvi-tools models
    assert fewer.n_vars == 900
    assert np.allclose(trained.get_latent_representation(fewer), latent, atol=1e-5)


def test_loads_with_cells_of_other_genes_and_labels(trained, gene_ids, tmp_path):
    trained.save(tmp_path / "m")
    other = cells(gene_ids, n=40, seed=1)[:, 50:].copy()
    other.obs["state"] = ["well", "of another study"] * 20
    other.obs["donor"] = "new"
    expected = trained.predict(other)
    found = ScCello.load(tmp_path / "m", adata=other, accelerator="cpu")
    assert found.labels_ == trained.labels_
    assert (found.predict() == expected).all()
    del other.obs["state"]
    unlabelled = ScCello.load(tmp_path / "m", adata=other, accelerator="cpu")
    assert (unlabelled.predict() == expected).all()
    with pytest.raises(LabelError, match="at least two labels"):
        unlabelled.train(**QUIET)


@pytest.mark.parametrize("mode", ["linear", "full"])
@pytest.mark.parametrize(
    "options",
    [{"early_stopping": False}, {"check_val_every_n_epoch": 2}, {"check_val_every_n_epoch": 5}],
)
def test_training_without_validation_in_every_epoch(model, mode, options):
    before = model.get_latent_representation()
    model.train(max_epochs=3, mode=mode, batch_size=8, plan_kwargs={"learning_rate": 0.01}, **QUIET, **options)  # fmt: skip
    assert model.is_trained
    assert model.validation_scores_["n_cells"] == 15
    if mode == "linear":  # otherwise the history also contains the linear stage
        assert len(model.history["train_loss"]) == 3
    changed = not np.allclose(model.get_latent_representation(), before, atol=1e-3)
    if options == {"early_stopping": False}:  # the last weights are kept
        assert changed == (mode == "full")


def test_missing_and_uninformative_labels_are_not_trained_on(gene_ids, base, caplog):
    adata = cells(gene_ids)
    labels = adata.obs["state"].to_numpy(dtype=object, copy=True)
    labels[:5] = [np.nan, None, "nan", "doublet", "Unassigned"]
    adata.obs["state"] = labels
    with caplog.at_level(logging.WARNING, logger="sccello_tools"):
        ScCello.setup_anndata(adata, labels_key="state")
    assert "5 of 60 cells" in caplog.text
    model = ScCello(adata, model=base)
    assert model.labels_ == ["ill", "well"]
    model.train(**FAST, **QUIET)
    assert sorted(model.test_indices) == [0, 1, 2, 3, 4]


def test_labels_do_not_depend_on_categories(gene_ids, base):
    adata = cells(gene_ids)
    adata.obs["state"] = adata.obs["state"].cat.set_categories(["well", "unused", "ill"])
    ScCello.setup_anndata(adata, labels_key="state")
    assert ScCello(adata, model=base).labels_ == ["ill", "well"]


def test_unlabeled_and_empty_cells_are_not_trained_on(gene_ids, base):
    adata = cells(gene_ids)
    labels = adata.obs["state"].astype(str).to_numpy().astype(object)
    labels[:6] = "Unknown"
    adata.obs["state"] = pd.Categorical(labels)
    x = adata.X.tolil()
    x[7] = 0
    adata.X = x.tocsr()
    ScCello.setup_anndata(adata, labels_key="state")
    model = ScCello(adata, model=base)
    assert sorted(model.labels_) == ["ill", "well"]
    with pytest.warns(UserWarning, match="1 of 60 cells have no count"):
        model.train(**FAST, **QUIET)
    assert sorted(model.test_indices) == [0, 1, 2, 3, 4, 5, 7]
    assert len(model.train_indices) + len(model.validation_indices) == 53
    with pytest.warns(UserWarning, match="1 of 60 cells have no count"):
        found = model.predict()
    assert found[7] == "Unknown"
    assert set(np.delete(found, 7)) == {"ill", "well"}


def test_counts_in_a_layer(gene_ids, base, model):
    adata = cells(gene_ids)
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    ScCello.setup_anndata(adata, layer="counts")
    found = ScCello(adata, model=base).get_latent_representation()
    assert np.array_equal(found, model.get_latent_representation())


def test_invalid_arguments(gene_ids, base, model):
    with pytest.raises(ConfigError, match=r"validation_size cannot be set.*validation="):
        model.train(validation_size=0.1, **QUIET)
    with pytest.raises(LabelError, match=r"no column 'nowhere'.*labels_key="):
        ScCello.setup_anndata(cells(gene_ids), labels_key="nowhere")
    with pytest.raises(ArgumentError, match=r"adata\.raw"):
        ScCello.setup_anndata(cells(gene_ids), layer="raw.X")
    with pytest.raises(ConfigError, match=r"mode.*'probe'"):
        model.train(mode="probe", **QUIET)
    with pytest.raises(ConfigError, match="'rank'"):
        model.train(plan_kwargs={"rank": 2}, **QUIET)
    adata = cells(gene_ids)
    with pytest.raises(ValueError, match=r"set up your AnnData with ScCello\.setup_anndata first"):
        ScCello(adata, model=base)
    ScCello.setup_anndata(adata)
    with pytest.raises(LabelError, match=r"at least two labels, found \[\].*labels_key="):
        ScCello(adata, model=base).train(**QUIET)
    adata.obs["alone"] = adata.obs["state"].astype(str)
    ScCello.setup_anndata(adata, labels_key="state", batch_key="alone")
    with pytest.raises(GroupError, match="No batch can be held out"):
        ScCello(adata, model=base).train(**QUIET)
    adata.X = adata.X.log1p()
    with pytest.warns(UserWarning, match="does not contain unnormalized count data"):
        ScCello.setup_anndata(adata)
    with pytest.raises(NotCountsError, match="does not hold raw counts"):
        ScCello(adata, model=base).get_latent_representation()


def test_minified_data_are_refused(adata, base):
    ScCello.setup_anndata(adata)
    adata.uns["_scvi_adata_minify_type"] = "latent_posterior_parameters"
    with pytest.raises(NotImplementedError, match="does not support minified data"):
        ScCello(adata, model=base)


def test_imported_on_demand_only():
    code = (
        "import sys; import sccello_tools as sccello; sccello.tl; assert 'scvi' not in sys.modules\n"
        "sys.modules['scvi'] = None\n"
        "try:\n    sccello.scvi\n"
        "except sccello.errors.MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith('Install it with: pip install "sccello-tools[scvi]"')
