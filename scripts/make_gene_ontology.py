"""Make the compact Gene Ontology that ships: terms without definitions, and which gene has which term.

    python scripts/make_gene_ontology.py --data ../shared/data

Gene Ontology 2022-07-01 (CC BY 4.0), by way of GO.db and org.Hs.eg.db 3.16.0. Annotations "no data" (ND) say nothing and are left out.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import sccello_tools

FOLDER = Path(sccello_tools.__file__).parent / "resources" / "gene_ontology"
KEPT = ("id", "name", "namespace", "alt_id", "is_a", "is_obsolete", "replaced_by")


def slim(text: str) -> str:
    """Keep of each term what enrichment needs."""
    lines = []
    for line in text.splitlines():
        tag, _, _ = line.partition(":")
        if line.startswith("[") or not line or tag in KEPT:
            lines.append(line.split(" ! ")[0])
        elif tag in {"format-version", "data-version", "ontology", "remark"}:
            lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    (source,) = args.data.glob("go-*.obo.gz")
    with gzip.open(source, "rt") as file:
        text = slim(file.read())
    # without a time stamp, so that the same input gives the same file
    (FOLDER / source.name).write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))

    table = pd.read_parquet(args.data / "gene_ontology_annotations.parquet")
    table = table[table["evidence"] != "ND"][["gene_id", "go_id"]].drop_duplicates()
    table = table.sort_values(["go_id", "gene_id"], ignore_index=True)
    # numbers without their prefix: a third of the size
    numbers = pa.table(
        {
            "gene": pa.array(table["gene_id"].str.removeprefix("ENSG").astype("int64")),
            "term": pa.array(table["go_id"].str.removeprefix("GO:").astype("int32")),
        }
    )
    pq.write_table(
        numbers, FOLDER / "annotations.parquet", compression="zstd", compression_level=19
    )
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
