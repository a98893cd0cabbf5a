"""Initialisation with ridge regression, and predictions for new drugs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sccello_tools.drug import DrugResponseConfig
from sccello_tools.drug.encoders import drug_inputs
from sccello_tools.drug.network import DrugResponseNetwork

SMILES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1", "CCN"]


def network(encoder="gcn", **options):
    config = DrugResponseConfig(drug_encoder=encoder, hidden_size=8, graph_size=6, **options)
    torch.manual_seed(0)
    return DrugResponseNetwork(config, n_features=5, n_known=4).eval()


def test_it_starts_at_the_ridge_regression():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 5)), rng.normal(size=(50, 4))
    start = network("none", ridge=2.0)
    start.start_from_ridge(x, y)
    expected = x @ np.linalg.solve(x.T @ x + 2.0 * np.eye(5), x.T @ y)
    drugs, _ = start.drug_vectors(drug_inputs("none", SMILES, range(4)))
    with torch.inference_mode():
        found = start.respond(torch.from_numpy(x).float(), drugs).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("encoder", ["gcn", "fingerprint"])
def test_a_drug_is_encoded_the_same_whatever_is_encoded_with_it(encoder):
    net = network(encoder)
    with torch.inference_mode():
        together, _ = net.drug_vectors(drug_inputs(encoder, SMILES, [0, 1, 4, 4]))
        alone, _ = net.drug_vectors(drug_inputs(encoder, SMILES[1:2], [1]))
    torch.testing.assert_close(together.vectors[1:2], alone.vectors)


def test_the_offset_of_a_new_drug_is_predicted_from_its_structure():
    net = network()
    net.means[:-1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with torch.inference_mode():
        known, predicted = net.drug_vectors(drug_inputs("gcn", SMILES[:1], [0]))
        new, _ = net.drug_vectors(drug_inputs("gcn", SMILES[:1], [4]))
    assert float(known.offsets[0]) == 1.0
    assert float(new.offsets[0]) == float(predicted[0])
    torch.testing.assert_close(known.vectors - new.vectors, net.identity.weight[:1].detach())


def test_graph_convolution_tells_isomers_apart():
    net = network()
    with torch.inference_mode():
        found, _ = net.drug_vectors(drug_inputs("gcn", ["CCCO", "CC(C)O"], [4, 4]))
    assert (found.vectors[0] - found.vectors[1]).abs().max() > 1e-4
