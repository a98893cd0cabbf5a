"""Measured cells and cluster profiles that may train, as counts and expected expression over the gene vocabulary.

Measured cells are kept as counts, so that they can be thinned and restricted to gene panels before they are ranked. Profiles hold the
expected fraction of each gene; synthetic cells are drawn from them. `cells/eval/` is never read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from labels.label_space import RESERVED_TISSUES, read_label_map
from scipy import sparse

from sccello_tools.tokens import VOCABULARY_SIZE, match_gene_names

if TYPE_CHECKING:
    from pathlib import Path

    from sccello_tools.ontology import CellOntology

LABEL = "cell_type_ontology_term_id"
HCL = "human_cell_landscape"

# Files of one study are held out together. Files that are not listed are studies of their own.
STUDIES = {
    "kang_pbmc_6donors": "kang",
    "zheng_facs": "zheng",
    "ovarian_tumour_3donors": "qian_ovary",
    "geact_bladder": "geact",
    "geact_bone_marrow": "geact",
    "geact_bronchus": "geact",
    "geact_diaphragm": "geact",
    "geact_esophagus": "geact",
    "geact_large_intestine": "geact",
    "geact_sorted_blood": "geact",
    "geact_thymus": "geact",
    "hao_pbmc_rectangle": "hao",
    "vangalen_bone_marrow": "vangalen",
    "pdac_moncada_card": "moncada",
    "pdac_moncada_allgenes": "moncada",
    "pelka2021_colon_epithelium": "pelka",
    "li2017_colon_mucosa": "li2017",
    "zilionis2019_nsclc": "zilionis",
    "scdeconr_breast_komen_gtex": "scdeconr",
    "janesick2023_breast_ffpe": "janesick",
    "malt_10x_citeseq": "malt",
    "scdatasets_pollen": "pollen",
    "scdatasets_iPSC": "ipsc",
    "braun2023_fetal_telencephalon": "braun",
    "ventotormo2018_decidua_lr": "ventotormo",
    "allen2018_acc_v1_nuclei": "allen2018",
}
# Types of which a single small study has the subtypes "mature", "immature" and "enteric" use the broader term.
COARSENED = {"CL:0000785": "CL:0000236", "CL:0000816": "CL:0000236", "CL:1000042": "CL:0000031"}


@dataclass(frozen=True, eq=False)
class Cells:
    """Measured cells."""

    counts: sparse.csr_matrix
    """(n_cells, vocabulary) float32 raw counts, one column per token."""
    obs: pd.DataFrame
    """Columns folder, file, study, donor, tissue, assay, original_label, cl_id."""
    genes: dict[str, np.ndarray]
    """Tokens that each file has a column for."""

    def take(self, rows: np.ndarray) -> Cells:
        """Select rows by index or mask."""
        return Cells(self.counts[rows], self.obs[rows].reset_index(drop=True) if rows.dtype == bool else self.obs.iloc[rows].reset_index(drop=True), self.genes)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Profiles:
    """Expected expression of clusters."""

    expected: sparse.csr_matrix
    """(n_profiles, vocabulary) float32; rows sum to 1."""
    obs: pd.DataFrame
    """Columns source, tissue, sample, author_label, cl_id."""
    genes: dict[str, np.ndarray]
    """Tokens that each source measured."""

    def take(self, rows: np.ndarray) -> Profiles:
        """Select rows by index or mask."""
        return Profiles(self.expected[rows], self.obs[rows].reset_index(drop=True) if rows.dtype == bool else self.obs.iloc[rows].reset_index(drop=True), self.genes)  # fmt: skip


def onto_vocabulary(
    matrix: sparse.spmatrix | np.ndarray, names: list[str]
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Sum the columns of each token; also return the tokens that have a column."""
    match = match_gene_names(names, min_matched=300)
    matched = np.flatnonzero(match.tokens >= 0)
    to_token = sparse.csr_matrix(
        (np.ones(len(matched), np.float32), (matched, match.tokens[matched])),
        shape=(len(names), VOCABULARY_SIZE),
    )
    found = sparse.csr_matrix(sparse.csr_matrix(matrix, dtype=np.float32) @ to_token)
    found.sort_indices()
    return found, np.unique(match.tokens[matched])


