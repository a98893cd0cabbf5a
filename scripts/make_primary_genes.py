"""Write ``resources/primary_genes.txt``: which of the genes that share a symbol lies on the primary assembly.

    python scripts/make_primary_genes.py --data ../shared/data

The vocabulary holds genes of alternative haplotypes too (HLA-A, TNF, ... have two or more ids there), and today's symbol is the
same for all of them. Reference annotations for counting hold the primary assembly only, so a gene that such data list is primary.
Three data sets, counted with three different references, are asked. Where they leave none or several, nothing is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata

from sccello_tools.tokens import GeneVocabulary
from sccello_tools.tokens.vocabulary import current_symbols

COUNTED_WITH = {
    "train/pancreas": "GENCODE as CELLxGENE uses it, GRCh38",
    "train/zheng_facs": "10x reference, hg19",
    "eval/lung_lines_mixology": "Ensembl, GRCh38",
}
TARGET = Path(__file__).parents[1] / "src" / "sccello_tools" / "resources" / "primary_genes.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds cells/")
    folder = parser.parse_args().data / "cells"
    listed: set[str] = set()
    for name in COUNTED_WITH:
        listed.update(anndata.read_h5ad(folder / f"{name}.h5ad", backed="r").var_names)

    primary = set()
    for symbols in (current_symbols(), GeneVocabulary.load().genes_by_symbol):
        for genes in symbols.values():
            found = listed.intersection(genes)
            if len(genes) > 1 and len(found) == 1:
                primary |= found
    sources = "; ".join(COUNTED_WITH.values())
    header = (
        "# Genes that share their symbol with others of the vocabulary, and of these alone are in reference annotations of the",
        f"# primary assembly ({sources}). Made by scripts/make_primary_genes.py.",
    )
    TARGET.write_text("\n".join([*header, *sorted(primary)]) + "\n")
    print(f"{len(primary)} genes in {TARGET.name}")


if __name__ == "__main__":
    main()
