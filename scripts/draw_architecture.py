"""Draw the layers of the package, as the import contract in pyproject.toml has them, to docs/_static/architecture.svg.

    python scripts/draw_architecture.py

Run it after a change of the contract; a test compares the picture with it.
"""

from __future__ import annotations

import re
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "_static" / "architecture.svg"

# what a layer is for, by its first module; neighbours that no user meets are drawn together
PURPOSE = {
    "__main__": "the terminal",
    "pl": "figures; many files",
    "pp": "AnnData in, AnnData out",
    "train": "training, on Lightning",
    "drug": "drug response",
    "infer": "from vectors to answers",
    "engine": "tokens → vectors",
    "models": "the one door to weights",
    "metrics": "scores: arrays → floats",
    "data": "arrays in, arrays out",
    "_settings": "used everywhere",
}
TORCH, ANNDATA, PLAIN = "#e8d9f1", "#d5e8f5", "#eeeeee"
COLOUR = {
    **dict.fromkeys(("pl", "shard", "pp", "tl", "get", "datasets", "scvi", "__main__"), ANNDATA),
    **dict.fromkeys(
        ("train", "finetune", "drug", "infer", "engine", "perturb", "models", "nn"), TORCH
    ),
}
HIDDEN = {"_cli", "_demo", "_files", "report", "_docs", "_compat", "resources", "errors"}
WIDTH, ROW, LEFT, BOX = 960, 46, 210, 86
CELL_STEPS = (
    ("adata.X", "dense, CSR, CSC, backed, dask", "AnnData"),
    ("data", "genes matched, counts ranked", "RaggedTokens(indptr, ids)"),
    ("engine", "equal token counts, no padding", "ids (T,), cu_seqlens (B + 1,)"),
    ("nn", "encoder, in whichever attention runs here", "float32 (n_cells, d)"),
    ("infer", "terms, confidence, novelty", "arrays of n_cells"),
    ("tl", "in the order of the rows", "obsm, obs, uns"),
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
        text(x + width / 2, y + 20, words, more='text-anchor="middle" font-family="monospace"'),
    ]


def draw() -> str:
    rows = layers()
    top = 64
    height = top + ROW * len(rows) + 210
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" fill="#222">',
        "<title>Layers of sccello-tools, and the way of a cell through them</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        text(20, 30, "Layers: each imports only from those below it", size=16, more='font-weight="bold"'),
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
            parts += box(LEFT + (BOX + 10) * j, y, BOX, name, COLOUR.get(name, PLAIN))
        if i < len(rows) - 1:
            x = LEFT + BOX / 2
            parts.append(f'<path d="M{x:g} {y + 31}v13m-4 -5l4 5l4 -5" fill="none" stroke="#999"/>')
    y = top + ROW * len(rows) + 30
    parts.append(text(20, y, "The way of a cell", size=16, more='font-weight="bold"'))
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
