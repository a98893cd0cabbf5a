"""What each part of pretraining is worth: equal steps with one thing changed, several seeds each, scored on cells that were held out.

    python scripts/ablation.py pack --data ../shared/data --cells runs/ablation      # tokens of all cells, some megabytes
    python scripts/ablation.py run --cells runs/ablation [--accelerator gpu --jobs 12 --minutes 8]
    python benchmarks/ablation.py                                              # the table

Trains on `cells/train/` without one donor of the blood, one donor of the ovary and one study of the pancreas. Scores by the vote of
15 cosine neighbours (`cls` row) among the training cells, on what was held out and on the evaluation files, which nothing is chosen
by. A run that is in the results already is not repeated, so an interrupted ablation goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import multiprocessing
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.corpus import Corpus
from sccello_tools.engine import encode
from sccello_tools.metrics import annotation_score, knn_vote
from sccello_tools.ontology import CellOntology
from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig, fit

if TYPE_CHECKING:
    from typing import Any

    from sccello_tools.nn import ScCelloModel
    from sccello_tools.tokens import RaggedTokens

RESULTS = Path("benchmarks/results/ablation.json")
LABEL = "cell_type_ontology_term_id"
EVALUATION = ("kang_pbmc_2donors", "ovarian_tumour_1donor", "pancreas_tritschler", "pbmc3k")
HELD_OUT = {
    "kang_pbmc_6donors": ("donor", "1016"),
    "ovarian_tumour_3donors": ("donor", "12"),
    "pancreas": ("dataset", "pancreas_muraro"),
}
# dendritic, PP and regulatory T cells: the evaluation holds them out, so that no synthetic cells of them train either
BARRED = ("CL:0000451", "CL:0002275", "CL:0000815")
SYNTHETIC = "synthetic cells of tissue_profiles"
# Fraction of each source in a batch. In proportion to their size, blood of one study would be more than half.
SHARES = {
    "kang_pbmc_6donors": 0.25,
    "zheng_facs": 0.15,
    "pancreas": 0.20,
    "ovarian_tumour_3donors": 0.20,
    SYNTHETIC: 0.20,
}
N_REFERENCE = 4_000  # cells that vote
N_SCORED = 400  # cells of a file at most, drawn once
MAX_LENGTH = 512

_GENES_ONLY = {"weight_alignment": 0.0, "weight_coherence": 0.0, "weight_regularization": 0.0}


class Arm(NamedTuple):
    """One thing that is changed."""

    config: dict[str, Any] = {}  # noqa: RUF012 - never written to
    synthetic: bool = True
    """Whether cells drawn from tissue profiles train, too."""
    shuffled: bool = False
    """Whether cell types change places in the ontology: the same graph, the same degrees, wrong neighbours."""
    trained: bool = True


ARMS = {
    "not trained": Arm(trained=False),
    "all": Arm(),
    "masked gene only": Arm(_GENES_ONLY),
    "no alignment": Arm({"weight_alignment": 0.0}),
    "no coherence": Arm({"weight_coherence": 0.0, "weight_regularization": 0.0}),
    "no masked gene": Arm({"weight_masked_gene": 0.0}),
    "ontology shuffled": Arm(shuffled=True),
    "no synthetic cells": Arm(synthetic=False),
    "random gene start": Arm({"gene_start": "random"}),
    "no cropping": Arm({"crop": 0.0}),
    "second pass": Arm({"second_pass": True}),
    "128 tokens": Arm({"max_length": 128}),
    "256 tokens": Arm({"max_length": 256}),
    "hidden size 64": Arm({"hidden_size": 64, "intermediate_size": 128}),
    "hidden size 256": Arm({"hidden_size": 256, "intermediate_size": 512}),
    "2 layers": Arm({"n_layers": 2}),
    "8 layers": Arm({"n_layers": 8}),
}


class Cells(NamedTuple):
    """What trains and what is scored."""

    train: list[LabelledTokens]
    scored: dict[str, LabelledTokens]


def draw_cells(profiles: ad.AnnData, *, n_each: int, seed: int) -> ad.AnnData:
    """Draw synthetic counts from mean expression profiles: log-normal noise per gene, then a multinomial of the depth of a cell."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for mean, label in zip(profiles.X.toarray(), profiles.obs[LABEL]):
        fraction = mean / mean.sum()
        for _ in range(n_each):
            noisy = fraction * rng.lognormal(0, 0.5, fraction.size)
            depth = int(rng.lognormal(np.log(2_500), 0.6))
            counts = rng.multinomial(depth, noisy / noisy.sum()).astype(np.float32)
            rows.append(sparse.csr_array(counts))
            labels.append(label)
    cells = ad.AnnData(sparse.csr_matrix(sparse.vstack(rows)), var=profiles.var)
    cells.obs[LABEL] = pd.Categorical(labels)
    return cells


