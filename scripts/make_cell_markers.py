"""Write resources/cell_markers.parquet and resources/expression_background.npz: published markers, and what they are compared with.

    python scripts/make_cell_markers.py --data ../shared/data

Markers are the human rows of the Cell Marker Accordion (MIT), matched to the gene vocabulary. Each positive marker gets a weight: its
expected standardised expression in cells of the type, predicted from how many and which resources list it, how many other
terms have it, and where those stand in the ontology. The prediction is learnt by gradient boosting on measured cells (cells/train,
cells/train_more) and synthetic cells drawn from published profiles, with each lineage predicted by a model that saw no type of it. Types held
out of training for the evaluation, and their subtypes, are never used. The background is the mean and standard deviation of
log1p(counts per 10,000) over the same cells, all types and sources counting alike.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import sccello_tools as sccello
from sccello_tools.ontology import CellOntology, match_label
from sccello_tools.tokens import GeneVocabulary, match_gene_names

RESOURCES = Path(sccello.__file__).parent / "resources"
LABEL = "cell_type_ontology_term_id"
HELD_OUT = ("CL:0000451", "CL:0002275", "CL:0000815")
N_TOKENS = 25_427
# gene panels: their totals are not comparable
PANELS = (
    "allen2018_acc_v1_nuclei",
    "braun2023_fetal_telencephalon",
    "ventotormo2018_decidua_lr",
    "pdac_moncada_card",
)
FULL_LENGTH = ("scdatasets_iPSC", "scdatasets_pollen")
LOWER, UPPER, SD_OFFSET = -1.0, 6.0, 0.1
# roots of the lineages that are left out in turn, the first that fits counts
LINEAGES = (
    "CL:0000084", "CL:0000236", "CL:0000542", "CL:0000763", "CL:0000988", "CL:0000163", "CL:0000540", "CL:0000125", "CL:0000115",
    "CL:0000187", "CL:0002320", "CL:0000066",
)  # fmt: skip
NAMES = {
    "nk cell": "CL:0000623",
    "t cell": "CL:0000084",
    "b cell": "CL:0000236",
    "type ii pneumocyte": "CL:0002063",
    "pericyte cell": "CL:0000669",
}
IMMUNE = {
    "Bnaive": "CL:0000788", "CD4Tcm": "CL:0000904", "CD4Tem": "CL:0000905", "CD4Tnaive": "CL:0000895", "CD8Tcm": "CL:0000907", "CD8Tem": "CL:0000913",
    "CD8Temra": "CL:0001062", "CD8Tnaive": "CL:0000900", "CMonocyte": "CL:0000860", "FOB": "CL:0000843", "GC_B": "CL:0000844", "ILC1": "CL:0001077",
    "ILC2": "CL:0001081", "ILC3": "CL:0001071", "IMonocyte": "CL:0002393", "M0": "CL:0000235", "M1": "CL:0000863", "M2": "CL:0000890", "MAIT": "CL:0000940",
    "MZB": "CL:0000845", "NKT": "CL:0000814", "NMonocyte": "CL:0000875", "Tfh": "CL:0002038", "Th1": "CL:0000545", "Th17": "CL:0000899", "Th2": "CL:0000546",
    "basophils": "CL:0000767", "cytotoxicNK": "CL:0000939", "eosinophils": "CL:0000771", "gdT": "CL:0000798", "mast_cell": "CL:0000097",
    "memoryB": "CL:0000787", "neutrophils": "CL:0000775", "plasma": "CL:0000786", "plasmablast": "CL:0000980", "regulatoryNK": "CL:0000938",
}  # fmt: skip
BRAIN = {
    "Astro": "CL:0000127", "Oligo": "CL:0000128", "OPC": "CL:0002453", "Micro": "CL:0000129", "Microglia": "CL:0000129", "ASC1": "CL:0000127",
    "END": "CL:0000115", "MG": "CL:0000129", "ODC1": "CL:0000128", "GABA1": "CL:0000617", "exCA1": "CL:0000679", "exPFC1": "CL:0000679", "Endo": "CL:0000115",
    "Per": "CL:0000669", "Peric": "CL:0000669", "Mgl": "CL:0000129", "DA0": "CL:0000700", "Sert": "CL:0000850", "GABAergic": "CL:0000617",
    "Glutamatergic": "CL:0000679", "PV": "CL:4023018", "SST": "CL:4023017", "VIP": "CL:4023016",
}  # fmt: skip


class Source(NamedTuple):
    """Cells of one file over the vocabulary."""

    counts: sparse.csr_matrix
    measured: np.ndarray
    terms: np.ndarray


def marker_table(path: Path, ontology: CellOntology) -> pd.DataFrame:
    """One row per term, gene and sign, with evidence, specificity, sources and tissues."""
    rows = pd.read_parquet(path)
    rows = rows[rows["species"] == "Human"]
    current = {}
    for term in rows["CL_ID"].unique():
        try:
            current[term] = ontology.current(term)
        except sccello.errors.LabelError:
            print(f"left out: {term}, obsolete without successor")
    symbols = rows["marker"].unique().tolist()
    match = match_gene_names(symbols, min_matched=1)
    print(match)
    rows = rows.assign(
        term=rows["CL_ID"].map(current),
        gene=rows["marker"].map(dict(zip(symbols, match.gene_ids.tolist()))),
    )
    rows = rows[rows["term"].notna() & (rows["gene"] != "")]
    joined = lambda values: ",".join(sorted(set(values)))  # noqa: E731
    table = rows.groupby(["term", "gene", "marker_type"], as_index=False).agg(
        evidence=("ECs_global", "max"),
        specificity=("SPs_global", "max"),
        sources=("resource", joined),
        tissues=("Uberon_ID", joined),
    )
    table.insert(2, "positive", table.pop("marker_type") == "positive")
    return table.rename(columns={"term": LABEL, "gene": "gene_id"})


def over_vocabulary(
    matrix: np.ndarray | sparse.csr_matrix, names: pd.Index
) -> tuple[sparse.csr_matrix, np.ndarray]:
    tokens = match_gene_names(names, min_matched=100).tokens
    columns = np.flatnonzero(tokens >= 0)
    to_token = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), (columns, tokens[columns])),
        shape=(len(tokens), N_TOKENS),
    )
    measured = np.zeros(N_TOKENS, dtype=bool)
    measured[tokens[columns]] = True
    return sparse.csr_matrix(sparse.csr_matrix(matrix) @ to_token), measured


def draw(profiles: sparse.csr_matrix, n_each: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw synthetic counts: gene-wise log-normal noise, then a multinomial of a cell's depth."""
    rows = []
    for row in range(profiles.shape[0]):
        genes = profiles.indices[profiles.indptr[row] : profiles.indptr[row + 1]]
        share = profiles.data[profiles.indptr[row] : profiles.indptr[row + 1]].astype(float)
        for _ in range(n_each):
            noisy = share * rng.lognormal(0, 0.4, share.size)
            depth = int(np.clip(rng.lognormal(np.log(3_000), 0.7), 500, 30_000))
            counts = rng.multinomial(depth, noisy / noisy.sum())
            found = np.flatnonzero(counts)
            rows.append((genes[found], counts[found]))
    indptr = np.cumsum([0, *(len(genes) for genes, _ in rows)])
    return sparse.csr_matrix(
        (
            np.concatenate([c for _, c in rows]).astype(np.float32),
            np.concatenate([g for g, _ in rows]),
            indptr,
        ),
        shape=(len(rows), N_TOKENS),
    )


