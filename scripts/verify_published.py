"""Check the published scCello weights on this machine and write a page with the results.

    python scripts/verify_published.py                                   # downloads 44 MB
    python scripts/verify_published.py --evaluation-sets celltype_data1  # and an evaluation set of the paper
    python scripts/verify_published.py --evaluation-sets all --device cuda

The weights are downloaded from the Hugging Face Hub (their hash is pinned), loaded, and used on the cells that ship with the
package: tokens, embeddings, annotation, cell-type separation. With ``--evaluation-sets``, the evaluation sets of the paper are downloaded, too,
and the scores are printed next to the values that the paper and a third party published. The numbers in the page are those that the
run measured; what was not measured is left out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import platform
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

import sccello_tools as sccello
from sccello_tools.annotation import closed_set_protocol
from sccello_tools.corpus import Corpus
from sccello_tools.engine import encode
from sccello_tools.errors import LabelError
from sccello_tools.models.hub import hub_api, hub_errors
from sccello_tools.ontology import CellOntology, match_label
from sccello_tools.tokens import GeneVocabulary, RaggedTokens

if TYPE_CHECKING:
    import anndata as ad

    from sccello_tools.models import LoadedModel

OWNER = "katarinayuan"
SETS = tuple(f"{kind}_data{i}" for kind in ("celltype", "tissue", "donor") for i in (1, 2))
# arXiv 2408.12373, zero-shot clustering of cells of unseen types
PAPER_UNSEEN_TYPES = {"NMI": 0.687, "AvgBio": 0.608}
# accuracy and macro-F1 by fraction of candidate types, from a third party's run of the published code
THIRD_PARTY_NOVEL = {
    0.1: (0.504, 0.408), 0.25: (0.328, 0.265), 0.5: (0.260, 0.171), 0.75: (0.191, 0.126), 1.0: (0.160, 0.098),
}  # fmt: skip


class Cells(NamedTuple):
    """Labelled cells to evaluate on."""

    name: str
    tokens: RaggedTokens
    labels: np.ndarray
    """Cell types as the data set names them."""
    batches: np.ndarray
    """Data set of origin of each cell; "" if unknown."""
    adata: ad.AnnData | None = None
    """The cells with their counts, where these are known."""


def table(header: list[str], rows: list[list[object]]) -> str:
    """Format a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def model_section(model: LoadedModel) -> str:
    """What was downloaded."""
    prototypes = model.prototypes
    source = f"{model.entry.repo}, commit {model.folder.name}" if model.entry.repo else model.folder
    counts = (
        f"{len(model.labels)}, of which {len(prototypes)} are distinct terms of Cell Ontology {CellOntology.load().release} "
        f"({len(prototypes.replaced)} replaced, {len(prototypes.merged)} merged, {len(prototypes.omitted)} omitted)"
    )
    learned = model.network.learned_centroid.weight.detach().cpu()[: len(model.labels)]
    rows = [
        ["source", source],
        ["weights", f"sha256 `{model.sha256}`"],
        ["parameters", f"{model.n_parameters:,}"],
        ["size", f"{model.config.n_layers} layers, {model.config.n_heads} heads, hidden {model.config.hidden_size}"],
        ["temperature", model.config.tau],
        ["labels", counts],
        ["prototypes", f"mean norm {learned.norm(dim=1).mean():.4f}"],
    ]  # fmt: skip
    return "## Weights\n\n" + table(["", ""], rows)


def bundled_cells() -> list[Cells]:
    """The labelled cells that ship with the package."""
    found = []
    for name, load in (
        ("pbmc3k_subsample", sccello.datasets.pbmc3k_subsample),
        ("pancreas_tritschler", sccello.datasets.pancreas_tritschler),
    ):
        adata: ad.AnnData = load()
        tokens = sccello.pp.tokenize(adata)
        labels = adata.obs["cell_type_ontology_term_id"].astype(str).to_numpy()
        found.append(Cells(name, tokens, labels, np.full(len(labels), ""), adata))
    return found


def token_section(cells: list[Cells]) -> str:
    """Tokens, which do not depend on the weights but on the vocabulary."""
    vocabulary = GeneVocabulary.load()
    rows = []
    for one in cells:
        digest = hashlib.sha256(one.tokens.ids.astype("<i4").tobytes()).hexdigest()
        genes = [vocabulary.gene_of[int(i)] for i in one.tokens[0][1:6]]
        symbols = ", ".join(vocabulary.symbol_of.get(gene, gene) for gene in genes)
        rows.append([one.name, len(one.tokens), int(one.tokens.lengths.sum()), symbols, f"`{digest[:16]}`"])  # fmt: skip
    header = ["cells", "n", "tokens", "first genes of the first cell", "sha256 of the ids"]
    return "## Tokens\n\n" + table(header, rows)


def embed(model: LoadedModel, cells: Cells, representation: str) -> np.ndarray:
    """Embed in float32, in which machines agree to about 1e-5."""
    return encode(model.network, cells.tokens, representation=representation, precision="float32")


