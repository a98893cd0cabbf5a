"""Draw the layers of the import contract in pyproject.toml to docs/_static/architecture.svg.

    python scripts/draw_architecture.py

Run it after changing the contract; a test compares the figure with the contract.
"""

from __future__ import annotations

import re
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "_static" / "architecture.svg"

# purpose of a layer, by its first module
PURPOSE = {
    "cli": "command line, report",
    "pl": "figures",
    "export": "formats of archives",
    "pp": "public, one function per file",
    "files": "collections of files (dask)",
    "training": "methods",
    "_anndata": "shared AnnData helpers",
    "engine": "tokens to embeddings",
    "models": "registry, download, load, save",
    "corpus": "tokens on disk; scores",
    "tokens": "arrays and tensors",
    "_io": "shared modules",
}
TORCH, ANNDATA, PLAIN = "#e8d9f1", "#d5e8f5", "#eeeeee"
COLOUR = {
    **dict.fromkeys(
        ("cli", "pl", "export", "files", "pp", "tl", "get", "datasets", "scvi", "_anndata"), ANNDATA
    ),
    **dict.fromkeys(("training", "drug", "engine", "perturbation", "models", "nn"), TORCH),
}
HIDDEN = {"__main__", "_docs", "_random", "resources", "errors"}
WIDTH, ROW, LEFT, BOX, GAP = 1000, 46, 225, 90, 6
CELL_STEPS = (
    ("_anndata", "select counts, match genes", "CSR (n_rows, n_vars)"),
    ("tokens", "check counts, rank genes", "RaggedTokens(indptr, ids)"),
    ("engine", "batches by tokens, no padding", "ids (T,), cu_seqlens (B + 1,)"),
    ("nn", "encoder, fastest attention backend", "float32 (n_cells, d)"),
    ("annotation", "terms, confidence, novelty, evidence", "arrays of n_cells"),
    ("tl", "written in row order", "obsm, obs, uns"),
)


def layers() -> list[list[str]]:
    """Modules of each layer of the contract, from the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    rows = [re.findall(r"\w+", layer) for layer in contract["layers"]]
    return [shown for row in rows if (shown := [name for name in row if name not in HIDDEN])]


def text(x: float, y: float, words: str, *, size: int = 13, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" {more}>{escape(words)}</text>'


def box(x: float, y: float, width: float, words: str, colour: str) -> list[str]:
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="30" rx="4" fill="{colour}" stroke="#555"/>',
        text(
            x + width / 2,
            y + 20,
            words,
            size=12,
            more='text-anchor="middle" font-family="monospace"',
        ),
    ]


def draw() -> str:
    rows = layers()
    top = 64
    height = top + ROW * len(rows) + 210
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" fill="#222">',
        "<title>Layers of sccello-tools and the data flow of a cell</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        text(20, 30, "Layers: each imports only from layers below it", size=16, more='font-weight="bold"'),
    ]  # fmt: skip
    legend = (("takes AnnData", ANNDATA), ("uses torch", TORCH), ("neither", PLAIN))
    for i, (words, colour) in enumerate(legend):
        x = 590 + 125 * i
        parts.append(f'<rect x="{x}" y="18" width="14" height="14" fill="{colour}" stroke="#555"/>')
        parts.append(text(x + 20, 30, words))
    for i, names in enumerate(rows):
        y = top + ROW * i
        parts.append(text(20, y + 20, PURPOSE.get(names[0], ""), more='fill="#555"'))
        for j, name in enumerate(names):
            parts += box(LEFT + (BOX + GAP) * j, y, BOX, name, COLOUR.get(name, PLAIN))
        if i < len(rows) - 1:
            x = LEFT + BOX / 2
            parts.append(f'<path d="M{x:g} {y + 31}v13m-4 -5l4 5l4 -5" fill="none" stroke="#999"/>')
    y = top + ROW * len(rows) + 30
    parts.append(text(20, y, "Data flow of a cell", size=16, more='font-weight="bold"'))
    step = (WIDTH - 40) / len(CELL_STEPS)
    for i, (where, what, form) in enumerate(CELL_STEPS):
        x = 20 + step * i
        parts += box(x, y + 24, step - 26, where, COLOUR.get(where, ANNDATA if "." in where else PLAIN))  # fmt: skip
        for k, line in enumerate(_wrapped(what)):
            parts.append(text(x, y + 76 + 16 * k, line, size=12))
        for k, line in enumerate(_wrapped(form)):
            parts.append(
                text(x, y + 124 + 15 * k, line, size=11, more='font-family="monospace" fill="#555"')
            )
        if i < len(CELL_STEPS) - 1:
            parts.append(
                f'<path d="M{x + step - 24:g} {y + 39}h18m-5 -4l5 4l-5 4" fill="none" stroke="#555"/>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _wrapped(words: str, letters: int = 19) -> list[str]:
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


if __name__ == "__main__":
    OUT.write_text(draw(), encoding="utf-8")
    print(f"wrote {OUT.relative_to(ROOT)}")
