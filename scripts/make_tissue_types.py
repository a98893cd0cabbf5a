"""Write resources/tissue_types.tsv: which cell types were recorded in which tissue.

    python scripts/make_tissue_types.py --data ../shared/data

From the labels (no counts) of CellProfileLibrary's tissue profiles and of the training cells.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad

TARGET = Path(__file__).parents[1] / "src" / "sccello_tools" / "resources" / "tissue_types.tsv"
# known of every brain, but not by name in these profiles
ANATOMY = (("brain", "CL:0000129", "microglial cell"),)
COLUMN = "cell_type_ontology_term_id"
SAME = {
    "immunecensus": "blood",
    "islet of Langerhans": "pancreas",
    "cerebrum": "brain",
    "cerebellum": "brain",
    "retina": "eye",
    "ileum": "intestine",
    "colon": "intestine",
    "rectum": "intestine",
    "decidua": "uterus",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    files = [
        args.data / "tissue_profiles.h5ad",
        *sorted((args.data / "cells" / "train").glob("*.h5ad")),
    ]
    found: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for path in files:
        obs = ad.read_h5ad(path, backed="r").obs
        kept = obs[obs[COLUMN].astype(str).str.startswith("CL:")]
        for row in kept[["tissue", COLUMN, "cell_type"]].drop_duplicates().itertuples(index=False):
            tissue = SAME.get(str(row[0]), str(row[0]))
            name, sources = found.setdefault((tissue, str(row[1])), (str(row[2]), set()))
            sources.add(path.stem)
    for tissue, term, name in ANATOMY:
        found.setdefault((tissue, term), (name, set()))[1].add("anatomy")
    with TARGET.open("w", encoding="utf-8") as out:
        out.write("tissue\tcell_type_ontology_term_id\tcell_type\tsource\n")
        for (tissue, term), (name, sources) in sorted(found.items()):
            out.write(f"{tissue}\t{term}\t{name}\t{','.join(sorted(sources))}\n")
    print(f"{TARGET}: {len(found)} rows, {len({tissue for tissue, _ in found})} tissues")


if __name__ == "__main__":
    main()