def training_cells(data: Path, *, synthetic_each: int, seed: int) -> dict[str, ad.AnnData]:
    """Read `cells/train` and draw synthetic cells from the tissue profiles."""
    sources = {
        path.stem: ad.read_h5ad(path) for path in sorted((data / "cells" / "train").glob("*.h5ad"))
    }
    ontology = CellOntology.load()
    barred = set(BARRED).union(*(ontology.descendants(term) for term in BARRED))
    profiles = ad.read_h5ad(data / "tissue_profiles.h5ad")
    ids = profiles.obs[LABEL].astype(str)
    usable = profiles[(ids != "").to_numpy() & ~ids.isin(barred).to_numpy()].copy()
    sources[SYNTHETIC] = draw_cells(usable, n_each=synthetic_each, seed=seed)
    return sources


def pack(data: Path, folder: Path) -> None:
    """Write two corpora: of everything that may train, and of cells to score on."""
    with tempfile.TemporaryDirectory() as name:
        paths = {}
        for source, adata in training_cells(data, synthetic_each=20, seed=0).items():
            for column in ("donor", "dataset"):
                known = adata.obs[column].astype(str) if column in adata.obs else ""
                adata.obs[column] = known
            adata.obs = adata.obs[[LABEL, "donor", "dataset"]]
            adata.obs_names_make_unique()
            paths[source] = Path(name) / f"{len(paths)}.h5ad"
            adata.write_h5ad(paths[source])
        sccello.pp.build_corpus(
            paths, folder / "train", obs_keys=("donor", "dataset"), max_length=MAX_LENGTH
        )
        paths = {}
        for file in EVALUATION:
            adata = ad.read_h5ad(data / "cells" / "eval" / f"{file}.h5ad")
            rows = np.random.default_rng(0).permutation(adata.n_obs)[:N_SCORED]
            paths[file] = Path(name) / f"{file}.h5ad"
            adata[np.sort(rows)].copy().write_h5ad(paths[file])
        sccello.pp.build_corpus(paths, folder / "eval", max_length=MAX_LENGTH)


def read(folder: Path) -> Cells:
    """Read what `pack` wrote and hold cells out."""
    train, scored = [], {}
    for source, (tokens, columns) in by_source(folder / "train", ("donor", "dataset")).items():
        kept = np.ones(len(tokens), dtype=bool)
        if source in HELD_OUT:
            column, value = HELD_OUT[source]
            out = np.flatnonzero(columns[column] == value)
            out = np.sort(np.random.default_rng(0).permutation(out)[:N_SCORED])
            name = f"{source}, {column} {value}"
            scored[name] = LabelledTokens(tokens.take(out), columns[LABEL][out], name)
            kept = columns[column] != value
        rows = np.flatnonzero(kept)
        train.append(LabelledTokens(tokens.take(rows), columns[LABEL][rows], source))
    for source, (tokens, columns) in by_source(folder / "eval").items():
        scored[source] = LabelledTokens(tokens, columns[LABEL], source)
    return Cells(train, scored)


def by_source(
    folder: Path, obs_keys: tuple[str, ...] = ()
) -> dict[str, tuple[RaggedTokens, dict[str, np.ndarray]]]:
    """Tokens and columns of each source of a corpus."""
    corpus = Corpus.open(folder)
    tokens = corpus.to_memory().tokens
    names = ("source", LABEL, *obs_keys)
    batches = list(corpus.record_batches(names))
    columns = {
        name: np.array([value for batch in batches for value in batch.column(name).to_pylist()])
        for name in names
    }
    found = {}
    for source in dict.fromkeys(columns["source"]):
        rows = np.flatnonzero(columns["source"] == source)
        found[str(source)] = (tokens.take(rows), {k: v[rows] for k, v in columns.items()})
    return found


def shuffled(train: list[LabelledTokens], seed: int) -> list[LabelledTokens]:
    """Give the cell types each other's places in the ontology."""
    types = np.unique(np.concatenate([source.cell_types for source in train]))
    place = dict(zip(types, np.random.default_rng(seed).permutation(types), strict=True))
    return [
        dataclasses.replace(source, cell_types=np.array([place[t] for t in source.cell_types]))
        for source in train
    ]


_cells: Cells | None = None  # of a worker process


def _start_worker(folder: Path, n_threads: int) -> None:
    global _cells  # noqa: PLW0603 - read once a process, not once a run
    torch.set_num_threads(n_threads)
    _cells = read(folder)


