"""Speed of perturbation scores against the plain loop, at published size, and what floating-point operations allow.

The plain loop is one pass of an unchanged `transformers.BertModel`, attention written out as it was when the method was published,
for each gene of a cell. All its passes are the same work, and so are all copies of `perturb`: a few are timed and multiplied, the
set-up of `perturb` counted once. All pieces are timed in turns; the figures are processor time, since the machine may have other
work, and each ratio is the median over the turns.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from transformers import BertConfig, BertModel

from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.perturbation import perturbation_scores
from sccello_tools.tokens import RaggedTokens

DIRECTIONS = (2, 4)


def one_cell(n_tokens: int) -> RaggedTokens:
    genes = np.random.default_rng(0).permutation(25_424)[: n_tokens - 1] + 2
    ids = np.concatenate([[25_426], genes]).astype(np.int32)
    return RaggedTokens(np.array([0, n_tokens]), ids, np.zeros(n_tokens, dtype=np.float32))


def plain_model() -> BertModel:
    size = EncoderConfig()
    config = BertConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.n_layers,
        num_attention_heads=size.n_heads,
        intermediate_size=size.intermediate_size,
        max_position_embeddings=size.max_positions,
        hidden_act="relu",
        attn_implementation="eager",
    )
    return BertModel(config, add_pooling_layer=False).eval()


def operations(n_tokens: int) -> dict[str, float]:
    """Floating-point operations (1e9) of all copies of a cell: the plain loop, and `perturb` with all that copies can share."""
    size = EncoderConfig()
    d, width = size.hidden_size, size.intermediate_size
    attention = 4 * n_tokens * d  # for a token: scores and weighted values
    projections, after = 2 * 3 * d * d, 2 * (d * d + 2 * d * width)
    layer = n_tokens * (projections + attention + after)
    copies = n_tokens - 1
    plain = copies * size.n_layers * layer
    perturb = copies * (n_tokens * after + (size.n_layers - 2) * layer)
    return {"plain": plain / 1e9, "perturb": perturb / 1e9}


def _cpu(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def speed(lengths: list[int], n_turns: int, *, bf16: bool) -> list[dict[str, float]]:
    torch.manual_seed(0)
    network, bert = ScCelloModel(EncoderConfig()).eval(), plain_model()
    rows = []
    for length in lengths:
        tokens = one_cell(length)
        ids = torch.from_numpy(tokens.ids.astype(np.int64))[None]
        n_part = 4 * max(1, 4_096 // length)

        def perturb(n: int, precision="float32", tokens=tokens, length=length) -> float:
            """Seconds of the whole cell from ``n`` and one copies."""
            one, many = (
                _cpu(
                    lambda k=k: perturbation_scores(
                        network, tokens, genes=tokens.ids[1 : 1 + k], precision=precision
                    )
                )
                for k in (1, 1 + n)
            )
            return one + (length - 2) * (many - one) / n

        turns: list[dict[str, float]] = []
        for _ in range(1 + n_turns):
            with torch.inference_mode():
                passes = [_cpu(lambda ids=ids: bert(ids).last_hidden_state) for _ in range(3)]
            turn = {"plain": float(np.mean(passes)) * (length - 1), "perturb": perturb(n_part)}
            turn["screen"] = _cpu(
                lambda tokens=tokens: perturbation_scores(network, tokens, method="screen")
            )
            for k in DIRECTIONS:
                turn[f"fast_{k}"] = _cpu(
                    lambda k=k, tokens=tokens: perturbation_scores(
                        network, tokens, method="fast", n_directions=k
                    )
                )
            turns.append(turn)
        del turns[0]  # to warm up
        row = {"tokens": float(length)}
        for name in turns[0]:
            row[f"{name}_s"] = float(np.median([turn[name] for turn in turns]))
            ratios = [turn["plain"] / turn[name] for turn in turns]
            row[f"{name}_to_perturb"] = float(
                np.median([turn["perturb"] / turn[name] for turn in turns])
            )
            row[f"{name}_ratio"] = float(np.median(ratios))
            row[f"{name}_ratio_low"], row[f"{name}_ratio_high"] = min(ratios), max(ratios)
        if bf16 and length == max(lengths):
            row["perturb_bf16_s"] = perturb(3, "bfloat16")
            row["perturb_bf16_ratio"] = row["plain_s"] / row["perturb_bf16_s"]
        work = operations(length)
        row["bound_ratio"] = work["plain"] / work["perturb"]
        row["plain_gflop"], row["perturb_gflop"] = work["plain"], work["perturb"]
        rows.append(row)
    return rows