def profile_sources(data: Path, ontology: CellOntology, barred: set[str]) -> dict[str, Source]:
    """Synthetic cells of published profiles; types held out of training are left out."""
    rng = np.random.default_rng(0)

    def term_of(name: str) -> str:
        match = match_label(name, ontology)
        return match.id if match.is_mapped else ""

    found: dict[str, Source] = {}

    def add(
        name: str,
        matrix: np.ndarray | sparse.csr_matrix,
        genes: pd.Index,
        terms: list[str],
        n_each: int,
    ) -> None:
        profiles, measured = over_vocabulary(matrix, genes)
        kept = np.flatnonzero([bool(term) and term not in barred for term in terms])
        cells = draw(profiles[kept], n_each, rng)
        found[name] = Source(cells, measured, np.repeat(np.array(terms)[kept], n_each))

    tissues = ad.read_h5ad(data / "tissue_profiles.h5ad")
    add(
        "tissue_profiles",
        tissues.X,
        tissues.var_names,
        [ontology.current(t) if t else "" for t in tissues.obs[LABEL].astype(str)],
        8,
    )
    landscape = ad.read_h5ad(data / "profiles" / "human_cell_landscape.h5ad")
    cut = [
        re.sub(r"[ ._]+[A-Z0-9][A-Z0-9.-]+ high.*$", "", str(name))
        for name in landscape.obs["cell_type"]
    ]
    cut = [re.sub(r"_.*$", "", name).replace(".", " ").strip() for name in cut]
    of_name = {name: term_of(name) for name in sorted(set(cut))}
    add(
        "human_cell_landscape", landscape.X, landscape.var_names, [of_name[name] for name in cut], 3
    )
    sapiens = pd.read_parquet(data / "profiles" / "tabula_sapiens.parquet")
    terms = [NAMES.get(c) or ("" if "/" in c else term_of(c)) for c in sapiens.columns]
    add(
        "tabula_sapiens",
        sapiens.to_numpy(np.float32).T,
        pd.Index([g if g.startswith("A1BG") else g.replace(".", "-") for g in sapiens.index]),
        terms,
        20,
    )
    immune = pd.read_parquet(data / "profiles" / "sorted_immune_bulk.parquet")
    add(
        "sorted_immune_bulk",
        immune.to_numpy(np.float32).T,
        immune.index,
        [ontology.current(IMMUNE[c]) if c in IMMUNE else "" for c in immune.columns],
        20,
    )
    for path in sorted((data / "profiles" / "brain").glob("*.parquet")):
        brain = pd.read_parquet(path)
        cpm = (2 ** brain.to_numpy().T - 1).clip(0).astype(np.float32)
        add(
            f"brain {path.stem}",
            cpm,
            brain.index,
            [ontology.current(BRAIN[c]) if c in BRAIN else "" for c in brain.columns],
            20,
        )
    return found


