"""Scores of published marker genes for each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.marker_counts import marker_counts
from sccello_tools._anndata.writing import check_writable, write_slots, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written
from sccello_tools.errors import LabelError
from sccello_tools.ontology import CellOntology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from sccello_tools.tokens.counts import CountsPolicy

_CHUNK = 4096


@shared_docs
def score_markers(
    adata: AnnData,
    markers: pd.DataFrame | Mapping[str, Sequence[str]] | None = None,
    *,
    terms: Sequence[str] | str | None = None,
    key_added: str = _keys.MARKER_SCORES,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    ontology: CellOntology | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Score how strongly the marker genes of Cell Ontology terms are expressed in each cell. Needs counts, but no model.

    Parameters
    ----------
    adata
        %(adata)s
    markers
        A mapping from term (id or name) to marker genes (symbols or Ensembl ids), or a table (see
        :meth:`sccello_tools.annotation.CellMarkers.from_frame`). By default :func:`sccello_tools.datasets.cell_markers`.
    terms
        Terms to score, as a list of ids or names, or a single id or name for all descendants of a term. By default all terms with
        markers, which takes 3 GB for a million cells.
    key_added
        Key of ``adata.obsm``.
    %(counts_source)s
    ontology
        Cell Ontology; the bundled release by default.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the modified copy with ``copy=True``. Fields written:

    `adata.obsm[key_added]` : DataFrame of float32
        One column per term (Cell Ontology id); 0 for terms with fewer than three measured markers (unless they have fewer), NaN for cells
        without counts.
    `adata.uns[key_added]` : dict
        Names of the terms, and the number of measured markers of each.

    Raises
    ------
    LabelError
        If a term is unknown, ambiguous or has no markers.
    ArgumentError
        If ``markers`` is not valid.
    NotCountsError, GeneMatchError
        If the matrix does not hold raw counts of human genes.

    Notes
    -----
    The score is the t-value of the slope in a linear model of the standardised expression of all measured genes on the marker weights of
    the term, as the univariate linear model (ULM) of decoupler (Badia-i-Mompel et al. 2022). Expression is log1p of counts per
    10,000, standardised with mean and standard deviation over a broad range of cell types and clipped to [-1, 6], so
    the scores of a cell do not depend on the other cells. Packaged weights are the expected standardised expression; those
    of your own markers are sqrt(evidence) log((1 + number of terms) / number of terms with the gene).

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> sccello.tl.score_markers(adata, {"type B pancreatic cell": ["INS", "IAPP"], "acinar cell": ["PRSS1", "CPA1"]})
    >>> adata.obsm["sccello_marker_scores"].columns.tolist()
    ['CL:0000169', 'CL:0000622']
    """
    from sccello_tools.annotation import CellMarkers, MarkerScorer, resolve_candidates

    check_writable(adata, copy=copy, key_added=key_added)
    ontology = ontology or CellOntology.load()
    table = CellMarkers.load() if markers is None else CellMarkers.of_user(markers, ontology)
    chosen = table.terms
    if terms is not None:
        there = set(chosen)
        asked = resolve_candidates(terms, ontology)
        chosen = tuple(term for term in asked if term in there)
        missing = [term for term in asked if term not in there]
        if not chosen or (missing and not isinstance(terms, str)):
            shown = ", ".join(f"{term} ({ontology.name(term)})" for term in missing[:5])
            msg = f"{len(missing)} terms have no markers: {shown}. Omit them, or pass markers= for them."
            raise LabelError(msg)
    found_counts = marker_counts(adata, CountsSource(layer, gene_ids, counts, min_matched))
    scorer = MarkerScorer.of(table, ontology, terms=chosen).bind(found_counts.tokens)
    scores = np.full((adata.n_obs, len(chosen)), np.nan, dtype=np.float32)
    for chunk in found_counts.chunks(adata, _CHUNK):
        scores[chunk.start : chunk.start + chunk.rows.shape[0]] = scorer(chunk.rows).own
    table_of_scores = pd.DataFrame(scores, index=adata.obs_names, columns=list(chosen), copy=False)
    record = {
        "names": [ontology.name(term) for term in chosen],
        "n_measured": scorer.n_measured,
        "layer": layer or "X",
        "ontology_release": ontology.release,
    }
    with writing(adata, copy=copy) as target:
        slots = write_slots(target, key_added, record, obsm={key_added: table_of_scores})
    log_written("score_markers", *slots)
    return target if copy else None
