"""Tables of the marker benchmark as Markdown, to the terminal or into a page between two comments that name the part."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from _common import against
from markers_speed import DIRECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

DEFAULT = "4"  # directions used by default


def write_tables(results: dict[str, Any], page: Path | None) -> None:
    """Print the tables of all parts that have a result."""
    makers = {
        "speed": _speed,
        "agreement": _agreement,
        "screen": _screen,
        "truth": _truth,
        "go": _go,
        "biology": _biology,
    }
    for part, maker in makers.items():
        source = "truth" if part == "go" else part
        if source not in results:
            continue
        text = maker(results[source]["result"])
        if part != "go":
            text += f"\n\nMachine: {results[source]['machine']}."
        if page is None:
            sys.stdout.write(f"{text}\n\n")
            continue
        old = page.read_text(encoding="utf-8")
        start, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
        before, _, rest = old.partition(start)
        page.write_text(
            f"{before}{start}\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8"
        )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _speed(rows: list[dict[str, float]]) -> str:
    def ratio(row: dict[str, float], name: str) -> str:
        low, high = row[f"{name}_ratio_low"], row[f"{name}_ratio_high"]
        return f"{row[f'{name}_ratio']:.3g}× ({low:.3g} to {high:.3g})"

    columns = ["tokens", "plain loop", "`perturb`", "speed-up", "bound by operations"]
    for k in DIRECTIONS:
        columns += [f"`fast`, {k} directions", "speed-up"]
    lines = []
    for row in rows:
        line = [f"{row['tokens']:.0f}", f"{row['plain_s']:.1f} s", f"{row['perturb_s']:.1f} s"]
        line += [ratio(row, "perturb"), f"{row['bound_ratio']:.2f}×"]
        for k in DIRECTIONS:
            line += [f"{row[f'fast_{k}_s']:.2f} s", ratio(row, f"fast_{k}")]
        lines.append(line)
    last = rows[-1]
    exact, fast = (
        against(last[f"{k}_ratio"], w) for k, w in (("perturb", 10), (f"fast_{DEFAULT}", 200))
    )
    notes = [f"At {last['tokens']:.0f} tokens: `perturb` in float32 {exact}; `fast` {fast}."]
    if "perturb_bf16_ratio" in last:
        notes.append(
            f"`perturb` in bfloat16: {last['perturb_bf16_s']:.0f} s, {last['perturb_bf16_ratio']:.2g}× the plain loop, "
            f"{against(last['perturb_bf16_ratio'], 25)}; this processor has no bfloat16 units."
        )
    return _table(columns, lines) + "\n\n" + " ".join(notes)


def _agreement(result: dict[str, Any]) -> str:
    rows = [
        [
            f"**{k}**" if k == DEFAULT else k,
            f"{row['spearman_mean']:.3f}",
            f"{row['spearman_low']:.3f}",
            f"{row['top20_overlap']:.2f}",
        ]
        for k, row in result["directions"].items()
    ]
    chosen = result["directions"][DEFAULT]
    table = _table(["directions", "Spearman, mean over cells", "minimum", "top-20 overlap"], rows)
    return (
        f"{table}\n\n`{result['model']}`, {result['n_cells']} cells (200 were planned) of {result['n_types']} types from PBMC3k, the two held-out donors of Kang and "
        f"the pancreas cells of Tritschler, at most {result['max_length']} tokens per cell (median {result['median_tokens']:.0f}). "
        f"With {DEFAULT} directions, the default: Spearman {against(chosen['spearman_mean'], 0.9)}, overlap {against(chosen['top20_overlap'], 0.6)}."
    )


def _screen(result: dict[str, Any]) -> str:
    rows = []
    for name, row in result["methods"].items():
        label = "`fast`" if name == "fast" else f"`screen`, {name} exact genes"
        rows.append(
            [
                f"**{label}**" if name == str(result["n_exact"]) else label,
                f"{row['overlap']:.3f}",
                f"{row['overlap_low']:.2f}",
                f"{row['speed_ratio']:.1f}× ({row['speed_ratio_low']:.1f} to {row['speed_ratio_high']:.1f})",
            ]
        )
    columns = ["method", "top-50 overlap with `perturb`", "minimum over cells", "speed-up"]
    default = result["methods"][str(result["n_exact"])]
    return (
        f"{_table(columns, rows)}\n\n`{result['model']}`, {result['n_cells']} cells of {result['n_types']} types, median "
        f"{result['median_tokens']:.0f} tokens. Default: overlap {against(default['overlap'], 0.98)}; speed "
        f"{against(default['speed_ratio'], 8)}."
    )


def _biology(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['cells']}: {row['gene']}",
            row["type"],
            row["changed"],
            f"{row['shift']:.2g}",
            f"{row['shift'] / row['control_shift']:,.0f}×",
            f"{row['pval']:.2g}",
            "yes" if row["largest_in"] == row["type"] else f"no: {row['largest_in']}",
        ]
        for row in result["rows"]
    ]
    columns = [
        "gene",
        "marker of",
        "cells changed",
        "shift",
        "relative to similar genes",
        "p",
        "largest in this type",
    ]
    n_right = sum(row["largest_in"] == row["type"] for row in result["rows"])
    return (
        f"{_table(columns, rows)}\n\n`{result['model']}`, masking, up to {result['n_cells_per_group']} cells per type. The effect is largest in the "
        f"expected type for {n_right} of {len(rows)} genes."
    )


def _truth(result: dict[str, Any]) -> str:
    sets = result["data_sets"]
    columns = ["score"]
    for name, areas in sets.items():
        n_cells = next(iter(areas.values()))["n_cells"]
        columns += [f"{name}: {n_cells} cells", "by type"]
    rows = []
    for score in next(iter(sets.values())):
        row = [score.replace("less the rest", "minus rest")]
        for areas in sets.values():
            row += [f"{areas[score]['cells']:.3f}", f"{areas[score]['types']:.3f}"]
        rows.append([*row, f"{_mean(sets, score):.3f}"])
    ours, theirs = _mean(sets, "perturbation (as published)"), _mean(sets, "expression")
    less, less_theirs = (
        _mean(sets, f"{score} less the rest") for score in ("perturbation", "expression")
    )
    return (
        _table([*columns, "mean of cells"], rows)
        + f"\n\n`fast`, up to {result['cells_per_type']} cells per type. Better than expression: as published {against(ours, round(theirs, 3))}; "
        f"minus rest, compared with expression minus rest: {against(less, round(less_theirs, 3))}."
    )


def _mean(sets: dict[str, Any], score: str) -> float:
    return sum(areas[score]["cells"] for areas in sets.values()) / len(sets)


def _go(result: dict[str, Any]) -> str:
    rows = [
        [
            cell_type if i == 0 else "",
            row["term"],
            row["genes"],
            f"{row['odds']:g}",
            f"{row['fdr']:.1g}",
        ]
        for cell_type, terms in result["go"].items()
        for i, row in enumerate(terms)
    ]
    return _table(["markers of", "term", "genes", "odds ratio", "FDR"], rows)
