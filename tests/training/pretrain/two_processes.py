"""One of two processes that train together; started by test_parallel.py, which reads what is left in the folder."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from sccello_tools.errors import TrainingError
from sccello_tools.metrics import ClusteringScore
from sccello_tools.nn import EncoderConfig, ScCelloModel
from sccello_tools.nn.losses import MaskedTokens
from sccello_tools.ontology import CellOntology, ancestor_mask, pagerank_rows, similarity_levels
from sccello_tools.tokens import RaggedTokens
from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig, fit, validation
from sccello_tools.training.pretrain.batch import pack_batch
from sccello_tools.training.pretrain.module import PretrainModule

if TYPE_CHECKING:
    from sccello_tools.training.pretrain.batch import Batch

TYPES = ("CL:0000084", "CL:0000236", "CL:0000540", "CL:0000576")
CLS = 25426
LOSSES = ("masked_gene", "alignment", "coherence", "regularization")


class Fixed(PretrainModule):
    """Masks tokens by their id, so that a batch is masked alike however it is dealt to processes."""

    def _masked(self, batch, step, part):
        positions = (batch.ids % 3 == 0).nonzero().squeeze(1)
        inputs = batch.ids.clone()
        inputs[positions] = 1
        return MaskedTokens(inputs, positions, batch.ids[positions]), torch.Generator()

    def forward(self, batch):
        parts = self.losses(batch, step=0)
        return torch.stack([parts[name] for name in LOSSES])


def make_module() -> Fixed:
    torch.manual_seed(3)
    network = ScCelloModel(
        EncoderConfig(
            hidden_size=16, n_layers=2, n_heads=2, intermediate_size=16, max_positions=32,
            dropout=0.0, attention_dropout=0.0, n_prototypes=4, initializer_range=0.2,
        )
    )  # fmt: skip
    ontology = CellOntology.load()
    levels = similarity_levels(pagerank_rows(ontology, TYPES, columns=TYPES))
    config = PretrainConfig(max_length=32, n_negatives=None, dropout=0.0, second_pass=True)
    return Fixed(
        network,
        config,
        torch.from_numpy(np.asarray(levels, dtype=np.int64)),
        torch.from_numpy(np.asarray(ancestor_mask(ontology, TYPES, TYPES))),
    )


def make_batch(part: slice = slice(None)) -> Batch:
    """Eight cells, or some of them; the first three are short and have few ids that are masked."""
    rng = np.random.default_rng(0)
    cells = [
        np.array([CLS, *(4 + 3 * rng.permutation(40)[:5]), 9]) if i < 3
        else np.array([CLS, *rng.permutation(np.arange(2, 200))[: 12 + i]])
        for i in range(8)
    ]  # fmt: skip
    n = len(cells[part])
    types = np.array([0, 1, 2, 3, 0, 1, 1, 2])[part]
    zeros = np.zeros(n, dtype=np.int64)
    return pack_batch(cells[part], cell_types=types, sources=zeros, rows=zeros, cropped=False)


def gradients(module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.requires_grad}


def synthetic_cells() -> LabelledTokens:
    rng = np.random.default_rng(1)
    lengths = rng.integers(4, 16, size=600)
    ids = [np.array([CLS, *rng.integers(2, 300, size=n)], dtype=np.int32) for n in lengths]
    tokens = RaggedTokens(
        np.concatenate([[0], np.cumsum(lengths + 1)]),
        np.concatenate(ids),
        np.zeros(int((lengths + 1).sum()), dtype=np.float32),
    )
    return LabelledTokens(tokens, np.array(TYPES)[rng.integers(0, 4, size=600)])


class Stop(L.Callback):
    """The power goes off before step 5."""

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step >= 4:
            raise KeyError(4)


def leave_gradients(rank: int, folder: Path) -> None:
    module = make_module()
    parallel = DistributedDataParallel(module)
    losses = parallel(make_batch((slice(0, 3), slice(3, 8))[rank]))
    losses.sum().backward()
    torch.save({"losses": losses.detach(), "gradients": gradients(module)}, folder / f"{rank}.pt")


def leave_runs(rank: int, folder: Path) -> None:
    # clusters take seconds to find, and are not what is tested here
    score = ClusteringScore(0.5, 0.5, 0.5, 0.5, 1.0)
    validation.clustering_score = lambda vectors, types: score
    config = PretrainConfig(
        hidden_size=16, n_layers=1, n_heads=2, intermediate_size=16, max_length=16, max_steps=6,
        batch_tokens=60, buffer_cells=100, n_negatives=32, warmup_steps=1, validate_every=3, patience=5,
        gene_start="random",
    )  # fmt: skip
    cells, ontology = synthetic_cells(), CellOntology.load()
    held_out = LabelledTokens(cells.tokens.take(np.arange(40)), cells.cell_types[:40])
    kwargs = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    whole = fit([cells], ontology, config, validation=held_out, trainer_kwargs=kwargs)
    kept = {"validation": held_out, "checkpoint_dir": folder / "runs", "checkpoint_every": 3}
    with contextlib.suppress(KeyError):
        fit([cells], ontology, config, trainer_kwargs={**kwargs, "callbacks": Stop()}, **kept)
    resumed = fit([cells], ontology, config, trainer_kwargs=kwargs, **kept)
    for name, result in {"whole": whole, "resumed": resumed}.items():
        result.curve.drop(columns="seconds").to_csv(folder / f"{name}{rank}.csv", index=False)
        torch.save(result.network.state_dict(), folder / f"{name}{rank}.pt")
    (folder / f"main{rank}").write_text(str(whole.is_main))
    # a loss that is no number on one process stops both
    spoilt = config.replace(learning_rate=1e30, warmup_steps=0, patience=None)
    try:
        fit([cells], ontology, spoilt, trainer_kwargs=kwargs)
    except TrainingError as error:
        (folder / f"error{rank}").write_text(str(error))


def main(rank: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    leave_gradients(rank, folder)
    if "gradients" not in sys.argv:
        leave_runs(rank, folder)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