def embedding_section(model: LoadedModel, cells: list[Cells]) -> str:
    """Figures by which two machines can compare their embeddings."""
    rows = []
    for one in cells:
        few = one._replace(tokens=one.tokens.take(np.arange(min(64, len(one.tokens)))))
        for representation in ("cls", "cell"):
            x = embed(model, few, representation).astype(np.float64)
            first = ", ".join(f"{v:.4f}" for v in x[0, :4])
            rows.append([one.name, representation, f"{np.abs(x).mean():.5f}", f"{x.std():.5f}", first])  # fmt: skip
    header = ["cells", "representation", "mean absolute value", "standard deviation", "first cell"]
    note = "The first 64 cells of each set, float32. Machines agree to about 1e-4.\n\n"
    return "## Embeddings\n\n" + note + table(header, rows)


def quality_rows(
    model: LoadedModel, cells: Cells, *, n_draws: int, fraction: float
) -> list[object]:
    """Mean scores of random subsets, as the published code computes them, or of all cells."""
    x = embed(model, cells, "cls")
    generator = np.random.default_rng(0)
    scores, mixing = [], []
    size = max(2, round(fraction * len(x)))
    for draw in range(n_draws):
        rows = generator.permutation(len(x))[:size] if size < len(x) else np.arange(len(x))
        labels, batches = cells.labels[rows], cells.batches[rows]
        scores.append(sccello.metrics.clustering_score(x[rows], labels, rng=draw)[:4])
        if len(np.unique(batches)) > 1:
            mixing.append(sccello.metrics.integration_score(x[rows], labels, batches).avg_batch)
    mean = np.mean(scores, axis=0)
    batch = f"{np.mean(mixing):.3f}" if mixing else "one batch"
    types = len(np.unique(cells.labels))
    return [cells.name, f"{len(x):,}", types, *(f"{value:.3f}" for value in mean), batch]


def quality_section(model: LoadedModel, bundled: list[Cells], sets: list[Cells]) -> str:
    """Separation of cell types, next to what the paper printed."""
    header = ["cells", "n", "types", "NMI", "ARI", "ASW", "AvgBio", "AvgBatch"]
    rows = [quality_rows(model, cells, n_draws=1, fraction=1.0) for cells in bundled]
    rows += [quality_rows(model, cells, n_draws=10, fraction=0.1) for cells in sets]
    unseen = [row for row in rows if str(row[0]).startswith("celltype")]
    if unseen:
        paper = PAPER_UNSEEN_TYPES
        rows.append(["**paper, unseen types**", "", "", f"{paper['NMI']:.3f}", "", "", f"{paper['AvgBio']:.3f}", ""])  # fmt: skip
    note = (
        'Zero-shot, `representation="cls"`, Louvain resolution with the highest NMI. Evaluation sets: mean of ten random tenths, as in '
        "the published code. The bundled cells are not in the paper.\n\n"
    )
    return "## Cell-type separation\n\n" + note + table(header, rows)


def annotation_section(model: LoadedModel, cells: list[Cells]) -> str:
    """Agreement of `tl.annotate_novel` with the labels of the bundled cells."""
    ontology, known = CellOntology.load(), set(model.prototypes.ids)
    rows = []
    for one in cells:
        if one.adata is None:
            continue
        truth = one.labels
        accepted = {t: {t, *ontology.descendants(t)} for t in np.unique(truth)}
        accepted = {t: terms for t, terms in accepted.items() if terms & known}
        for shown, evidence in (
            ("embedding", ["embedding"]),
            ("embedding, ontology, markers", ["embedding", "ontology", "markers"]),
        ):
            adata = one.adata.copy()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the model is not calibrated
                sccello.tl.annotate_novel(adata, model=model, level="type", evidence=evidence)
            obs = adata.obs
            found = obs["sccello_cell_type_ontology_term_id"].astype(object).fillna("").astype(str)
            score = sccello.metrics.annotation_score(truth, found.to_numpy(), accepted)
            novel = (obs["sccello_cell_type_status"] != "known").mean()
            rows.append([one.name, shown, score.n_cells, f"{score.accuracy:.3f}", f"{score.mean_recall:.3f}", f"{novel:.2f}"])  # fmt: skip
    note = (
        "`tl.annotate_novel` with the learned prototypes, without calibration. Scored are cells of types that the model knows; a subtype "
        "is correct. The paper does not evaluate these cells.\n\n"
    )
    header = ["cells", "evidence", "scored", "accuracy", "mean recall", "fraction not known"]
    return "## Annotation\n\n" + note + table(header, rows)


