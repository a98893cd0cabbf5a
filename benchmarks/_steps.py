"""Training steps to be timed: cells that are made up, and a clock."""

from __future__ import annotations

import time

import lightning as L
import numpy as np

from sccello_tools.tokens import CLS_ID, RaggedTokens


def made_up_tokens(n_cells: int, n: int) -> RaggedTokens:
    """Cells of one length, genes at random: what costs does not look at them."""
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(CLS_ID - 2)[:n] + 2 for _ in range(n_cells)]).astype(np.int32)
    ids[:, 0] = CLS_ID
    return RaggedTokens(
        np.arange(0, ids.size + 1, n), ids.ravel(), np.zeros(ids.size, dtype=np.float32)
    )


def two_types(n_cells: int) -> np.ndarray:
    """A Cell Ontology id for each cell, T and B cells in turns."""
    return np.array(["CL:0000084", "CL:0000236"])[np.arange(n_cells) % 2]


class Clock(L.Callback):
    """Notes wall and processor time at both ends of each step."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def note(self, *args) -> None:  # noqa: ARG002 - what Lightning hands to all
        self.times.append((time.perf_counter(), time.process_time()))

    on_train_batch_start = note
    on_train_batch_end = note

    def steps(self) -> np.ndarray:
        """Wall and processor seconds of each step, (n_steps, 2)."""
        return np.diff(np.array(self.times), axis=0)[::2]