def cell_sources(data: Path, ontology: CellOntology, barred: set[str]) -> dict[str, Source]:
    """Measured training cells."""
    found = {}
    for path in [
        p
        for folder in ("train", "train_more")
        for p in sorted((data / "cells" / folder).glob("*.h5ad"))
    ]:
        if path.stem in PANELS:
            continue
        adata = ad.read_h5ad(path)
        counts, measured = over_vocabulary(adata.X, adata.var_names)
        terms = np.array(
            [
                ontology.current(t) if t.startswith("CL:") else ""
                for t in adata.obs[LABEL].astype(str)
            ]
        )
        kept = np.flatnonzero((terms != "") & ~np.isin(terms, list(barred)))
        found[path.stem] = Source(counts[kept], measured, terms[kept])
    return found


def sample(source: Source, n_each: int) -> Source:
    rng = np.random.default_rng(0)
    rows = [
        rng.permutation(np.flatnonzero(source.terms == t))[:n_each] for t in np.unique(source.terms)
    ]
    kept = np.sort(np.concatenate(rows))
    return Source(source.counts[kept], source.measured, source.terms[kept])


def log_cp10k(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    logged = counts.astype(np.float32).tocsr().copy()
    totals = np.maximum(np.asarray(logged.sum(axis=1)).ravel(), 1e-9)
    logged.data = np.log1p(
        logged.data * np.repeat((1e4 / totals).astype(np.float32), np.diff(logged.indptr))
    )
    return logged


def background(sources: dict[str, Source]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd by token, each type of each source counting alike; sd 0 where no source measures the gene."""
    weight, first, second = (np.zeros(N_TOKENS) for _ in range(3))
    for source in sources.values():
        cells = sample(source, 40)
        _, member, counts = np.unique(cells.terms, return_inverse=True, return_counts=True)
        w = 1 / np.maximum(counts[member], 3)
        logged = log_cp10k(cells.counts)
        weight[cells.measured] += w.sum()
        first += w @ logged
        second += w @ logged.power(2)
    mean = first / np.maximum(weight, 1e-9)
    sd = np.sqrt(np.maximum(second / np.maximum(weight, 1e-9) - mean**2, 0))
    return mean.astype(np.float16), np.where(weight > 0, np.maximum(sd, 1e-4), 0).astype(np.float16)


def mean_standardised(
    sources: dict[str, Source], mean: np.ndarray, sd: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean standardised expression of each type over sources; NaN for genes that were not measured."""
    mean, sd = mean.astype(np.float32), sd.astype(np.float32)
    zero = np.clip(-mean / (sd + SD_OFFSET), LOWER, UPPER)
    found: dict[str, list[np.ndarray]] = {}
    for name, source in sources.items():
        if name in FULL_LENGTH:
            continue
        cells = sample(source, 60)
        z = log_cp10k(cells.counts)
        z.data = (
            np.clip((z.data - mean[z.indices]) / (sd[z.indices] + SD_OFFSET), LOWER, UPPER)
            - zero[z.indices]
        )
        for term in np.unique(cells.terms):
            rows = np.flatnonzero(cells.terms == term)
            if len(rows) < 3:
                continue
            average = np.asarray(z[rows].mean(axis=0)).ravel() + zero
            average[~cells.measured] = np.nan
            found.setdefault(str(term), []).append(average.astype(np.float32))
    with np.errstate(invalid="ignore"):
        return {term: np.nanmean(np.stack(values), axis=0) for term, values in found.items()}


def lineage(term: str, ontology: CellOntology) -> int:
    above = ontology.ancestors(term, include_self=True)
    return next(
        (i for i, root in enumerate(LINEAGES) if root in above), len(LINEAGES) + int(term[-1]) % 2
    )


def features(
    table: pd.DataFrame, mean: np.ndarray, sd: np.ndarray, ontology: CellOntology
) -> np.ndarray:
    """What is known of each positive marker, in the order of the positive rows of the table; shape (n_rows, n_features)."""
    token_of = GeneVocabulary.load().token_of
    positive, negative = table[table["positive"]], table[~table["positive"]]
    terms = sorted(set(positive[LABEL]))
    place = {term: i for i, term in enumerate(terms)}
    tokens = positive["gene_id"].map(token_of).to_numpy()
    row_of = positive[LABEL].map(place).to_numpy()
    evidence = np.zeros((len(terms), N_TOKENS), np.float32)
    evidence[row_of, tokens] = positive["evidence"]
    absent = np.zeros((len(terms), N_TOKENS), np.float32)
    kept = negative[negative[LABEL].isin(place)]
    absent[kept[LABEL].map(place), kept["gene_id"].map(token_of)] = kept["evidence"]
    listed = positive["sources"].str.split(",")
    resources = sorted({name for names in listed for name in names})
    by_resource = np.array(
        [[name in names for name in resources] for names in listed.map(set)], np.float32
    )
    n_terms = (evidence > 0).sum(axis=0)
    n_strong = (evidence >= 3).sum(axis=0)
    total = evidence.sum(axis=0)
    blocks = np.zeros((len(positive), 17), np.float32)
    for term, i in place.items():
        rows = np.flatnonzero(row_of == i)
        genes = tokens[rows]
        above = [place[t] for t in ontology.ancestors(term) if t in place]
        below = [place[t] for t in ontology.descendants(term) if t in place]
        parents = [place[t] for t in ontology.parents(term) if t in place]
        siblings = [
            place[c]
            for p in ontology.parents(term)
            for c in ontology.children(p)
            if c in place and c != term
        ]
        others = np.setdiff1d(np.arange(len(terms)), [*above, *below, i])

        def most(which, of=evidence, genes=genes):
            return of[which][:, genes].max(axis=0) if len(which) else np.zeros(len(genes))

        own = evidence[i, genes]
        blocks[rows] = np.stack(
            [
                own, own / own.max(), own / (total[genes] + 1), most(above), evidence[above][:, genes].sum(axis=0), most(parents),
                most(below), (evidence[below][:, genes] > 0).mean(axis=0) if below else np.zeros(len(genes)), most(siblings), most(others),
                most([i], absent), most(above, absent), n_terms[genes], n_strong[genes], np.full(len(genes), len(genes)), mean[genes],
                sd[genes],
            ],
            axis=1,
        )  # fmt: skip
    return np.hstack([blocks, by_resource])


def learn_weights(
    table: pd.DataFrame,
    expression: dict[str, np.ndarray],
    inputs: np.ndarray,
    ontology: CellOntology,
) -> np.ndarray:
    """Predict the mean standardised expression of each positive marker in its type, never from a type of its lineage."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    positive = table[table["positive"]]
    tokens = positive["gene_id"].map(GeneVocabulary.load().token_of).to_numpy()
    terms = positive[LABEL].to_numpy()
    nothing = np.full(N_TOKENS, np.nan, np.float32)
    target = np.array([expression.get(term, nothing)[token] for term, token in zip(terms, tokens)])
    fold = np.array([lineage(term, ontology) for term in terms])
    known = np.isfinite(target)
    _, member, counts = np.unique(terms, return_inverse=True, return_counts=True)
    weight = 1 / np.sqrt(counts[member])
    predicted = np.zeros(len(positive))
    for number in np.unique(fold):
        rows = np.flatnonzero(known & (fold != number))
        model = HistGradientBoostingRegressor(
            max_iter=200,
            learning_rate=0.08,
            max_leaf_nodes=24,
            min_samples_leaf=200,
            l2_regularization=5.0,
            random_state=0,
        ).fit(inputs[rows], target[rows], sample_weight=weight[rows] / weight[rows].mean())
        predicted[fold == number] = model.predict(inputs[fold == number])
    print(
        f"{known.sum():,} of {len(known):,} markers measured; correlation of prediction and measurement {np.corrcoef(predicted[known], target[known])[0, 1]:.3f}"
    )
    return np.maximum(predicted, 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESOURCES)
    args = parser.parse_args()
    ontology = CellOntology.load()
    barred = set(HELD_OUT).union(*(ontology.descendants(term) for term in HELD_OUT))
    table = marker_table(args.data / "markers_by_cl_term.parquet", ontology)
    sources = {
        **cell_sources(args.data, ontology, barred),
        **profile_sources(args.data, ontology, barred),
    }
    mean, sd = background(sources)
    expression = mean_standardised(sources, mean, sd)
    print(
        f"{len(table):,} markers of {table[LABEL].nunique()} terms; expression of {len(expression)} types"
    )
    inputs = features(table, mean.astype(np.float32), sd.astype(np.float32), ontology)
    weights = np.zeros(len(table))
    weights[table["positive"].to_numpy()] = learn_weights(table, expression, inputs, ontology)
    table["weight"] = np.round(weights, 2).astype(np.float32)
    table = table.astype(
        {
            LABEL: "category",
            "gene_id": "category",
            "sources": "category",
            "tissues": "category",
            "evidence": "uint8",
            "specificity": "float32",
        }
    )
    path = args.out / "cell_markers.parquet"
    table.to_parquet(path, compression="zstd", compression_level=19, index=False)
    np.savez_compressed(args.out / "expression_background.npz", mean=mean, sd=sd)
    print(
        f"{path}: {path.stat().st_size / 1e6:.2f} MB; background {(args.out / 'expression_background.npz').stat().st_size / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
