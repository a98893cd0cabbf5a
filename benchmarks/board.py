"""Run every benchmark in turn and write docs/benchmarks.md from what they printed.

    python benchmarks/board.py --data ../shared/data            # everything: about two hours on two cores
    python benchmarks/board.py --quick                          # a few minutes, on the cells that ship; figures are rougher
    python benchmarks/board.py --data ../shared/data --only annotation embedding
    python benchmarks/board.py --render                         # only write the page again

Each benchmark is a script of its own and runs in a process of its own. Its tables are kept in `benchmarks/results/board/NAME.json`
with the command that printed them; the page is made of these files and of nothing else. What `--quick` measures is printed, and
not kept: the page is to hold whole runs only.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _common import TABLES
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "board"
PAGE = HERE.parent / "docs" / "benchmarks.md"


class Entry(NamedTuple):
    """One benchmark of the board."""

    section: str
    script: str
    what: str
    """A sentence for the page."""
    full: tuple[str, ...] = ()
    """Arguments of a whole run."""
    quick: tuple[str, ...] | None = None
    """Arguments of a quick one; None leaves it out of those."""
    needs_data: bool = False
    """Whether it can do without the cells that do not ship."""
    takes_data: bool = True
    figure: str = ""
    """Picture beside its table, below docs/."""
    page: str = ""
    """A page of its own in docs/, whose line `<!-- tables: NAME -->` the tables follow."""


SPEED, QUALITY = "Speed and memory", "Quality"
ENTRIES = (
    Entry(
        SPEED,
        "tokenizing",
        "Conversion of raw counts to rank-value tokens, compared with the published loop over cells.",
        quick=("--cells", "2048", "--loop-cells", "128", "--runs", "3"),
    ),
    Entry(
        SPEED,
        "encoding",
        "Embedding of tokenized cells with a model of the published size, compared with BertModel of transformers.",
        quick=("--cells", "24", "--runs", "2", "--no-compile"),
    ),
    Entry(
        SPEED,
        "ontology",
        "Personalised PageRank, rank correlations with candidate terms, and matching of labels.",
        quick=(),
        takes_data=False,
    ),
    Entry(
        SPEED,
        "reading",
        "Shuffled reading of cells for training: a corpus of tokens compared with loaders of matrices.",
        quick=("--cells", "2000"),
    ),
    Entry(
        SPEED,
        "corpus",
        "Building a corpus of tokens from an h5ad file: speed and memory.",
        full=("--cells", "300000"),
        quick=("--cells", "4000", "--workers", "1"),
    ),
    Entry(
        SPEED,
        "pretraining",
        "A training step at the published size: memory, speed, bfloat16, and cost by number of tokens.",
        full=("--plot", "docs/_static/pretraining_cost.png"),
        needs_data=True,
        figure="_static/pretraining_cost.png",
    ),
    Entry(
        SPEED,
        "end_to_end",
        "Annotation of an h5ad file from reading to writing, compared with other methods.",
        quick=("--cells", "300", "--runs", "1"),
    ),
    Entry(
        SPEED,
        "annotation_speed",
        "Annotation of embedded cells in memory, and of a file that is read in chunks.",
        full=("--file-cells", "1000000"),
        quick=("--cells", "1000"),
        takes_data=False,
    ),
    Entry(
        SPEED,
        "growth",
        "Run time by number of cells, genes, tokens, candidates and ontology terms.",
        full=("--plot", "docs/_static/growth.png"),
        quick=("--runs", "1"),
        takes_data=False,
        figure="_static/growth.png",
    ),
    Entry(
        SPEED,
        "scaling",
        "A cost model, compared with measurements and extrapolated to larger machines.",
        quick=("--runs", "1"),
        takes_data=False,
        page="scaling.md",
    ),
    Entry(
        SPEED,
        "gpu",
        "Embedding and pretraining on a GPU, from the last run of `scripts/gpu_report.py` on a machine with a GPU.",
        takes_data=False,
    ),
    Entry(
        QUALITY,
        "embedding",
        "Label transfer by nearest neighbours in the embedding.",
        full=("--json", "benchmarks/results/embedding.json"),
        needs_data=True,
    ),
    Entry(
        QUALITY,
        "quality",
        "Embeddings scored as in the paper: separation of cell types and mixing of batches.",
        needs_data=True,
    ),
    Entry(
        QUALITY,
        "annotation",
        "Known and unseen types, novelty, coverage and gene panels, for the bundled model and its evaluation twin, which was trained without the unseen types.",
        full=(
            *("--model", "runs/sccello-small-eval", "--shipped", "runs/sccello-small"),
            *("--before", "benchmarks/results/annotation_before.json"),
            *("--celltypist", "--json", "benchmarks/results/annotation.json"),
        ),
        needs_data=True,
    ),
    Entry(
        QUALITY,
        "leave_studies_out",
        "Known types in studies that were left out of training: this package and other methods trained on the same studies.",
        full=(
            *("--recipe", "runs/leave_studies_out.json", "--annotation", "runs/held_out.json"),
            *("--json", "benchmarks/results/leave_studies_out.json"),
        ),
        needs_data=True,
    ),
    Entry(
        QUALITY,
        "training_recipe",
        "Effect of each component of the training recipe, and quality and speed of encoders of several sizes.",
        full=("--plot", "docs/_static/encoder_size.png"),
        takes_data=False,
        figure="_static/encoder_size.png",
    ),
    Entry(
        QUALITY,
        "conformal",
        "Back-off compared with conformal prediction sets on the ontology.",
        full=("--folds", "runs/folds", "--model", "runs/sccello-small-eval"),
        needs_data=True,
    ),
    Entry(
        QUALITY,
        "annotation_consensus",
        "Consensus of four annotators, compared with each of them and with a majority vote.",
        needs_data=True,
    ),
    Entry(
        QUALITY,
        "finetuning",
        "Fine-tuning to labels that were not used for pretraining.",
        full=("--seeds", "3"),
        needs_data=True,
    ),
    Entry(
        QUALITY,
        "ablation",
        "Contribution of each component of pretraining, from the last run of `scripts/ablation.py`.",
        takes_data=False,
    ),
)

# These keep their results and print their tables into pages by themselves, and take long; the board names them.
ELSEWHERE = {
    "markers": ("marker_genes.md", "--data DATA --docs docs/marker_genes.md"),
    "drug_response": ("drug_response.md", "--data DATA"),
    "load": ("robustness.md", ""),
    "mouse": ("mouse.md", "--data DATA --docs docs/mouse.md"),
}


def run(entry: Entry, data: Path | None, *, quick: bool) -> dict[str, object]:
    """Run one script in its own process and return its tables, or what it said when it failed."""
    arguments = list(entry.quick or ()) if quick else list(entry.full)
    shown = ["python", f"benchmarks/{entry.script}.py", *arguments]
    command = [sys.executable, str(HERE / f"{entry.script}.py"), *arguments]
    if data is not None and entry.takes_data:
        command += ["--data", str(data.resolve())]
        shown += ["--data", "DATA"]
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder) / "tables.jsonl"
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=HERE.parent, env={**os.environ, TABLES: str(tables)}, check=False
        )
        seconds = time.perf_counter() - start
        lines = tables.read_text(encoding="utf-8").splitlines() if tables.exists() else []
    return {
        "command": " ".join(shown),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "commit": commit(),
        "seconds": round(seconds, 1),
        "exit_status": done.returncode,
        "tables": [json.loads(line) for line in lines],
    }


def commit() -> str:
    """The commit that is measured, or "" outside a checkout."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()