def novel_section(model: LoadedModel, sets: list[Cells]) -> str | None:
    """Accuracy on cells of unseen types by fraction of candidates, with the learned prototypes."""
    sets = [cells for cells in sets if cells.name.startswith("celltype")]
    if not sets:
        return None
    ontology, prototypes = CellOntology.load(), model.prototypes
    rows = [
        ["third party, published code", f"{100 * f:g} %", *(f"{v:.3f}" for v in values)]
        for f, values in THIRD_PARTY_NOVEL.items()
    ]
    notes = []
    for cells in sets:
        term_of = {label: to_term(label, ontology) for label in np.unique(cells.labels)}
        terms = np.array([term_of[label] or "" for label in cells.labels])
        known = np.isin(terms, prototypes.ids)
        kept = (terms != "") & ~known
        notes.append(
            f"{cells.name}: {kept.sum():,} of {len(terms):,} cells evaluated; {(terms == '').sum():,} without a term, {known.sum():,} of known types."
        )
        if len(np.unique(terms[kept])) < 2:
            continue
        x = embed(model, cells._replace(tokens=cells.tokens.take(np.flatnonzero(kept))), "cell")
        scores = closed_set_protocol(x, terms[kept], prototypes.vectors, prototypes.ids, ontology)
        rows += [[cells.name, f"{100 * s.fraction:g} %", f"{s.accuracy:.3f}", f"{s.macro_f1:.3f}"] for s in scores]  # fmt: skip
    note = (
        "Candidates are random subsets of the unseen types, 20 draws each. Here the learned prototypes stand for the known types; the "
        "published code takes means over training cells, so that its figures are not exactly comparable. "
    )
    header = ["cells", "candidates kept", "accuracy", "macro-F1"]
    return "## Novel cell types\n\n" + note + " ".join(notes) + "\n\n" + table(header, rows)


def to_term(label: str, ontology: CellOntology) -> str | None:
    """Current Cell Ontology id of a label, an id or a name."""
    try:
        return ontology.current(label) if label.startswith("CL:") else match_label(label).id or None
    except LabelError:
        return None


def evaluation_set(name: str, *, max_cells: int) -> Cells:
    """Download an evaluation set of the paper and draw cells from it."""
    folder = download_dataset(f"{OWNER}/scCello_ood_{name}")
    corpus = Corpus.open(folder, max_length=2048)
    rows = np.arange(len(corpus))
    if len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(0).choice(len(corpus), max_cells, replace=False))
    starts = np.cumsum([0, *corpus.block_sizes])
    tokens, labels = [], []
    for block in range(corpus.n_blocks):
        chosen = rows[(rows >= starts[block]) & (rows < starts[block + 1])] - starts[block]
        if len(chosen):
            cells = corpus.read_block(block).take(chosen)
            tokens.append(cells.tokens)
            labels.append(cells.cell_types)
    batches = np.concatenate(
        [batch.column(0).to_pylist() for batch in corpus.record_batches(["cell_dataset_id"])]
    ).astype(str)[rows]
    return Cells(name, RaggedTokens.concatenate(tokens), np.concatenate(labels).astype(str), batches)  # fmt: skip


def download_dataset(repo: str) -> Path:
    """Download the Parquet files of a data set on the Hugging Face Hub; return their folder."""
    api = hub_api()
    with hub_errors(repo, "main"):
        info = api.dataset_info(repo, revision="main")
        names = [f.rfilename for f in info.siblings or () if f.rfilename.endswith(".parquet")]
        paths = [
            Path(api.hf_hub_download(repo, name, revision=info.sha, repo_type="dataset"))
            for name in names
        ]
    if not paths:
        msg = f"{repo} has no Parquet files."
        raise FileNotFoundError(msg)
    return paths[0].parent


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="sccello-zeroshot", help="name, folder or hf://owner/name")  # fmt: skip
    parser.add_argument("--evaluation-sets", nargs="*", default=[], metavar="SET", help=f"all, or any of {', '.join(SETS)}")  # fmt: skip
    parser.add_argument("--max-cells", type=int, default=50_000, help="cells drawn from each evaluation set")  # fmt: skip
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("docs/published_weights.md"))
    args = parser.parse_args(arguments)
    chosen = SETS if "all" in args.evaluation_sets else tuple(args.evaluation_sets)
    if unknown := sorted(set(chosen) - set(SETS)):
        parser.error(f"unknown evaluation sets {unknown}; choose from {', '.join(SETS)}")

    started = time.perf_counter()
    model = sccello.models.load(args.model, device=args.device)
    sections = []

    def add(section: str | None) -> None:
        if section is not None:
            print(f"\n{section}", flush=True)
            sections.append(section)

    add(model_section(model))
    bundled = bundled_cells()
    add(token_section(bundled))
    add(embedding_section(model, bundled))
    add(annotation_section(model, bundled))
    sets = [evaluation_set(name, max_cells=args.max_cells) for name in chosen]
    add(quality_section(model, bundled, sets))
    add(novel_section(model, sets))
    machine = f"{platform.machine()}, {platform.system()}, device {model.device}"
    head = (
        "# Published weights, verified\n\n"
        f"Written by `scripts/verify_published.py` on {dt.datetime.now(tz=dt.UTC).date()} with sccello-tools "
        f"{sccello.__version__}, torch {torch.__version__} ({machine}), in {time.perf_counter() - started:.0f} s.\n\n"
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(head + "\n\n".join(sections) + "\n", encoding="utf-8")
    print(f"\nWritten: {args.out}")


if __name__ == "__main__":
    main()
