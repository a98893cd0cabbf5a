"""Cut the excerpt of GDSC2 that ships: 60 lines, 20 drugs, the 1,500 genes that differ most between lines.

python scripts/make_drug_excerpt.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import sccello_tools as sccello
from sccello_tools.drug.checks import NameMatcher

FOLDER = Path(sccello.__file__).parent / "resources" / "drug_response"
N_LINES, N_GENES = 60, 1500
# lines and drugs that the documentation speaks of, and one line without expression, so that the report has something to say
LINES = ("A549", "NCI-H838", "NCI-H1975", "NCI-H2228", "HCC-827")
WITHOUT_EXPRESSION = "NCI-H460"
DRUGS = (
    "Erlotinib", "Gefitinib", "Afatinib", "Osimertinib", "Lapatinib", "Dabrafenib", "PLX-4720", "Trametinib", "Selumetinib", "Nilotinib",
    "Dasatinib", "Venetoclax", "Navitoclax", "Paclitaxel", "Docetaxel", "Cisplatin", "Gemcitabine", "Bortezomib", "Olaparib", "Palbociclib",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    source = parser.parse_args().data / "drug_response"
    expression = pd.read_parquet(source / "cell_line_expression.parquet").set_index("gene")
    responses = pd.read_parquet(source / "gdsc2_ln_ic50.parquet")
    smiles = pd.read_csv(source / "drug_smiles.tsv", sep="\t", dtype=str)

    responses = responses[responses["drug"].isin(DRUGS)]
    measured = responses.groupby("cell_line")["drug"].nunique()
    key = {NameMatcher.key(name): name for name in expression.columns}
    whole = [n for n in measured.index[measured == len(DRUGS)] if NameMatcher.key(n) in key]
    others = [name for name in whole if name not in LINES]
    drawn = np.random.default_rng(0).choice(others, N_LINES - len(LINES), replace=False).tolist()
    lines = sorted([*LINES, *drawn])
    columns = [key[NameMatcher.key(name)] for name in lines]
    table = expression[columns]
    genes = table.index[np.sort(np.argsort(-table.var(axis=1).to_numpy())[:N_GENES])]

    FOLDER.mkdir(parents=True, exist_ok=True)
    table.loc[genes].round(3).reset_index().to_parquet(
        FOLDER / "cell_line_expression.parquet", compression="zstd", index=False
    )
    rows = responses[responses["cell_line"].isin([*lines, WITHOUT_EXPRESSION])]
    rows = rows.astype({"ln_ic50": np.float32}).reset_index(drop=True)
    rows.to_parquet(FOLDER / "gdsc2_ln_ic50.parquet", compression="zstd", index=False)
    kept = smiles[smiles["drug"].isin(DRUGS)]
    kept.to_csv(FOLDER / "drug_smiles.tsv", sep="\t", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