def read_cells(data: Path, folders: tuple[str, ...]) -> Cells:
    """Read the labelled cells of some folders of `cells/`."""
    parts, frames, genes = [], [], {}
    for folder in folders:
        for path in sorted((data / "cells" / folder).glob("*.h5ad")):
            adata = ad.read_h5ad(path)
            counts, tokens = onto_vocabulary(adata.X, adata.var_names.tolist())
            obs = adata.obs.astype(str)
            # the pancreas file holds three studies
            study = obs["dataset"] if path.stem == "pancreas" else STUDIES.get(path.stem, path.stem)
            frame = obs[["tissue", "assay", "original_label"]].assign(
                folder=folder,
                file=path.stem,
                study=study,
                donor=obs.get("donor", ""),
                cl_id=obs[LABEL].replace(COARSENED),
            )
            parts.append(counts)
            frames.append(frame)
            genes[path.stem] = tokens
    counts, obs = sparse.vstack(parts).tocsr(), pd.concat(frames, ignore_index=True)
    usable = obs.cl_id.str.startswith("CL:").to_numpy() & (np.diff(counts.indptr) > 0)
    return Cells(counts, obs, genes).take(usable)


def read_profiles(data: Path) -> Profiles:
    """Read the profiles that have a term in the label map."""
    table = read_label_map()
    table = table[table.kind == "profile"].reset_index(drop=True)
    parts, genes = [], {}

    def add(source: str, matrix: np.ndarray | sparse.spmatrix, names: list[str]) -> None:
        expected, genes[source] = onto_vocabulary(matrix, names)
        parts.append(expected)

    for source, path in ((HCL, "profiles/human_cell_landscape.h5ad"), ("tissue_profiles", "tissue_profiles.h5ad")):  # fmt: skip
        adata = ad.read_h5ad(data / path)
        add(source, adata.X, adata.var_names.tolist())
    for source in ("tabula_sapiens", "sorted_immune_bulk", "broad_types_hca"):
        frame = pd.read_parquet(data / "profiles" / f"{source}.parquet")
        values, names = frame.to_numpy(dtype=np.float32).T, frame.index.astype(str)
        if source == "tabula_sapiens":  # a value of 1 means not detected; "-" was replaced by "."
            values, names = np.maximum(values - 1, 0), names.str.replace(".", "-")
        add(source, values, names.tolist())
    for source in dict.fromkeys(s for s in table.source if s.startswith("brain/")):
        frame = pd.read_parquet(data / "profiles" / f"{source}.parquet").drop(columns="Average")
        values = np.exp2(frame.to_numpy(dtype=np.float32).T) - 1  # log2(CPM + 1)
        add(source, values, frame.index.astype(str).tolist())
    expected = sparse.vstack(parts).tocsr()
    if expected.shape[0] != len(table):
        msg = f"The label map has {len(table)} profiles, the data {expected.shape[0]}. Re-run scripts/labels/make_label_map.py."
        raise ValueError(msg)
    expected.data = np.maximum(expected.data, 0)
    expected.eliminate_zeros()
    total = np.asarray(expected.sum(1)).ravel()
    usable = (table.decision == "map").to_numpy() & (total > 0)
    usable &= ~table.tissue.isin(RESERVED_TISSUES).to_numpy()
    scaled = sparse.diags(1 / total[usable]) @ expected[usable]
    return Profiles(
        sparse.csr_matrix(scaled, dtype=np.float32), table[usable].reset_index(drop=True), genes
    )