def run_one(name: str, arm: Arm, config: PretrainConfig, accelerator: str) -> dict[str, Any]:
    """Train and score one form."""
    assert _cells is not None
    ontology = CellOntology.load()
    train = [source for source in _cells.train if arm.synthetic or source.source != SYNTHETIC]
    total = sum(SHARES[source.source] for source in train)
    weights = {source.source: SHARES[source.source] / total for source in train}
    config = config.replace(source_weights=weights, **arm.config)
    if not arm.trained:  # one step at a rate that moves nothing: what training starts from
        config = config.replace(max_steps=1, learning_rate=1e-12)
    started = time.perf_counter()
    result = fit(
        shuffled(train, config.seed) if arm.shuffled else train,
        ontology,
        config,
        trainer_kwargs={"accelerator": accelerator, "devices": 1},
    )
    seconds = time.perf_counter() - started
    network = result.network.to("cuda" if accelerator == "gpu" else "cpu")
    voters = [source for source in _cells.train if source.source != SYNTHETIC]
    return {
        "arm": name,
        "seed": config.seed,
        "steps": config.max_steps,
        "batch_cells": config.batch_cells,
        "seconds": round(seconds, 1),
        "loss": float(result.curve["loss"].tail(50).mean()),
        "scores": score(network, voters, _cells.scored, ontology),
    }


def score(
    network: ScCelloModel,
    voters: list[LabelledTokens],
    scored: dict[str, LabelledTokens],
    ontology: CellOntology,
) -> dict[str, list[float]]:
    """Accuracy and mean recall on each file."""
    known = {str(t) for source in voters for t in source.cell_types}
    truth = {str(t) for cells in scored.values() for t in cells.cell_types}
    accepted = {t: {t, *ontology.descendants(t)} for t in truth}
    accepted = {t: answers for t, answers in accepted.items() if answers & known}
    rng = np.random.default_rng(0)  # the same voters for every run
    n_cells = sum(len(source.tokens) for source in voters)
    vectors, labels = [], []
    for source in voters:
        share = round(N_REFERENCE * len(source.tokens) / n_cells)
        rows = np.sort(rng.permutation(len(source.tokens))[:share])
        vectors.append(encode(network, source.tokens.take(rows), precision="float32"))
        labels.append(source.cell_types[rows])
    reference, names = np.concatenate(vectors), np.concatenate(labels)
    found = {}
    for name, cells in scored.items():
        query = encode(network, cells.tokens, precision="float32")
        votes = knn_vote(reference, names, query)
        result = annotation_score(cells.cell_types, votes, accepted)
        found[name] = [round(result.accuracy, 4), round(result.mean_recall, 4)]
    return found


def device_name(accelerator: str) -> str:
    """What trains."""
    return torch.cuda.get_device_name() if accelerator == "gpu" else platform.processor() or "CPU"


def run_all(args: argparse.Namespace) -> None:
    """Train every form with every seed that is not in the results yet."""
    base = PretrainConfig(
        max_steps=args.steps, batch_cells=args.batch_cells, max_length=MAX_LENGTH, warmup_steps=50,
        crop=0.75, precision=args.precision,
    )  # fmt: skip
    results = json.loads(args.out.read_text()) if args.out.exists() else {"runs": []}
    results["config"] = base.to_dict()
    results["date"] = dt.datetime.now(tz=dt.UTC).date().isoformat()
    results["machine"] = (
        f"{device_name(args.accelerator)}, torch {torch.__version__}, {args.precision}, {args.jobs} runs at a time"
    )
    results["held_out"] = {name: " ".join(what) for name, what in HELD_OUT.items()}
    done = {(run["arm"], run["seed"]) for run in results["runs"]}
    wanted = [
        (name, seed)
        for seed in args.seeds
        for name in args.arms or ARMS
        if (name, seed) not in done
    ]
    ends = time.monotonic() + 60 * args.minutes
    args.out.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        args.jobs,
        mp_context=context,
        initializer=_start_worker,
        initargs=(args.cells, args.threads),
    ) as pool:
        running = {
            pool.submit(run_one, name, ARMS[name], base.replace(seed=seed), args.accelerator): name
            for name, seed in wanted
        }  # fmt: skip
        for future in as_completed(running):
            if not future.cancelled():
                results["runs"].append(found := future.result())
                args.out.write_text(json.dumps(results, indent=1) + "\n")
                print(found["arm"], found["seed"], f"{found['seconds']:.0f} s", flush=True)
            if time.monotonic() > ends:  # those that have begun are still waited for
                for other in running:
                    other.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("pack", "run"))
    parser.add_argument("--data", type=Path, help="folder with cells/train and cells/eval")
    parser.add_argument("--cells", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", choices=ARMS)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--batch-cells", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument(
        "--minutes", type=float, default=1e6, help="begin no run after so many minutes"
    )
    args = parser.parse_args()
    if args.what == "pack":
        if args.data is None:
            parser.error("pack needs --data")
        pack(args.data, args.cells)
    if args.what == "run":
        run_all(args)


if __name__ == "__main__":
    main()