def markdown_table(table: dict[str, list]) -> list[str]:
    """One table as Markdown, its notes below it."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    columns = table["columns"]
    rule = "|---" + "|---:" * (len(columns) - 1) + "|"
    lines = [f"**{table['title']}**", "", line(columns), rule, *map(line, table["rows"]), ""]
    for note in table["notes"]:
        lines += [f"{note}", ""]
    return lines


def page(results: dict[str, dict]) -> str:
    """The page of the documentation, from the kept results."""
    lines = [
        "# Benchmarks",
        "",
        "Generated by `benchmarks/board.py` from `benchmarks/results/board/`, the output of each script. `make bench DATA=folder` runs all of them.",
        "Ratios are measured within one run; absolute numbers depend on the machine and its load, which are stated in each section. Evaluation cells were never used for training.",
        "",
        "**Sections dated before 2026-11-30 were measured with the previous bundled model** (4 layers, hidden size 128, 104 types) and have not been repeated with the current one.",
        "",
    ]
    for section in (SPEED, QUALITY):
        lines += [f"## {section}", ""]
        for entry in ENTRIES:
            if entry.section != section or entry.script not in results:
                continue
            result = results[entry.script]
            lines += [f"({entry.script})=", f"### {entry.script}", "", entry.what, ""]
            lines += ["```bash", result["command"], "```", ""]
            if entry.page:
                lines += [f"The tables are on a [separate page]({entry.page}).", ""]
                continue
            for table in result["tables"]:
                lines += markdown_table(table)
            if entry.figure:
                lines += [f"![{entry.what}]({entry.figure})", ""]
            machine = result["tables"][-1]["machine"] if result["tables"] else "unknown machine"
            lines += [
                f"*{result['date']}, commit {result['commit']}, {result['seconds'] / 60:.1f} minutes. {machine}.*",
                "",
            ]
    lines += ["## Benchmarks on other pages", ""]
    for script, (where, arguments) in ELSEWHERE.items():
        command = f"python benchmarks/{script}.py {arguments}".rstrip()
        lines += [f"- [{script.replace('_', ' ')}]({where}): `{command}`"]
    return "\n".join(lines).rstrip() + "\n"


def fill_page(entry: Entry, result: dict) -> None:
    """Put an entry's tables after its mark in its own page, in the place of older ones."""
    path = PAGE.parent / entry.page
    mark, end = f"<!-- tables: {entry.script} -->", f"<!-- end: {entry.script} -->"
    text = path.read_text(encoding="utf-8")
    before, _, after = text.partition(mark)
    if end in after:
        after = after.partition(end)[2]
    tables = "\n".join(line for table in result["tables"] for line in markdown_table(table))
    said = f"*{result['date']}, commit {result['commit']}. {result['tables'][-1]['machine']}.*"
    path.write_text(f"{before}{mark}\n\n{tables}\n{said}\n\n{end}{after}", encoding="utf-8")


