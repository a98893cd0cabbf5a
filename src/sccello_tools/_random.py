"""Random seeds: every public function with randomness accepts ``rng``, an int or a numpy Generator."""

from __future__ import annotations

import numpy as np

RNGLike = int | np.random.Generator


def seed_of(rng: RNGLike) -> int:
    """Return an int seed: ``rng`` itself, or a draw from the generator, which advances it."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**31))
    return int(rng)
