from __future__ import annotations

import numpy as np
import pytest

from sccello_tools.annotation.head import LinearHead, softmax


def test_temperature_makes_an_overconfident_head_honest():
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((4000, 3)).astype(np.float32)
    truth = np.array(
        [
            rng.choice(3, p=row)
            for row in softmax(logits).astype(float)
            / softmax(logits).astype(float).sum(1, keepdims=True)
        ]
    )
    boastful = LinearHead(5 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    accepted = np.arange(3) == truth[:, None]
    assert boastful.calibrated(logits, accepted).temperature == pytest.approx(5, rel=0.1)