def kept_results() -> dict[str, dict]:
    """What earlier whole runs left."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with cells/train and cells/eval")
    parser.add_argument("--quick", action="store_true", help="small runs; nothing is kept")
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument("--only", nargs="+", choices=[entry.script for entry in ENTRIES])
    args = parser.parse_args()

    console = Console()
    failed = []
    for entry in () if args.render else ENTRIES:
        if args.only and entry.script not in args.only:
            continue
        if args.quick and entry.quick is None:
            continue
        if entry.needs_data and args.data is None:
            console.print(f"{entry.script}: needs --data, left out")
            continue
        console.rule(entry.script)
        result = run(entry, args.data, quick=args.quick)
        if result["exit_status"] or not result["tables"]:
            failed.append(entry.script)
        elif not args.quick:
            RESULTS.mkdir(parents=True, exist_ok=True)
            text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
            (RESULTS / f"{entry.script}.json").write_text(text, encoding="utf-8")
    if not args.quick:
        results = kept_results()
        PAGE.write_text(page(results), encoding="utf-8")
        for entry in ENTRIES:
            if entry.page and entry.script in results:
                fill_page(entry, results[entry.script])
        console.print(f"wrote {PAGE}")
    if failed:
        sys.exit(f"These printed no table: {', '.join(failed)}")


if __name__ == "__main__":
    main()
