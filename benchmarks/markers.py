"""Marker genes and perturbation: speed, agreement of `fast` and `screen` with `perturb`, known markers, GO terms, known biology.

python benchmarks/markers.py --data ../shared/data [--parts speed agreement screen truth biology] [--docs docs/marker_genes.md]

Each part is written to benchmarks/results/markers.json when it is done, and the tables of docs/marker_genes.md are printed from that
file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from _common import describe_machine
from markers_agreement import agreement
from markers_cells import EVAL
from markers_perturb import biology, screen
from markers_report import write_tables
from markers_speed import speed
from markers_truth import truth

SCRATCH = Path(tempfile.gettempdir()) / "sccello_exact_scores"
RESULTS = Path(__file__).parent / "results" / "markers.json"
PARTS = ("speed", "agreement", "screen", "truth", "biology")


def store(part: str, result: object, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    known[part] = {"machine": describe_machine(), "result": result}
    path.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="sccello-small")
    parser.add_argument("--tokens", type=int, nargs="*", default=[150, 300, 600])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="time perturb in bfloat16 as well")
    parser.add_argument("--cells", type=int, default=200, help="for the agreement")
    parser.add_argument("--max-length", type=int, default=512, help="for the agreement")
    parser.add_argument("--scratch", type=Path, default=SCRATCH, help="keeps exact scores")
    parser.add_argument("--screen-cells", type=int, default=24, help="for screen")
    parser.add_argument("--biology-cells", type=int, default=30, help="per type, for biology")
    parser.add_argument("--cells-per-type", type=int, default=50, help="for the truth")
    parser.add_argument("--sets", nargs="*", default=list(EVAL), help="for the truth")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, help="page to print the tables into")
    args = parser.parse_args()
    if args.data is None and set(args.parts) & {"agreement", "screen", "truth"}:
        parser.error(
            "agreement, screen and truth need --data, the folder with cells/ and cellmarkers.tsv.gz"
        )
    torch.set_num_threads(args.threads)
    work = {
        "speed": lambda: speed(args.tokens, args.turns, bf16=args.bf16),
        "agreement": lambda: agreement(
            args.data, args.model, args.cells, args.max_length, args.scratch
        ),
        "screen": lambda: screen(args.data, args.model, args.screen_cells),
        "biology": lambda: biology(args.model, args.biology_cells),
        "truth": lambda: truth(args.data, args.sets, args.model, args.cells_per_type),
    }
    for part in args.parts:
        store(part, work[part](), args.json)
    write_tables(json.loads(args.json.read_text()), args.docs)


if __name__ == "__main__":
    main()
