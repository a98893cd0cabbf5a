"""Every number that the published code printed for the golden model."""

from __future__ import annotations

import pytest
import torch

from sccello_tools.nn import (
    EncoderConfig,
    ScCelloModel,
    coherence_loss,
    masked_gene_loss,
    ontology_alignment_loss,
    prototype_regularization,
    sdpa_attention,
)

HIDDEN = {"atol": 2e-5, "rtol": 0}
LOSS = {"rtol": 1e-4, "atol": 0}
N_TYPES = 60


@pytest.fixture(scope="module")
def packed(golden):
    cu_seqlens = golden["seq_indptr"].int()
    return golden["seq_ids"].long(), cu_seqlens, int(cu_seqlens.diff().max())


@pytest.fixture(scope="module")
def masked_hidden(golden_model, golden, packed):
    """Last hidden states of the input whose chosen tokens are all <mask>: what the losses saw."""
    ids, *bounds = packed
    inputs = ids.masked_fill(golden["masked"], golden_model.config.mask_token_id)
    with torch.no_grad():
        return golden_model.encoder(inputs, *bounds, attention=sdpa_attention)


@pytest.fixture(scope="module")
def masked_cells(golden_model, golden, masked_hidden):
    with torch.no_grad():
        return golden_model.cell_representation(masked_hidden[golden["seq_indptr"][:-1]])


@torch.no_grad()
def test_hidden_states(golden_model, golden, packed):
    states = golden_model.encoder.hidden_states(*packed, attention=sdpa_attention)
    at_cls = torch.stack([x[golden["seq_indptr"][:-1]] for x in states], dim=1)
    torch.testing.assert_close(at_cls, golden["cls_by_layer"], **HIDDEN)
    torch.testing.assert_close(states[-1], golden["last_hidden"], **HIDDEN)
    out = golden_model.encoder(*packed, attention=sdpa_attention)
    assert torch.equal(out, states[-1])


@torch.no_grad()
def test_representations(golden_model, golden, packed):
    cls = golden_model.encode(*packed, representation="cls", attention=sdpa_attention)
    cell = golden_model.encode(*packed, representation="cell", attention=sdpa_attention)
    torch.testing.assert_close(cls, golden["cls_by_layer"][:, -1], **HIDDEN)
    torch.testing.assert_close(golden_model.cell_cls(cls), golden["cell_head"], **HIDDEN)
    scaled = cell / golden["tau"].float().sqrt()
    torch.testing.assert_close(scaled, golden["cell_representation"], **HIDDEN)


@pytest.mark.parametrize("max_logits", [2**24, 2**17, 1])
@torch.no_grad()
def test_masked_gene_loss(golden_model, golden, masked_hidden, max_logits):
    found = masked_gene_loss(
        masked_hidden[golden["masked"]],
        golden["seq_ids"].long()[golden["masked"]],
        head=golden_model.cls,
        word_embeddings=golden_model.word_embeddings,
        tau=golden_model.config.tau,
        max_logits=max_logits,
    )
    torch.testing.assert_close(found.loss.double(), golden["loss_masked_gene"], **LOSS)
    assert found.accuracy == golden["acc_masked_gene"]


@torch.no_grad()
def test_alignment_loss(golden_model, golden, golden_ontology, masked_cells):
    types = golden["cell_type"]
    found = ontology_alignment_loss(
        masked_cells,
        masked_cells,
        golden_ontology["similarity_level"][types][:, types],
        golden_ontology["ancestor_mask"][types][:, types].bool(),
        tau=golden_model.config.tau,
    )
    torch.testing.assert_close(found.double(), golden["loss_alignment"], **LOSS)


@torch.no_grad()
def test_coherence_loss_and_regularization(golden_model, golden, masked_cells):
    prototypes = golden_model.learned_centroid.weight[:N_TYPES]
    types, tau = golden["cell_type"], golden_model.config.tau
    found = coherence_loss(masked_cells, prototypes, types, tau=tau)
    torch.testing.assert_close(found.loss.double(), golden["loss_coherence"], **LOSS)
    assert found.accuracy == golden["acc_coherence"]
    distance = prototype_regularization(
        masked_cells, prototypes, types, affine=golden_model.affine_projection, tau=tau
    )
    torch.testing.assert_close(distance.double(), golden["loss_regularization"], **LOSS)


@torch.no_grad()
def test_marker_scores(golden_model, golden_marker):
    ids = golden_marker["ids"].long()
    n = len(ids)
    rows = ids.repeat(n, 1)
    rows[range(1, n), range(1, n)] = golden_model.config.mask_token_id  # row 0 stays whole
    cu_seqlens = torch.arange(0, n * n + 1, n, dtype=torch.int32)
    cls = golden_model.encode(rows.flatten(), cu_seqlens, n, attention=sdpa_attention)
    score = 1 - torch.cosine_similarity(cls[:1], cls[1:])
    # The random golden model hardly feels one masked token: its scores are the rounding of float32
    # around zero, so all that can be asked is that ours are as small.
    torch.testing.assert_close(score, golden_marker["score"], atol=2e-6, rtol=0)


def test_published_number_of_parameters():
    with torch.device("meta"):
        model = ScCelloModel(EncoderConfig())
    assert sum(p.numel() for p in model.parameters()) == 10_681_094
