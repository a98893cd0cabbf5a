"""Encode cells with a model of the published size: ours, packed, against transformers' BertModel, padded, in one run.

    python benchmarks/encoding.py [--data ../shared/data] [--runs 5]

96 real cells of mixed length, random weights, the same in both. Both give the hidden state at <cls> of every cell. BertModel takes cells as
they come, as the published code does, and sorted by length, which saves padding. A row has our layers with everything after attention
compiled by torch.compile for any number of tokens; --no-compile saves the minutes that this takes. A second table measures the machine's own
rate of matrix products and says which share of it the linear layers reach.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from unittest import mock

import anndata as ad
import numpy as np
import torch
from _common import against, print_table, time_all

import sccello_tools as sccello
from sccello_tools.engine import encode
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.nn.model import EncoderLayer
from sccello_tools.tokens import CLS_ID, RaggedTokens

BATCH = 24


def real_cells(data: Path | None, n: int) -> RaggedTokens:
    """Real cells of mixed length, in no order of length."""
    if data is None:
        files = {"pancreas_tritschler": (sccello.datasets.pancreas_tritschler(), 1.0)}
    else:
        # mostly blood cells of 800 genes, some of over 2,000: a mean of about 900 tokens
        shares = {"pbmc3k": 7 / 8, "pancreas_tritschler": 1 / 16, "ovarian_tumour_1donor": 1 / 16}
        files = {
            name: (ad.read_h5ad(data / "cells" / "eval" / f"{name}.h5ad"), share)
            for name, share in shares.items()
        }
    rng = np.random.default_rng(0)
    parts = [
        sccello.pp.tokenize(adata[rng.choice(adata.n_obs, round(n * share), replace=False)].copy())
        for adata, share in files.values()
    ]
    tokens = RaggedTokens.concatenate(parts)
    return tokens.take(rng.permutation(len(tokens)))


def bert_of(network: ScCelloModel) -> torch.nn.Module:
    """Give transformers' BertModel the weights of ours."""
    from transformers import BertConfig, BertModel

    c = network.config
    bert = BertModel(
        BertConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            num_hidden_layers=c.n_layers,
            num_attention_heads=c.n_heads,
            intermediate_size=c.intermediate_size,
            hidden_act="relu",
            max_position_embeddings=c.max_positions,
            type_vocab_size=1,
            layer_norm_eps=c.layer_norm_eps,
        ),
        add_pooling_layer=False,
    ).eval()
    ours = network.encoder
    embeddings = bert.embeddings
    with torch.no_grad():
        embeddings.word_embeddings.weight.copy_(ours.word_embeddings.weight)
        embeddings.position_embeddings.weight.copy_(ours.position_embeddings.weight)
        embeddings.token_type_embeddings.weight.copy_(ours.legacy_embeddings.sum(0, keepdim=True))
        embeddings.LayerNorm.load_state_dict(ours.norm.state_dict())
        for theirs, layer in zip(bert.encoder.layer, ours.layers):
            attention = theirs.attention
            parts = (attention.self.query, attention.self.key, attention.self.value)
            for part, weight, bias in zip(
                parts, layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3)
            ):
                part.weight.copy_(weight)
                part.bias.copy_(bias)
            attention.output.dense.load_state_dict(layer.attention_out.state_dict())
            attention.output.LayerNorm.load_state_dict(layer.attention_norm.state_dict())
            theirs.intermediate.dense.load_state_dict(layer.feed_forward_in.state_dict())
            theirs.output.dense.load_state_dict(layer.feed_forward_out.state_dict())
            theirs.output.LayerNorm.load_state_dict(layer.feed_forward_norm.state_dict())
    return bert


@torch.inference_mode()
def encode_padded(
    bert: torch.nn.Module, tokens: RaggedTokens, *, by_length: bool = False
) -> np.ndarray:
    """The usual way: batches of 24 cells as they come, each padded to the longest of the batch."""
    order = np.argsort(tokens.lengths, kind="stable") if by_length else np.arange(len(tokens))
    tokens = tokens.take(order)
    rows = []
    for start in range(0, len(tokens), BATCH):
        cells = [tokens[i] for i in range(start, min(start + BATCH, len(tokens)))]
        longest = max(len(cell) for cell in cells)
        ids = torch.zeros((len(cells), longest), dtype=torch.int64)
        mask = torch.zeros((len(cells), longest), dtype=torch.int64)
        for row, cell in enumerate(cells):
            ids[row, : len(cell)] = torch.from_numpy(cell.astype(np.int64))
            mask[row, : len(cell)] = 1
        rows.append(bert(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].numpy())
    found = np.empty_like(np.concatenate(rows))
    found[order] = np.concatenate(rows)
    return found


