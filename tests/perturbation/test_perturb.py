from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import sccello_tools
from sccello_tools.errors import WeightsError
from sccello_tools.nn import EncoderConfig, ScCelloModel, load_checkpoint, sdpa_attention
from sccello_tools.perturbation import exact_scores, fast_scores, perturbation_scores
from sccello_tools.perturbation.exact import half_squared_distance
from sccello_tools.perturbation.fast import backward_to_input, clean_pass, heads_of
from sccello_tools.tokens import RaggedTokens

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CLS = 59


def make_model(n_layers: int, noise: float) -> ScCelloModel:
    torch.manual_seed(n_layers)
    model = ScCelloModel(
        EncoderConfig(
            vocab_size=60,
            cls_token_id=CLS,
            hidden_size=24,
            n_layers=n_layers,
            n_heads=3,
            intermediate_size=40,
            max_positions=64,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model


def sequence(n_genes: int, seed: int = 0) -> torch.Tensor:
    genes = torch.randperm(55, generator=torch.Generator().manual_seed(seed))[:n_genes] + 2
    return torch.cat([torch.tensor([CLS]), genes])


def plain_loop(model: ScCelloModel, ids: torch.Tensor) -> np.ndarray:
    """The definition, token by token, in float64."""
    encoder = ScCelloModel(model.config).double().eval()
    encoder.load_state_dict(model.state_dict())
    encoder = encoder.encoder
    bounds = torch.tensor([0, len(ids)], dtype=torch.int32)
    with torch.inference_mode():
        clean = encoder(ids, bounds, len(ids), attention=sdpa_attention)[0]
        scores = []
        for j in range(1, len(ids)):
            copy = ids.clone()
            copy[j] = model.config.mask_token_id
            changed = encoder(copy, bounds, len(ids), attention=sdpa_attention)[0]
            scores.append(1 - torch.cosine_similarity(clean, changed, dim=0).item())
    return np.array(scores)


def exact(model: ScCelloModel, ids: torch.Tensor, batch_tokens: int = 100) -> np.ndarray:
    with torch.inference_mode():
        return exact_scores(
            model.encoder,
            ids,
            torch.arange(1, len(ids)),
            attention=sdpa_attention,
            batch_tokens=batch_tokens,
        ).numpy()


def ragged(*sequences: torch.Tensor) -> RaggedTokens:
    lengths = [len(s) for s in sequences]
    ids = torch.cat(sequences).numpy().astype(np.int32)
    return RaggedTokens(np.cumsum([0, *lengths]), ids, np.zeros(len(ids), dtype=np.float32))


def test_exact_gives_the_published_scores():
    encoder = load_checkpoint(GOLDEN / "checkpoint").encoder.eval()
    with np.load(GOLDEN / "marker.npz") as golden:
        ids, expected = torch.as_tensor(golden["ids"]).long(), golden["score"]
    with torch.inference_mode():
        scores = exact_scores(
            encoder,
            ids,
            torch.arange(1, len(ids)),
            attention=sdpa_attention,
            batch_tokens=1_000,
        ).numpy()
    # the published scores are a few roundings of float32 and say little more than their size
    np.testing.assert_allclose(scores, expected, atol=2.5e-7, rtol=0)
    assert np.corrcoef(scores, expected)[0, 1] > 0.8


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_exact_is_the_plain_loop(n_layers, noise):
    """Noise of 1 makes attention so sharp that single keys hold nearly all of a query's weight."""
    model, ids = make_model(n_layers, noise), sequence(30)
    expected = plain_loop(model, ids)
    assert expected.max() > 1e-5
    np.testing.assert_allclose(exact(model, ids), expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("batch_tokens", [1, 62, 10_000])
def test_batches_do_not_change_scores(batch_tokens):
    model, ids = make_model(3, 0.3), sequence(30)
    expected = exact(model, ids, 100)
    np.testing.assert_allclose(exact(model, ids, batch_tokens), expected, rtol=1e-3)


def test_one_gene_in_a_cell():
    model, ids = make_model(2, 0.3), sequence(1)
    np.testing.assert_allclose(exact(model, ids), plain_loop(model, ids), rtol=1e-4)


def test_a_masked_mask_changes_nothing():
    model = make_model(3, 0.3)
    ids = torch.cat([sequence(10), torch.tensor([model.config.mask_token_id])])
    assert exact(model, ids)[-1] < 1e-10 < exact(model, ids)[:-1].min()


def test_tiny_differences_keep_their_digits():
    clean = torch.tensor([1.0, 2.0, 3.0])
    step = 1e-5 * torch.tensor([[3.0, 0.0, -1.0]])  # at a right angle
    expected = 1e-10 * 10 / 14 / 2  # half the squared tangent
    torch.testing.assert_close(
        half_squared_distance(clean, clean + step).item(), expected, rtol=2e-2, atol=0
    )


@pytest.mark.parametrize(("n_layers", "at_least"), [(1, 0.97), (2, 0.97), (3, 0.9)])
def test_fast_agrees_with_exact(n_layers, at_least):
    """With random weights the deeper layers, where other rows' changes are left out, matter more than in a trained model."""
    model, ids = make_model(n_layers, 0.2), sequence(40)
    fast = fast_scores(model.encoder, ids, n_directions=16).numpy()
    assert spearmanr(fast, exact(model, ids)).statistic > at_least


def test_fast_agrees_with_exact_on_a_trained_model():
    """The one layer of the bundled model is computed exactly: other rows change only after ``<cls>`` has read them."""
    encoder = sccello_tools.models.load("sccello-small", device="cpu").network.encoder
    tokens = sccello_tools.pp.tokenize(
        sccello_tools.datasets.pancreas_tritschler()[:2].copy(), max_length=100
    )
    for cell in range(2):
        ids = torch.from_numpy(tokens[cell].astype(np.int64))
        with torch.inference_mode():
            expected = exact_scores(
                encoder,
                ids,
                torch.arange(1, len(ids)),
                attention=sdpa_attention,
                batch_tokens=1_000,
            )
        for n_directions in (0, 4):
            found = fast_scores(encoder, ids, n_directions=n_directions)
            np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_gradients_are_those_of_autograd():
    """Of the layer with its attention weights held, in several directions at once."""
    layer = make_model(1, 0.2).encoder.layers[0]
    x = torch.randn(12, 24, requires_grad=True)
    (state,), _ = clean_pass(
        [layer], x.detach()
    )  # as the last layer: the gradient is of `<cls>` alone
    v = heads_of(layer, x).v
    output = (state.weights.detach() @ v).transpose(0, 1).reshape(1, 24)
    y = layer.after_attention(output, x[:1])
    gradients = torch.randn(2, 1, 24)
    for gradient, found in zip(gradients, backward_to_input(layer, state, gradients)):
        (expected,) = torch.autograd.grad(y, x, gradient, retain_graph=True)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_fast_is_exact_with_one_layer():
    model, ids = make_model(1, 0.3), sequence(30)
    fast = fast_scores(model.encoder, ids, n_directions=4).numpy()
    np.testing.assert_allclose(fast, plain_loop(model, ids), rtol=1e-3)


def test_more_directions_come_closer():
    model, ids = make_model(3, 0.2), sequence(40)
    expected = exact(model, ids)
    errors = [
        np.abs(fast_scores(model.encoder, ids, n_directions=k).numpy() - expected).mean()
        for k in (0, 24)
    ]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("method", ["perturb", "fast"])
def test_scores_of_several_cells_lie_beside_their_tokens(method):
    model, a, b = make_model(2, 0.2), sequence(20, 1), sequence(9, 2)
    scores = perturbation_scores(model, ragged(a, a[:0], b), method=method)
    alone = perturbation_scores(model, ragged(b), method=method)
    assert scores.dtype == np.float32
    assert np.flatnonzero(np.isnan(scores)).tolist() == [0, len(a)]
    np.testing.assert_allclose(scores[len(a) + 1 :], alone[1:], rtol=1e-4)


@pytest.mark.parametrize("method", ["perturb", "fast"])
def test_only_some_genes(method):
    model, ids = make_model(2, 0.2), sequence(20)
    everything = perturbation_scores(model, ragged(ids), method=method)
    genes = ids[[3, 7]].numpy()
    some = perturbation_scores(model, ragged(ids), method=method, genes=genes)
    assert np.flatnonzero(~np.isnan(some)).tolist() == [3, 7]
    np.testing.assert_allclose(some[[3, 7]], everything[[3, 7]], rtol=1e-4)


def test_bfloat16_differs_by_its_rounding():
    model, ids = make_model(3, 0.3), ragged(sequence(40))
    full = perturbation_scores(model, ids)[1:]
    half = perturbation_scores(model, ids, precision="bfloat16")[1:]
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, atol=5e-5, rtol=0.2)


def test_frozen_and_training_models_are_left_as_they_were():
    model, tokens = make_model(2, 0.2), ragged(sequence(20))
    expected = perturbation_scores(model, tokens, method="fast")
    model.requires_grad_(requires_grad=False).train()
    np.testing.assert_allclose(
        perturbation_scores(model, tokens, method="fast")[1:], expected[1:], rtol=1e-5
    )
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_model_without_mask_token_is_refused():
    model = make_model(1, 0.2)
    with torch.no_grad():
        model.encoder.word_embeddings.weight[model.config.mask_token_id] = 0
    with pytest.raises(WeightsError, match="mask token"):
        perturbation_scores(model, ragged(sequence(5)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "exact"}, "'perturb', 'fast', 'screen'"),
        ({"batch_tokens": 0}, "batch_tokens must be >= 1"),
        ({"n_directions": -1}, "n_directions must be >= 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        perturbation_scores(make_model(1, 0.2), ragged(sequence(5)), **arguments)
