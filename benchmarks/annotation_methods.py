"""What a user would annotate cells with instead: rivals of `annotation.py`, on the same cells."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import torch
from embedding import log_cp10k
from scipy import sparse

import sccello_tools as sccello

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

Queries = Mapping[str, "ad.AnnData | sparse.csr_matrix"]
"""Cells by name: AnnData, or counts by token."""
N_TOKENS = 25_427
UNKNOWN = "unknown"


class Reference:
    """Training cells of the evaluation twin for the baselines: measured and synthetic cells, log1p(CP10k) of variable genes."""

    def __init__(self, matrix: NDArray[np.float32], labels: NDArray[np.str_], tokens: NDArray[np.intp], counts: sparse.csr_matrix | None = None, files: NDArray[np.str_] | None = None) -> None:  # fmt: skip
        self.matrix, self.labels, self.tokens = matrix, labels, tokens
        self.counts, self.files = counts, files
        self.classes, self.index = np.unique(labels, return_inverse=True)

    @classmethod
    def load(cls, data: Path, path: Path | None = None) -> Reference:
        """Read the reference from the file that keeps it, or sample it from the data folder and write that file."""
        if path is not None and path.exists():
            stored = np.load(path)
            return cls(stored["matrix"].astype(np.float32), stored["labels"], stored["tokens"])
        sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
        from recipe.setup import prepare, read_sources

        ontology = sccello.ontology.CellOntology.load()
        found = cls.of(prepare(*read_sources(data, ontology, twin=True), ontology, twin=True))
        if path is not None:
            matrix = found.matrix.astype(np.float16)
            np.savez(path, matrix=matrix, labels=found.labels, tokens=found.tokens)
        return found

    @classmethod
    def of(cls, prepared: Any, *, n_each: int = 100, n_synthetic: int = 8_000, n_genes: int = 4_000, seed: int = 0) -> Reference:  # fmt: skip
        """Sample measured cells of each study and type, draw synthetic cells, choose genes by variance.

        Parameters
        ----------
        prepared
            ``TrainingData`` of scripts/recipe/setup.py.
        n_each
            Most cells per file and label.
        n_synthetic
            Cells drawn from profiles.
        n_genes
            Variable genes.
        seed
            Of the sample.
        """
        from recipe.sampling import SamplingConfig

        rng = np.random.default_rng(seed)
        terms = np.array([label.split("|")[0] for label in prepared.targets.labels])
        group = np.char.add(np.char.add(prepared.cells.obs.file.to_numpy().astype(str), "|"), terms[prepared.cell_labels])  # fmt: skip
        rows = np.concatenate(
            [rng.permutation(np.flatnonzero(group == g))[:n_each] for g in np.unique(group)]
        )
        sampler = prepared.sampler(
            SamplingConfig(synthetic=1.0, panel=0.0), max_length=N_TOKENS, seed=seed
        )
        drawn = [sampler(40_000_000 + i, 250, counts=True) for i in range(n_synthetic // 250)]
        synthetic = [_counts_of(batch) for batch in drawn]
        counts = sparse.vstack([prepared.cells.counts[rows], *synthetic]).tocsr()
        labels = np.concatenate(
            [terms[prepared.cell_labels[rows]], *(terms[b.labels] for b in drawn)]
        )
        files = np.concatenate(
            [prepared.cells.obs.file.to_numpy()[rows].astype(str), *(["synthetic"] * len(b.labels) for b in drawn)]
        )  # fmt: skip
        logged = log_normalised(counts)
        squares = logged.copy()
        squares.data **= 2
        variance = np.asarray(squares.mean(0)).ravel() - np.asarray(logged.mean(0)).ravel() ** 2
        tokens = np.sort(np.argsort(-variance)[:n_genes])
        return cls(logged[:, tokens].toarray(), labels, tokens, counts, files)

    @cached_property
    def regression(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and biases of logistic regression on its genes."""
        return fit_regression(self.matrix, self.index, len(self.classes))

    def features(self, query: ad.AnnData | sparse.csr_matrix) -> NDArray[np.float32]:
        """The same genes of other cells."""
        logged = log_normalised(query) if sparse.issparse(query) else log_cp10k(query)
        found: NDArray[np.float32] = logged[:, self.tokens].toarray()
        return found


