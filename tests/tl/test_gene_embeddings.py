from __future__ import annotations

import anndata
import numpy as np
import pytest
import torch

import sccello_tools as sccello
from sccello_tools.errors import WeightsError
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.tl import gene_embeddings
from sccello_tools.tokens import GeneVocabulary


@pytest.fixture
def save(tmp_path):
    def saved(**size):
        torch.manual_seed(0)
        network = ScCelloModel(EncoderConfig(hidden_size=8, n_layers=1, n_heads=1, **size))
        return sccello.models.save(network, tmp_path / "model")

    return saved


def test_every_gene_has_its_trained_row(save, tmp_path):
    folder = save()
    genes = gene_embeddings(folder, device="cpu")
    model = sccello.models.load(folder, device="cpu")
    assert genes.shape == (25_424, 8)
    assert genes.X.dtype == np.float32
    token = GeneVocabulary.load().token_of["ENSG00000105374"]
    row = genes["ENSG00000105374"]
    assert (row.obs["symbol"].item(), row.obs["token"].item()) == ("NKG7", token)
    np.testing.assert_array_equal(
        row.X.ravel(), model.network.word_embeddings[token].detach().numpy()
    )
    genes.X[:] = 0  # a copy: the model keeps its weights
    assert model.network.word_embeddings[token].abs().sum() > 0
    genes.write_h5ad(tmp_path / "genes.h5ad")
    back = anndata.read_h5ad(tmp_path / "genes.h5ad")
    assert back.uns["sccello_gene_embeddings"]["weights_sha256"] == model.sha256


def test_a_model_of_another_vocabulary(save):
    with pytest.raises(WeightsError, match=r"has 50 tokens.*25,427"):
        gene_embeddings(save(vocab_size=50, cls_token_id=49), device="cpu")
