"""Cell Ontology terms for cells, also of types that no training cell had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.counts import CountsSource, warn_of_uncalibrated_cells, warn_user
from sccello_tools._anndata.groups import group_labels
from sccello_tools._anndata.marker_counts import counts_beside
from sccello_tools._anndata.writing import check_writable, storable_names, write_slots, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools._validation import check_alpha
from sccello_tools.errors import ArgumentError
from sccello_tools.ontology import CellOntology

from ._embed import loaded_model
from ._hidden_states import hidden_states, provenance_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from scipy import sparse

    from sccello_tools._anndata.marker_counts import MarkerCounts
    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy

Source = Literal["embedding", "ontology", "markers"]
_CHUNK = 4096  # cells; scores of 700 terms are 12 MB per source


@shared_docs
def annotate_novel(
    adata: AnnData,
    *,
    model: str | Path | LoadedModel = "sccello-small",
    use_rep: str | None = None,
    evidence: Sequence[Source] = ("embedding", "ontology", "markers"),
    markers: pd.DataFrame | Mapping[str, Sequence[str]] | None = None,
    candidates: Sequence[str] | str | None = None,
    tissue: str | Sequence[str] | None = None,
    organism: Literal["human", "any"] = "human",
    level: Literal["auto", "type"] = "auto",
    alpha: float = 0.1,
    groupby: str | None = None,
    return_scores: bool = False,
    method: Literal["combined", "published"] = "combined",
    key_added: str = _keys.CELL_TYPE,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    ontology: CellOntology | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Annotate each cell with a Cell Ontology term, of a known or an unseen type, and a calibrated confidence.

    Three sources of evidence are combined: the embedding (a classifier of the known types and the distance to them), the ontology (rank
    correlation between the similarities of the cell and those of a term to the known types, the zero-shot score of scCello) and
    published marker genes. Cells that resemble a known type are assigned to it, or to a broader term if the confidence is too low. The
    other cells are assigned to the term with the highest score among all human terms with known markers.

    Parameters
    ----------
    adata
        %(adata)s
    model
        %(model)s A model without calibration (see :func:`calibrate`) annotates from its prototypes, with a warning.
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` computed with this model. By default, ``"X_sccello"`` is used if it
        fits, else computed and written.
    evidence
        Sources of evidence to use.
    markers
        Your own markers: a mapping from term (id or name) to marker genes (symbols or Ensembl ids), or a table (see
        :meth:`sccello_tools.annotation.CellMarkers.from_frame`). They replace those of the same terms in
        :func:`sccello_tools.datasets.cell_markers`.
    candidates
        Candidate terms, as a list of ids or names, or a single id or name for all descendants of a term. By default, the known types
        and all human terms with markers (``method="combined"``), or all human terms (``method="published"``).
    tissue
        Tissue of the cells, such as ``"pancreas"`` or ``["lung", "heart"]``: known types are weighted by how common they are there, or
        excluded if they are restricted to other organs (see :func:`sccello_tools.annotation.allowed_types`), depending on the model. By default,
        models with tissue weights infer the tissues from the cells.
    organism
        ``"human"`` excludes terms of other species unless they are listed in ``candidates``. This is not the species of the cells; for
        mouse genes see :func:`sccello_tools.pp.match_genes`.
    level
        ``"auto"`` backs off to a broader term if the confidence is low; ``"type"`` assigns the most probable type. Has no effect on
        ``candidates``.
    alpha
        Accepted fraction of wrong terms among cells of known types. The threshold of confidence is set for the data set as a whole.
    groupby
        Column of ``adata.obs`` with clusters, which are annotated as well, by the mean evidence of their cells.
    return_scores
        Also write the probabilities of the known types, or the scores of the candidates.
    method
        ``"combined"`` uses all evidence. ``"published"`` assigns the candidate with the highest rank correlation as in scCello; its
        scores are not probabilities, so there is no confidence.
    key_added
        Column of ``adata.obs`` and prefix of the names of the others.
    %(counts_source)s
    device
        %(device)s
    ontology
        Cell Ontology; the bundled release by default.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the modified copy with ``copy=True``. Fields written:

    `adata.obs[key_added]`, `adata.obs[key_added + "_ontology_term_id"]` : category
        Name and id of the term; missing for cells without counts.
    `adata.obs[key_added + "_confidence"]` : float32
        Calibrated probability that the cell is of this type or a subtype; for novel cells, the probability among open terms.
    `adata.obs["sccello_novelty"]` : float32
        Log odds of an open term against the known types, corrected for the typical value of the type and for a shift of the whole
        data set. Cells above 0 are novel.
    `adata.obs[key_added + "_status"]` : category
        "known"; "novel_subtype": novel, and a specific term is supported; "unknown": novel, and only a broad term (fewer than three levels
        below the root) is supported. Missing for cells without counts.
    `adata.obs[key_added + "_runner_up"]`, `adata.obs[key_added + "_runner_up_ontology_term_id"]` : category
        Most probable other type.
    `adata.obs[key_added + "_cluster"]`, with the suffixes of the cells' columns : category, float32
        With ``groupby``: annotation of the cell's cluster.
    `adata.obsm[key_added + "_evidence"]` : DataFrame of float32
        How much each source favours the most probable type over the runner-up, in log odds; see :func:`sccello_tools.get.annotation_df`.
    `adata.obsm[key_added + "_scores"]` : DataFrame of float32
        With ``return_scores``: one column per known type or candidate.
    `adata.uns[key_added]` : dict
        Model, hash of its weights, parameters, versions, whether the model is calibrated.

    Raises
    ------
    LabelError
        If a candidate or a term of ``markers`` is unknown, obsolete without a successor, or ambiguous, or the tissue is unknown.
    ArgumentError
        If ``evidence`` or ``markers`` is not valid.
    WeightsError
        If the model has neither calibration nor labelled prototypes.
    ConfigError
        If ``use_rep`` is not an embedding of this model, or ``alpha`` is not in (0, 1).
    GroupError
        If ``groupby`` is not a column of clusters.
    NotCountsError, GeneMatchError
        As :func:`embed`, if the embedding has to be computed.

    Notes
    -----
    The score of a term t is :math:`\theta \cdot f(\mathrm{cell}, t)` with marker features (t-values of a univariate linear model of
    standardised expression on marker weights), the expected similarity of t to the cell's known type (log personalised PageRank and Lin similarity), and
    the Spearman correlation of the cell's cosines to the known types with their PageRank similarity to t (arXiv 2408.12373, section 4.3). The
    weights are learnt on studies and types that were held out in turn. Cells whose counts are not available are annotated
    without markers, with a warning.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> adata.obs["sccello_cell_type_status"].cat.categories.tolist()
    ['known', 'novel_subtype', 'unknown']
    >>> sccello.tl.annotate_novel(adata, candidates="pancreatic endocrine cell", key_added="endocrine")
    """
    from sccello_tools.annotation import (
        CONTRIBUTIONS,
        CellMarkers,
        annotator_for,
        calibrated_lengths,
        calibration_warning,
        evidence_of,
        in_tissues,
        infer_tissues,
        resolve_candidates,
        tissue_sample,
    )

    check_writable(adata, copy=copy, key_added=key_added)
    check_alpha(alpha)
    sources = check_evidence(evidence)
    ontology = ontology or CellOntology.load()
    own_markers = None if markers is None else CellMarkers.of_user(markers, ontology)
    terms = None
    if candidates is not None or method == "published":
        terms = resolve_candidates(candidates, ontology, organism=organism)
    clusters = None if groupby is None else group_labels(adata, groupby)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    # the embedding is a result of its own: it is also written to the copy
    target = adata.copy() if copy else adata
    loaded = loaded_model(model, device)
    fit = evidence_of(loaded)
    annotator = annotator_for(
        fit,
        ontology,
        own_markers,
        candidates=terms,
        tissue=tissue,
        evidence=sources,
        method=method,
        level=level,
        alpha=alpha,
    )
    columns = storable_names(annotator.columns, what="types") if return_scores else []
    states = hidden_states(target, loaded, source, use_rep=use_rep, device=device)
    found_counts = None
    if "markers" in sources:
        stored = str(provenance_of(target, states.key).get("layer", "X"))
        found_counts = counts_beside(target, source, stored)
        if found_counts is None:
            warn_user(
                f"{source.name} does not hold raw counts of enough genes, so cells are annotated without marker evidence. Pass the layer with raw counts, or evidence=('embedding', 'ontology')."
            )
        else:
            annotator = annotator.for_columns(found_counts.tokens)
    if warning := calibration_warning(fit, loaded.name):
        warn_user(warning)
    if _keys.N_TOKENS in target.obs:
        n_tokens = target.obs[_keys.N_TOKENS].to_numpy()
        warn_of_uncalibrated_cells(n_tokens, calibrated_lengths(fit, loaded.config.max_positions))
    tissues: dict[str, float] = {}
    if tissue is None:
        sample = tissue_sample(target.n_obs)
        tissues = infer_tissues(annotator, states.hidden[sample], states.cells(sample))
        annotator = in_tissues(annotator, tissues)
    codes = None if clusters is None else np.asarray(clusters.codes)
    sums = None if clusters is None else annotator.group_sums(len(clusters.categories))
    parts = []
    for rows, raw in _row_chunks(target, found_counts):
        parts.append(
            annotator.partial(
                states.hidden[rows],
                states.cells(rows),
                raw,
                groups=None if codes is None else codes[rows],
                sums=sums,
                return_scores=return_scores,
            )
        )
    found = annotator.finish(parts)
    obs = found.columns(key_added, annotator.term_names)
    if sums is not None and codes is not None:
        groups = annotator.finish_groups(sums, found)
        of_groups = groups.columns(key_added + _keys.CLUSTER_SUFFIX, annotator.term_names)
        del of_groups[_keys.NOVELTY]  # the column holds the novelty of cells
        obs |= {name: values[codes] for name, values in of_groups.items()}
    index = target.obs_names
    contributions = pd.DataFrame(found.contributions, index=index, columns=list(CONTRIBUTIONS))
    obsm = {key_added + _keys.EVIDENCE_SUFFIX: contributions}
    if return_scores:
        scores = pd.DataFrame(found.scores, index=index, columns=columns)
        obsm[key_added + _keys.SCORES_SUFFIX] = scores
    record = {
        "model": loaded.name,
        "weights_sha256": loaded.sha256,
        "calibrated": fit.calibrated,
        "use_rep": states.key,
        **_source_record(found_counts),
        "evidence": list(sources),
        "level": level,
        "alpha": alpha,
        "method": method,
        "n_candidates": len(annotator.columns),
        "candidates": "" if terms is None or candidates is None else list(terms),
        "tissue": "" if tissue is None else tissue if isinstance(tissue, str) else list(tissue),
        "inferred_tissues": tissues,
        "groupby": groupby or "",
        "novelty_shift": found.shift,
        "confidence_threshold": found.threshold,
        "ontology_release": ontology.release,
        **({} if own_markers is None else {"markers": own_markers.table}),
    }
    with writing(target, copy=False) as writable:
        slots = write_slots(writable, key_added, record, obs=obs, obsm=obsm)
    log_written("annotate_novel", *slots)
    return target if copy else None