def complete_genes(
    profiles: Profiles, ontology: CellOntology, *, n_neighbours: int = 3
) -> Profiles:
    """Fill the genes that the Human Cell Landscape did not measure.

    Its profiles hold 6,075 marker genes only, so that cells drawn from them would lack most of a cell's tokens. The missing genes are
    those of the most similar profiles with all genes; similarity is the correlation over the measured genes plus half the ontology
    similarity of the types.
    """
    expected = profiles.expected.toarray()
    group = profiles.obs.source.str.split("/").str[0].to_numpy()
    rows = np.flatnonzero(group == HCL)
    donors = np.flatnonzero(~np.isin(group, (HCL, "sorted_immune_bulk")))
    measured = np.zeros(VOCABULARY_SIZE, bool)
    measured[profiles.genes[HCL]] = True
    inside = expected[:, measured]
    log = np.log1p(1e4 * inside / np.maximum(inside.sum(1, keepdims=True), 1e-9))

    def scaled(x: np.ndarray) -> np.ndarray:
        z = (x - x.mean(0)) / (x.std(0) + 0.2)
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    terms = profiles.obs.cl_id.to_numpy()
    up = {term: ontology.ancestors(term, include_self=True) for term in set(terms)}
    related = {(a, b): _relatedness(a, b, up) for a in set(terms[rows]) for b in set(terms[donors])}
    similarity = scaled(log[rows]) @ scaled(log[donors]).T
    similarity += 0.5 * np.array([[related[terms[i], terms[j]] for j in donors] for i in rows])
    for row, scores in zip(rows, similarity, strict=True):
        best = np.argsort(-scores)[:n_neighbours]
        weights = np.exp(3 * (scores[best] - scores[best[0]]))
        mean = (weights / weights.sum()) @ expected[donors[best]]
        expected[row] = np.where(measured, expected[row] * mean[measured].sum(), mean)
    tokens = np.flatnonzero(measured | (expected[rows] > 0).any(0))
    return Profiles(
        sparse.csr_matrix(expected.astype(np.float32)),
        profiles.obs,
        {**profiles.genes, HCL: tokens},
    )


def _relatedness(a: str, b: str, up: dict[str, frozenset[str]]) -> float:
    if a == b:
        return 2.0
    if a in up[b] or b in up[a]:
        return 1.0
    return 2 * len(up[a] & up[b]) / (len(up[a]) + len(up[b]))


@dataclass(frozen=True, eq=False)
class Styles:
    """Gene-wise factors that turn the expression of a profile source into that of a measured study."""

    factors: np.ndarray
    """(n_styles, vocabulary) float32."""
    of_source: dict[str, np.ndarray]
    """Styles of each profile source."""

    @classmethod
    def of(cls, cells: Cells, profiles: Profiles, *, pseudo: float = 2e-5, strengths: tuple[float, ...] = (0.4, 0.7, 1.0)) -> Styles:  # fmt: skip
        """Average log ratios over the types that a study and a source share; a strength scales the log ratio."""
        studies = {
            study: _mean_expression(cells, study, min_cells=10)
            for study in sorted(set(cells.obs.study))
        }
        terms, sources = profiles.obs.cl_id.to_numpy(), profiles.obs.source.to_numpy()
        factors: list[np.ndarray] = []
        of_source: dict[str, list[int]] = {}
        for source in dict.fromkeys(sources):
            here = np.flatnonzero(sources == source)
            measured = np.zeros(VOCABULARY_SIZE, bool)
            measured[profiles.genes[source]] = True
            means = {
                t: np.asarray(profiles.expected[here[terms[here] == t]].mean(0)).ravel()
                for t in set(terms[here])
            }
            for expression, genes in studies.values():
                shared, both = sorted(set(expression) & set(means)), measured & genes
                if len(shared) < 2 or both.sum() < 3000:
                    continue
                ratios = [
                    np.log(
                        _fractions(expression[t][both], pseudo) / _fractions(means[t][both], pseudo)
                    )
                    for t in shared
                ]
                mean = np.clip(np.mean(ratios, 0), -3, 3)
                for strength in strengths:
                    factor = np.ones(VOCABULARY_SIZE, np.float32)
                    factor[both] = np.exp(strength * mean)
                    of_source.setdefault(source, []).append(len(factors))
                    factors.append(factor)
        return cls(np.array(factors), {k: np.array(v) for k, v in of_source.items()})


def _mean_expression(cells: Cells, study: str, *, min_cells: int) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    rows = np.flatnonzero((cells.obs.study == study).to_numpy())
    terms = cells.obs.cl_id.to_numpy()[rows]
    found = {}
    for term in sorted(set(terms)):
        mine = rows[terms == term]
        if len(mine) >= min_cells:
            total = np.asarray(cells.counts[mine].sum(0)).ravel()
            found[term] = total / total.sum()
    genes = np.zeros(VOCABULARY_SIZE, bool)
    for file in set(cells.obs.file.to_numpy()[rows]):
        genes[cells.genes[file]] = True
    return found, genes


def _fractions(values: np.ndarray, pseudo: float) -> np.ndarray:
    return values / values.sum() + pseudo