def log_normalised(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """log1p of counts per 10,000."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return (sparse.diags(1e4 / np.maximum(totals, 1)) @ counts).log1p().tocsr().astype(np.float32)


def _counts_of(batch: Any) -> sparse.csr_matrix:
    lengths = batch.lengths - 1  # without <cls>
    columns = np.concatenate([row[1 : n + 1] for row, n in zip(batch.ids, lengths)])
    values = np.concatenate([row[1 : n + 1] for row, n in zip(batch.counts, lengths)])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_matrix(
        (values.astype(np.float32), columns, starts), shape=(len(lengths), N_TOKENS)
    )


def fit_regression(x: NDArray[np.float32], index: NDArray[np.intp], n_classes: int, *, strength: float = 1.0, max_iter: int = 100) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Multinomial logistic regression with scikit-learn's objective (C = ``strength``), by L-BFGS."""
    features, target = torch.from_numpy(x), torch.from_numpy(index)
    weight = torch.zeros(x.shape[1], n_classes, requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iter, history_size=10, line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(features @ weight + bias, target)
        loss = loss + (weight**2).sum() / (2 * strength * len(x))
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def regression_probabilities(reference: Reference, queries: Queries) -> dict[str, NDArray[np.float32]]:  # fmt: skip
    """Probabilities of the classes of the reference by logistic regression on its genes; fitted once."""
    weight, bias = reference.regression
    return {
        name: torch.softmax(torch.from_numpy(reference.features(query)) @ weight + bias, 1).numpy()
        for name, query in queries.items()
    }


def neighbor_predictions(reference: Reference, queries: Queries) -> dict[str, NDArray[np.str_]]:  # fmt: skip
    """Vote of 15 neighbours on 50 principal components."""
    from sklearn.decomposition import PCA

    from sccello_tools.metrics import knn_vote

    components = PCA(50, svd_solver="randomized", random_state=0).fit(reference.matrix)
    projected = components.transform(reference.matrix)
    return {
        name: knn_vote(projected, reference.labels, components.transform(reference.features(query)), metric="euclidean")
        for name, query in queries.items()
    }  # fmt: skip


def celltypist_predictions(reference: Reference, queries: Queries) -> dict[str, NDArray[np.str_]]:  # fmt: skip
    """CellTypist trained on the same cells and genes."""
    import celltypist

    names = [f"token{i}" for i in reference.tokens]

    def table(matrix: NDArray[np.float32]) -> ad.AnnData:
        cells = ad.AnnData(matrix)
        cells.var_names = names
        return cells

    model = celltypist.train(
        table(reference.matrix), labels=reference.labels, check_expression=False, n_jobs=1, use_SGD=True, mini_batch=True
    )  # fmt: skip
    model_input = {name: table(reference.features(query)) for name, query in queries.items()}
    return {
        name: celltypist.annotate(cells, model=model).predicted_labels["predicted_labels"].astype(str).to_numpy()
        for name, cells in model_input.items()
    }  # fmt: skip


def scanvi_predictions(
    reference: Reference, queries: Mapping[str, sparse.csr_matrix], *, n_genes: int = 2_000, seed: int = 0
) -> dict[str, NDArray[np.str_]]:  # fmt: skip
    """scANVI on the same cells, with files as batches: 30 + 10 epochs, then surgery of 30 epochs on each query without its labels."""
    import scvi

    scvi.settings.seed = seed
    scvi.settings.verbosity = logging.ERROR
    variance = reference.matrix.var(axis=0)
    genes = np.sort(reference.tokens[np.argsort(-variance)[:n_genes]])
    names = [f"token{i}" for i in genes]

    def table(counts: sparse.csr_matrix, source: Any, labels: Any) -> ad.AnnData:
        cells = ad.AnnData(sparse.csr_matrix(counts)[:, genes].astype(np.float32))
        cells.var_names = names
        cells.obs["source"], cells.obs["label"] = source, labels
        # cells without counts of these genes have no library size
        return cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0].copy()

    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = table(reference.counts, reference.files, reference.labels)
        scvi.model.SCVI.setup_anndata(cells, batch_key="source", labels_key="label")
        base = scvi.model.SCVI(cells)
        base.train(max_epochs=30, **quiet)
        model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category=UNKNOWN)
        model.train(max_epochs=10, n_samples_per_label=100, **quiet)
        for name, counts in queries.items():
            asked = table(counts, name, UNKNOWN)
            surgery = scvi.model.SCANVI.load_query_data(asked, model)
            surgery.train(max_epochs=30, plan_kwargs={"weight_decay": 0.0}, **quiet)
            found[name] = np.full(counts.shape[0], UNKNOWN, dtype=object)
            found[name][asked.obs_names.astype(int)] = surgery.predict()
    return {name: values.astype(str) for name, values in found.items()}


def novelty_baselines(annotator: Any, hidden: NDArray[np.float32], cell: NDArray[np.float32], counts: sparse.csr_matrix, reference: Reference, model: LoadedModel) -> dict[str, NDArray[np.floating]]:  # fmt: skip
    """Scores of novelty from the same embedding, classifier and markers; high for novel cells."""
    from sccello_tools.annotation import CellMarkers, OpenWorldAnnotator
    from sccello_tools.annotation.head import softmax

    known, space = annotator.fit.known, annotator.model.space
    logits = known.scale.features(hidden, cell) @ known.weight.T + known.bias
    p = softmax(logits)
    points = (hidden - known.scale.mean) / known.scale.spread
    markers = annotator.scorer(counts).own
    place = {t: i for i, t in enumerate(annotator.scorer.scorer.terms)}
    opened = [place[t] for t in space.open]
    assigned = np.array(known.types)[p.argmax(1)]
    own = np.array(
        [row[place[t]] if t in place else np.median(row) for row, t in zip(markers, assigned)]
    )
    found = {
        "classifier: 1 - largest probability": 1 - p.max(1),
        "classifier: energy": -np.logaddexp.reduce(logits, axis=1),
        "Mahalanobis distance": known.distances.log_nearest(points),
        "markers alone: best open term minus assigned type": markers[:, opened].max(1) - own,
    }
    found |= _ensemble_and_neighbors(points, hidden, cell, known, reference, model)
    for name, evidence in (("embedding and ontology alone", ("embedding", "ontology")), ("markers alone, log-linear", ("markers",))):  # fmt: skip
        part = OpenWorldAnnotator.of(
            annotator.fit, annotator.ontology, CellMarkers.load(), tokens=annotator.scorer.tokens, evidence=evidence
        )  # fmt: skip
        found[name] = part.partial(hidden, cell, counts).novelty
    part = annotator.partial(hidden, cell, counts)
    found["novelty without correction by type and data set"] = part.novelty
    return found


