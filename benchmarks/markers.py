"""Marker genes: speed against the plain loop at published size, growth with tokens, agreement of `fast` with `perturb`.

python benchmarks/markers.py [--model sccello-small] [--tokens 600] [--cells 24] [--copies 12]

The plain loop, one pass of an unchanged `transformers.BertModel` for each gene, would take minutes; `--copies` of its passes are
timed and their median multiplied, since each of them is the same work.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from _common import against, print_table
from scipy.stats import spearmanr
from transformers import BertConfig, BertModel

import sccello_tools as sccello
from sccello_tools.data import RaggedTokens
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.perturb import perturbation_scores

TOP = 20


def one_cell(n_tokens: int) -> RaggedTokens:
    genes = np.random.default_rng(0).permutation(25_424)[: n_tokens - 1] + 2
    ids = np.concatenate([[25_426], genes]).astype(np.int32)
    return RaggedTokens(np.array([0, n_tokens]), ids, np.zeros(n_tokens, dtype=np.float32))


def seconds(work, n_runs: int = 1) -> float:
    taken = []
    for _ in range(n_runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def plain_pass(n_tokens: int, n_copies: int) -> float:
    """Median seconds of one pass of the published loop, attention written out as it was when that was published."""
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
    bert = BertModel(config, add_pooling_layer=False).eval()
    ids = torch.from_numpy(one_cell(n_tokens).ids.astype(np.int64))[None]
    with torch.inference_mode():
        return seconds(lambda: bert(ids).last_hidden_state, n_copies)


def speed(n_tokens: int, n_copies: int) -> None:
    network = ScCelloModel(EncoderConfig()).eval()
    rows = []
    for length in (n_tokens // 4, n_tokens // 2, n_tokens):
        tokens = one_cell(length)
        # every copy is the same work here too: a part of the genes is timed
        part = tokens.ids[1 : 1 + 4 * max(1, 8_192 // length)]
        plain = plain_pass(length, n_copies) * (length - 1)
        perturb = (
            seconds(
                lambda tokens=tokens, part=part: perturbation_scores(network, tokens, genes=part)
            )
            / len(part)
            * (length - 1)
        )
        fast = seconds(lambda tokens=tokens: perturbation_scores(network, tokens, method="fast"), 3)
        rows.append(
            [
                f"{length:,}",
                f"{plain:.1f} s",
                f"{perturb:.1f} s",
                f"{fast:.2f} s",
                f"{plain / perturb:.1f}×",
                f"{plain / fast:.0f}×",
            ]
        )
    print_table(
        "One cell, published size, float32 (all its genes; plain loop and perturb from a part of the copies)",
        ["tokens", "plain loop", "perturb", "fast", "perturb faster by", "fast faster by"],
        rows,
        f"perturb at {length} tokens: {against(plain / perturb, 10)}",
        f"fast at {length} tokens: {against(plain / fast, 200)}",
    )


def agreement(model: str, n_cells: int, max_length: int) -> None:
    network = sccello.models.load(model, device="cpu").network
    adata = sccello.datasets.pancreas_tritschler()
    cells = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:n_cells])
    tokens = sccello.pp.tokenize(adata[cells].copy(), max_length=max_length)
    exact = perturbation_scores(network, tokens)
    rows = []
    for n_directions in (0, 4, 8, 16):
        fast = perturbation_scores(network, tokens, method="fast", n_directions=n_directions)
        correlations, overlaps = [], []
        for start, stop in zip(tokens.indptr[:-1] + 1, tokens.indptr[1:]):
            a, b = exact[start:stop], fast[start:stop]
            correlations.append(spearmanr(a, b).statistic)
            overlaps.append(len({*np.argsort(-a)[:TOP]} & {*np.argsort(-b)[:TOP]}) / TOP)
        rows.append(
            [
                str(n_directions),
                f"{np.mean(correlations):.3f}",
                f"{np.min(correlations):.3f}",
                f"{np.mean(overlaps):.2f}",
            ]
        )
    print_table(
        f"fast against perturb, {model}, {n_cells} pancreas cells of up to {max_length} tokens",
        ["directions", "Spearman, mean", "lowest", f"top-{TOP} overlap"],
        rows,
        "8 directions are the default. Wanted: Spearman ≥ 0.9, overlap ≥ 0.6.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sccello-small")
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--copies", type=int, default=12)
    parser.add_argument("--max-length", type=int, default=256, help="for the agreement")
    args = parser.parse_args()
    torch.manual_seed(0)
    speed(args.tokens, args.copies)
    agreement(args.model, args.cells, args.max_length)


if __name__ == "__main__":
    main()
