"""ScCello with the habits of scvi-tools: setup, training, saving, transfer."""

from __future__ import annotations

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
from sccello_tools.errors import ConfigError, GroupError, LabelError, NotCountsError
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
    sccello.tl.embed(adata, base)
    assert np.array_equal(latent, adata.obsm["X_sccello"])
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
    assert tuple(held) == trained.held_out_batches_
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
def test_trains_the_encoder_and_leaves_an_ordinary_network(model, adata, base, mode):
    before = model.get_latent_representation()
    plan = {"learning_rate": 0.01, "lora_rank": 2, "monitor": "loss"}
    model.train(max_epochs=6, mode=mode, batch_size=8, plan_kwargs=plan, **QUIET)
    assert set(model.module.network.state_dict()) == set(base.network.state_dict())
    assert not np.allclose(model.get_latent_representation(), before, atol=1e-3)
    assert (model.predict() == adata.obs["state"].astype(str)).mean() > 0.9
    assert not model.module.training


def test_the_module_answers_as_scvi_tools_asks(trained, adata, monkeypatch):
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
    labels = torch.from_numpy(np.asarray(trained.data_registry("labels")).ravel()).long()
    expected = torch.nn.functional.cross_entropy(torch.cat(logits), labels)
    assert n == adata.n_obs
    assert np.isclose(weighted / n, float(expected), atol=1e-4)
    with pytest.raises(NotImplementedError, match="no generative part"):
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
    assert (bare.predict(cells(gene_ids)) == trained.predict()).all()
    with pytest.raises(ValueError, match="different class"):
        scvi.model.SCVI.load(tmp_path / "m", adata=adata)


def test_goes_over_to_other_cells(trained, gene_ids):
    other = cells(gene_ids, n=40, seed=1)
    truth = other.obs["state"].astype(str).to_numpy()
    other.obs["donor"] = pd.Categorical(["new"] * 40)  # a batch that training never saw
    del other.obs["state"]
    with pytest.warns(UserWarning, match="Missing labels key state"):
        found = trained.predict(other)
    assert (found == truth).mean() > 0.8
    shuffled = cells(gene_ids, n=40, seed=1)[:, ::-1].copy()  # genes are found by name
    assert (trained.predict(shuffled) == found).all()
    view = cells(gene_ids, n=40, seed=1)[5:15]
    assert (trained.predict(view) == found[5:15]).all()


def test_other_genes_are_padded_as_in_scvi_tools(trained, gene_ids):
    other = cells(gene_ids, n=40, seed=1)[:, 100:].copy()
    with pytest.raises(ValueError, match="Number of vars"):
        trained.predict(other)
    ScCello.prepare_query_anndata(other, trained)
    assert other.n_vars == 900
    assert trained.predict(other).shape == (40,)


def test_unlabeled_and_empty_cells_do_not_train(gene_ids, base):
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


def test_what_cannot_be(gene_ids, base, model):
    with pytest.raises(ConfigError, match="mode is 'probe'"):
        model.train(mode="probe", **QUIET)
    with pytest.raises(ConfigError, match=r"Unknown settings: \['rank'\]"):
        model.train(plan_kwargs={"rank": 2}, **QUIET)
    adata = cells(gene_ids)
    with pytest.raises(ValueError, match=r"set up your AnnData with ScCello\.setup_anndata first"):
        ScCello(adata, model=base)
    ScCello.setup_anndata(adata)
    with pytest.raises(LabelError, match=r"at least two labels, found \[\].*labels_key="):
        ScCello(adata, model=base).train(**QUIET)
    adata.obs["alone"] = adata.obs["state"].astype(str)
    ScCello.setup_anndata(adata, labels_key="state", batch_key="alone")
    with pytest.raises(GroupError, match="No donor can be held out"):
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


def test_is_never_imported_unasked_and_says_what_is_missing():
    code = (
        "import sys; import sccello_tools as sccello; sccello.tl; assert 'scvi' not in sys.modules\n"
        "sys.modules['scvi'] = None\n"
        "try:\n    sccello.scvi\n"
        "except sccello.errors.MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith('Install it with: pip install "sccello-tools[scvi]"')