_REFERENCE_STATES: dict[str, tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.str_]]] = {}


def _ensemble_and_neighbors(points: NDArray[np.float32], hidden: NDArray[np.float32], cell: NDArray[np.float32], known: Any, reference: Reference, model: LoadedModel) -> dict[str, NDArray[np.floating]]:  # fmt: skip
    """Nearest reference cells, and an ensemble of classifiers on resampled reference cells."""
    from sklearn.neighbors import NearestNeighbors

    if model.sha256 not in _REFERENCE_STATES:
        from sccello_tools.tokens import GeneVocabulary

        gene_of = GeneVocabulary.load().gene_of
        rows = np.flatnonzero(np.isin(reference.labels, known.types))
        rows = np.random.default_rng(0).permutation(rows)[:6_000]
        cells = ad.AnnData(sparse.csr_matrix(np.expm1(reference.matrix[rows])))
        cells.var_names = [gene_of[int(t)] for t in reference.tokens]
        sccello.tl.embed(cells, model=model, counts="trust")
        found = np.asarray(cells.obsm["X_sccello"], dtype=np.float32)
        with torch.inference_mode():
            of_cell = model.network.cell_representation(torch.from_numpy(found)).numpy()
        _REFERENCE_STATES[model.sha256] = found, of_cell, reference.labels[rows]
    h, c, labels = _REFERENCE_STATES[model.sha256]
    scaled = (h - known.scale.mean) / known.scale.spread
    distances, _ = NearestNeighbors(n_neighbors=15).fit(scaled).kneighbors(points)
    classes, index = np.unique(labels, return_inverse=True)
    features, asked = known.scale.features(h, c), known.scale.features(hidden, cell)
    votes = []
    for seed in range(3):
        rows = np.random.default_rng(seed).integers(len(index), size=len(index))
        weight, bias = fit_regression(
            features[rows], index[rows], len(classes), strength=0.01, max_iter=40
        )
        votes.append(torch.softmax(torch.from_numpy(asked) @ weight + bias, 1).numpy())
    mean = np.mean(votes, axis=0)
    return {
        "distance to 15 nearest cells": distances.mean(1),
        "ensemble of 3 classifiers: entropy": -(mean * np.log(mean + 1e-9)).sum(1),
    }


@cache
def term_vectors() -> tuple[dict[str, int], NDArray[np.float64]]:
    """Row of each term, and its vector of 100 dimensions."""
    from scipy.sparse.linalg import svds

    ontology = sccello.ontology.CellOntology.load()
    walk = np.log(sccello.ontology.pagerank_rows(ontology, ontology.terms) + 1e-6)
    u, s, _ = svds(walk - walk.mean(0), k=100, random_state=0)
    vectors = u * np.sqrt(s)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return {term: row for row, term in enumerate(ontology.terms)}, vectors


def onclass_scores(
    probabilities: NDArray[np.float32], types: list[str], terms: tuple[str, ...]
) -> NDArray[np.float32]:
    """OnClass's published idea, written anew: terms live where a random walk from them leads; a cell is the mean of its known types.

    The walk's distribution over all terms is brought to 100 dimensions by a truncated SVD; a candidate's score is the cosine
    between it and the probability-weighted vectors of the known types.
    """
    place, vectors = term_vectors()
    cell = probabilities @ vectors[[place[t] for t in types]]
    cell /= np.maximum(np.linalg.norm(cell, axis=1, keepdims=True), 1e-12)
    return (cell @ vectors[[place[t] for t in terms]].T).astype(np.float32)


def neighbour_scores(
    nearest: NDArray[np.str_], terms: tuple[str, ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Child or sibling of the nearest known type, at random among them, else at random among all."""
    ontology = sccello.ontology.CellOntology.load()
    scores = rng.random((len(nearest), len(terms))).astype(np.float32)
    for term in np.unique(nearest):
        parents = ontology.parents(str(term))
        related = set(ontology.descendants(str(term))).union(
            *(ontology.descendants(parent) for parent in parents)
        )
        scores[np.ix_(nearest == term, np.array([t in related for t in terms]))] += 1
    return scores
