"""Write `label_map.tsv`: the Cell Ontology term of every profile cluster and cell label, with the reason.

python scripts/labels/make_label_map.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import anndata as ad
import pandas as pd
from hcl_rules import OVERRIDES, RULES
from other_rules import (
    BRAIN,
    BROAD_HCA,
    PROFILE_EXCEPTIONS,
    SORTED_IMMUNE,
    TABULA_SAPIENS,
    TISSUE_PROFILES,
)

from sccello_tools.ontology import CellOntology

HERE = Path(__file__).parent
COLUMNS = [
    "source",
    "tissue",
    "sample",
    "author_label",
    "n",
    "kind",
    "cl_id",
    "cl_name",
    "decision",
    "reason",
]
# mature and immature B cell, forebrain neuroblast, glial cells of fetal gut
COARSENED = {"CL:0000785": "CL:0000236", "CL:0000816": "CL:0000236", "CL:1000042": "CL:0000031"}
# tissue at the end of a cluster's name, where the reference has it there
_SUFFIX = re.compile(
    r" (Adult Bone Marrow|Cord Blood|Fetal Spinal|Preimplantation|Airway Epithelium_Plasschaert|Breast Epithelium_Nguyen"
    r"|Haematopoietic Stem Cell_Velten|Lympho Myeloid Progenitor_Paresh)$"
)


RESERVED = ("Adult Pancreas_Baron",)
_used: set[tuple[str, str, str]] = set()


def hcl_base(name: str) -> str:
    """Name of a cluster without the marker gene that tells it from others of its type."""
    return re.sub(r"\s+", " ", name).strip(" _")


def hcl_term(name: str, tissue: str, sample: str) -> tuple[str | None, str, str]:
    """Find the first rule; returns the term's name, the reason and how the name was read."""
    full = hcl_base(name)
    if (tissue, sample, full) in OVERRIDES:
        term, genes = OVERRIDES[tissue, sample, full]
        _used.add((tissue, sample, full))
        return term, f"{genes} (against the name)", full
    bare = _SUFFIX.sub("", full)
    stripped = re.sub(r"[ _]+[A-Za-z0-9/ .-]+?[ _](high|HIGH)$", "", bare).strip(" _")
    where = (
        "Adult Bone Marrow"
        if tissue in {"CD34P", "CD34N"} and "Adult Bone Marrow" in full
        else tissue
    )
    for want_name, want_tissue, term, reason in RULES:
        for text in (full, bare, stripped):
            if re.fullmatch(want_name, text, re.IGNORECASE) and (
                re.fullmatch(want_tissue, tissue, re.IGNORECASE)
                or re.fullmatch(want_tissue, where, re.IGNORECASE)
            ):
                if term and term.startswith("{"):
                    of_sample = dict(re.findall(r"\{(\d)\}([^|]+)", term)).get(sample, "None")
                    return None if of_sample == "None" else of_sample, reason, stripped
                return term, reason, stripped
    return None, "NO RULE", stripped


def rows_of_profiles(data: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    hcl = ad.read_h5ad(data / "profiles" / "human_cell_landscape.h5ad").obs.astype(str)
    for name, tissue, sample in zip(hcl.cell_type, hcl.tissue, hcl["sample"]):
        label = name if name.strip() else tissue
        term, reason, _ = hcl_term(label, tissue, sample)
        if tissue in RESERVED:
            term, reason = None, "may summarise cells that are kept for evaluation"
        rows.append(
            {
                "source": "human_cell_landscape",
                "tissue": tissue,
                "sample": sample,
                "author_label": hcl_base(label),
                "term": term,
                "reason": reason,
            }
        )
    profiles = ad.read_h5ad(data / "tissue_profiles.h5ad").obs.astype(str)
    for source, label, stage, tissue in zip(
        profiles.source, profiles.original_label, profiles.stage, profiles.tissue
    ):
        term, reason = PROFILE_EXCEPTIONS.get(
            (source, label), (TISSUE_PROFILES.get(label, "?"), "as named")
        )
        if term == "?":
            term, reason = None, "NO RULE"
        rows.append(
            {
                "source": "tissue_profiles",
                "tissue": f"{stage} {tissue}",
                "sample": source,
                "author_label": label,
                "term": term,
                "reason": reason,
            }
        )
    for source, table in (
        ("tabula_sapiens", TABULA_SAPIENS),
        ("sorted_immune_bulk", SORTED_IMMUNE),
        ("broad_types_hca", BROAD_HCA),
    ):
        for label in pd.read_parquet(data / "profiles" / f"{source}.parquet").columns:
            term = table.get(label, "?")
            rows.append(
                {
                    "source": source,
                    "tissue": "",
                    "sample": "",
                    "author_label": label,
                    "term": None if term == "?" else term,
                    "reason": "NO RULE" if term == "?" else "as named",
                }
            )
    for source, table in BRAIN.items():
        for label in pd.read_parquet(data / "profiles" / "brain" / f"{source}.parquet").columns:
            if label == "Average":
                continue
            term = table.get(label, "?")
            rows.append(
                {
                    "source": f"brain/{source}",
                    "tissue": "brain",
                    "sample": "",
                    "author_label": label,
                    "term": None if term == "?" else term,
                    "reason": "NO RULE" if term == "?" else "as named",
                }
            )
    for row in rows:
        row.update(n=1, kind="profile")
        if row["term"] is None and row["reason"] == "as named":
            row["reason"] = "several types, or unclear"
    return rows


def rows_of_cells(data: Path) -> list[dict[str, object]]:
    rows = []
    for folder in ("train", "train_more", "release_only"):
        for path in sorted((data / "cells" / folder).glob("*.h5ad")):
            obs = ad.read_h5ad(path, backed="r").obs.astype(str)
            counted = obs.groupby(["tissue", "original_label", "cell_type_ontology_term_id"]).size()
            for (tissue, label, term), n in counted.items():
                coarser = COARSENED.get(term)
                reason = "broader: one small source of its own" if coarser else "label of the data"
                rows.append(
                    {
                        "source": f"{folder}/{path.stem}",
                        "tissue": tissue,
                        "sample": "",
                        "author_label": label,
                        "cl_id": coarser or term,
                        "n": n,
                        "kind": "cells",
                        "reason": reason,
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    ontology = CellOntology.load()
    by_name = {ontology.name(term): term for term in ontology if not ontology.is_obsolete(term)}
    rows = rows_of_profiles(args.data) + rows_of_cells(args.data)
    for row in rows:
        if "cl_id" not in row:
            name = row.pop("term")
            row["cl_id"] = by_name[name] if name else ""
        row["cl_name"] = ontology.name(row["cl_id"]) if row["cl_id"] else ""
        row["decision"] = "map" if row["cl_id"] else "leave out"
    table = pd.DataFrame(rows)[COLUMNS]
    table.to_csv(HERE / "label_map.tsv", sep="\t", index=False)
    mapped = table[table.decision == "map"]
    print(f"{len(mapped)} of {len(table)} labels mapped to {mapped.cl_id.nunique()} terms")
    print("overrides that name no cluster:", sorted(set(OVERRIDES) - _used))
    print(table[table.reason == "NO RULE"].to_string())


if __name__ == "__main__":
    main()
