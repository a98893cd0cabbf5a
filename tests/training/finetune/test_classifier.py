from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from sccello_tools import models
from sccello_tools.annotation.head import LinearHead
from sccello_tools.errors import WeightsError
from sccello_tools.training.finetune import Classifier, classifier_of


@pytest.fixture
def classifier() -> Classifier:
    rng = np.random.default_rng(0)
    head = LinearHead(
        rng.normal(size=(3, 16)).astype(np.float32), rng.normal(size=3).astype(np.float32), 1.5
    )
    return Classifier(
        labels=("T cell, sick", "β", "c"),
        head=head,
        label_key="state",
        mode="lora",
        weights_sha256="0" * 64,
        scores={"accuracy": 0.5},
        validation_groups=("a",),
    )


def test_round_trip(classifier, tmp_path):
    found = Classifier.load(classifier.save(tmp_path))
    for name in ("labels", "label_key", "mode", "weights_sha256", "scores", "validation_groups"):
        assert getattr(found, name) == getattr(classifier, name)
    rows = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    assert np.array_equal(found.probabilities(rows), classifier.probabilities(rows))
    assert [path.name for path in tmp_path.iterdir()] == ["classifier.safetensors"]


def test_rows_with_nan_stay_nan(classifier):
    rows = np.zeros((2, 16), dtype=np.float32)
    rows[1, 3] = np.nan
    probs = classifier.probabilities(rows)
    assert np.isclose(probs[0].sum(), 1)
    assert np.isnan(probs[1]).all()


def test_a_damaged_file(classifier, tmp_path):
    path = classifier.save(tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(WeightsError, match=r"classifier.*tl\.finetune"):
        Classifier.load(path)
    with pytest.raises(WeightsError, match=r"none.*tl.finetune"):
        Classifier.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"format": 9}, "format 9.*format 2"),
        ({"labels": ["a"]}, r"1 labels for weights of shape \(3, 16\)"),
    ],
)
def test_inconsistent_file(classifier, tmp_path, changed, says):
    path = classifier.save(tmp_path)
    metadata = {
        "format": 2,
        "labels": list(classifier.labels),
        "temperature": 1.0,
        "label_key": "",
        "mode": "linear",
        "weights_sha256": "",
        "scores": {},
        "validation_groups": [],
    } | changed
    arrays = {"weight": classifier.head.weight, "bias": classifier.head.bias}
    save_file(arrays, path, metadata={"sccello_classifier": json.dumps(metadata)})
    with pytest.raises(WeightsError, match=says):
        Classifier.load(path)


def test_classifier_belongs_to_the_weights_of_its_folder(classifier, tiny_model_folder, tmp_path):
    model = replace(models.load(tiny_model_folder, device="cpu"), folder=tmp_path)
    with pytest.raises(
        WeightsError, match=r"'tiny' has no classifier\.safetensors: .* tl\.finetune"
    ):
        classifier_of(model)
    classifier.save(tmp_path)
    with pytest.raises(WeightsError, match=r"other weights \(sha256 000000000000"):
        classifier_of(model)
    replace(classifier, weights_sha256=model.sha256).save(tmp_path)
    assert classifier_of(model).labels == classifier.labels