def _row_chunks(
    adata: AnnData, counts: MarkerCounts | None
) -> Iterator[tuple[slice, sparse.csr_array | None]]:
    """Yield ranges of rows with their counts; at least one, so that no cells give empty columns of the right type."""
    if counts is None or not adata.n_obs:
        for start in range(0, max(adata.n_obs, 1), _CHUNK):
            yield slice(start, min(start + _CHUNK, adata.n_obs)), None
        return
    for chunk in counts.chunks(adata, _CHUNK):
        yield slice(chunk.start, chunk.start + chunk.rows.shape[0]), chunk.rows


def _source_record(counts: MarkerCounts | None) -> dict[str, Any]:
    """Return where the counts of marker evidence are, for :func:`sccello_tools.get.annotation_df`."""
    if counts is None:
        return {"layer": ""}
    source = counts.source
    return {
        "layer": source.layer or "X",
        "gene_ids": source.gene_ids or "",
        "min_matched": source.min_matched,
        "counts": source.counts,
    }


def check_evidence(evidence: Sequence[str]) -> tuple[Source, ...]:
    """Return the sources of evidence in their order.

    Raises
    ------
    ArgumentError
        If a source is unknown, or there is none.
    """
    from sccello_tools.annotation import ALL_SOURCES

    asked = [evidence] if isinstance(evidence, str) else list(evidence)
    unknown = [name for name in asked if name not in ALL_SOURCES]
    if unknown or not asked:
        found = repr(unknown[0]) if unknown else "none"
        msg = f"evidence must hold some of {', '.join(map(repr, ALL_SOURCES))}; got {found}"
        raise ArgumentError(msg)
    return tuple(name for name in ALL_SOURCES if name in asked)