_compiled = torch.compile(EncoderLayer.after_attention, dynamic=True)


def encode_compiled(network: ScCelloModel, tokens: RaggedTokens) -> np.ndarray:
    """Encode with what follows attention in each layer compiled."""
    with mock.patch.object(EncoderLayer, "after_attention", _compiled):
        return encode(network, tokens, precision="float32")


def matrix_rates(network: ScCelloModel, n_tokens: int, n_runs: int) -> list[list[str]]:
    """Rate of plain matrix products on this machine, and of the encoder's linear layers at so many tokens."""
    c = network.config
    square = torch.randn(2048, 2048)
    x, wide = torch.randn(n_tokens, c.hidden_size), torch.randn(n_tokens, c.intermediate_size)
    layer = network.encoder.layers[0]

    def linear(x: torch.Tensor, wide: torch.Tensor) -> None:
        for _ in range(10):
            (
                layer.qkv(x),
                layer.attention_out(x),
                layer.feed_forward_in(x),
                layer.feed_forward_out(wide),
            )

    flops = 10 * 2 * n_tokens * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)
    rows = []
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = square.to(dtype)
        layer.to(dtype)
        with torch.inference_mode():
            timing = time_all(
                {
                    "product": lambda a=a: a @ a,
                    "linear": lambda d=dtype: linear(x.to(d), wide.to(d)),
                },
                n_runs=n_runs,
            )
        peak = 2 * 2048**3 / timing["product"].best / 1e9
        ours = flops / timing["linear"].median / 1e9
        rows.append([name, f"{peak:,.0f}", f"{ours:,.0f}", f"{ours / peak:.0%}"])
    layer.float()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cells", type=int, default=96)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()

    tokens = real_cells(args.data, args.cells)
    assert all(tokens[i][0] == CLS_ID for i in range(len(tokens)))
    torch.manual_seed(0)
    network = ScCelloModel(EncoderConfig()).eval()
    bert = bert_of(network)
    found: dict[str, np.ndarray] = {}

    def run(name, function):
        def work():
            found[name] = function()

        return work

    methods = {
        "transformers BertModel, padded": lambda: encode_padded(bert, tokens),
        "the same, sorted by length": lambda: encode_padded(bert, tokens, by_length=True),
        "ours, float32": lambda: encode(network, tokens, precision="float32"),
        "ours, bfloat16": lambda: encode(network, tokens, precision="bfloat16"),
    }
    compiling = ""
    if not args.no_compile:
        methods["ours, float32, torch.compile"] = lambda: encode_compiled(network, tokens)
        start = time.perf_counter()
        encode_compiled(network, tokens)
        compiling = f" torch.compile: the first call took {time.perf_counter() - start:.0f} s."
    timings = time_all({name: run(name, f) for name, f in methods.items()}, n_runs=args.runs)
    padded = found["transformers BertModel, padded"]
    rows = []
    for name, timing in timings.items():
        ratio = timings["transformers BertModel, padded"].median / timing.median
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (padded, found[name])]
        rows.append(
            (
                name,
                timing.rate(len(tokens)),
                f"{ratio:.1f}",
                f"{np.abs(found[name] - padded).max():.1e}",
                f"{(unit[0] * unit[1]).sum(axis=1).min():.6f}",
            )
        )
    ratio32 = timings["transformers BertModel, padded"].median / timings["ours, float32"].median
    ratio16 = timings["transformers BertModel, padded"].median / timings["ours, bfloat16"].median
    lengths = tokens.lengths
    print_table(
        f"Encoding {len(tokens)} cells of {lengths.min()} to {lengths.max()} tokens (mean {lengths.mean():.0f}), published size",
        ("method", "cells/s", "ratio", "largest difference", "smallest cosine"),
        rows,
        f"float32: {against(ratio32, 8)}; bfloat16: {against(ratio16, 25)} "
        f"(processors without bfloat16 units emulate it; precision='auto' then uses float32).{compiling}",
    )
    print_table(
        "Linear layers of the encoder at 1,000 tokens, and a matrix product of 2,048 x 2,048 (best run)",
        ("precision", "matrix product, GFLOP/s", "linear layers, GFLOP/s", "ratio"),
        matrix_rates(network, 1000, args.runs),
    )


if __name__ == "__main__":
    main()
