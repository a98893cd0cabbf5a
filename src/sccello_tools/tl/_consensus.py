"""Consensus of the cell types of several annotators."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools import _keys
from sccello_tools._anndata.columns import as_text, require_obs
from sccello_tools._anndata.counts import warn_user
from sccello_tools._anndata.groups import group_labels
from sccello_tools._anndata.writing import check_writable, write_slots, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written, logger
from sccello_tools._messages import quoted
from sccello_tools.errors import ArgumentError, LabelError
from sccello_tools.ontology import CellOntology, consensus_term, is_uninformative, match_labels
from sccello_tools.ontology.consensus import check_min_agreement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray


class _Votes(NamedTuple):
    """Votes of one annotator."""

    terms: tuple[str, ...]
    """Distinct Cell Ontology ids."""
    codes: NDArray[np.intp]
    """(n_obs,) index into ``terms``, -1 for no vote."""
    weights: NDArray[np.float64]
    """(n_obs,)"""


@shared_docs
def consensus(
    adata: AnnData,
    keys: Sequence[str],
    *,
    weights: Mapping[str, float | str] | None = None,
    groupby: str | None = None,
    min_agreement: float = 0.5,
    overrides: Mapping[str, str] | None = None,
    key_added: str = _keys.CONSENSUS,
    ontology: CellOntology | Path | str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Combine the cell types of several annotators into one Cell Ontology term per cell.

    Labels of any annotator (this package, CellTypist, SingleR, Azimuth, authors) may be Cell Ontology ids or free text, which is mapped
    as by :func:`sccello_tools.pp.map_cell_types`. A vote supports its term and all ancestors of it. With weights :math:`w_k`, the votes
    :math:`t_k` and :math:`\mathrm{anc}(t)` the ancestors of a term including itself, the consensus is the deepest term :math:`t` with

    .. math:: \frac{\sum_k w_k\,[t \in \mathrm{anc}(t_k)]}{\sum_k w_k} > \mathrm{min\_agreement}.

    Annotators without a label, with a label that cannot be mapped, or with an uninformative label ("cell", "unknown") do not vote in
    that cell.

    Parameters
    ----------
    adata
        Annotated data.
    keys
        Columns of ``adata.obs`` with the labels, one per annotator. Ids are taken from ``key + "_ontology_term_id"`` if present.
    weights
        Weight by key: a number, or a column of ``adata.obs`` with the weight of each cell, such as a confidence. By default all
        annotators have weight 1; keys that are not mentioned have weight 1, too.
    groupby
        Column of ``adata.obs`` with groups such as clusters: votes of all cells of a group are pooled, and its cells get one term.
    min_agreement
        Fraction of the weight that must be exceeded, in [0.5, 1).
    overrides
        Terms by label, as ids or names, for labels that are not mapped or mapped wrongly.
    key_added
        Column of ``adata.obs``, and prefix of the other fields.
    ontology
        The Cell Ontology, or the path of a ``cl.obo`` file; the bundled release by default.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the AnnData with ``copy=True``. Fields written:

    `adata.obs[key_added]`, `adata.obs[key_added + "_ontology_term_id"]` : category
        Name and id of the term; missing without votes or without an informative common term.
    `adata.obs[key_added + "_agreement"]` : float32
        Fraction of the weight that supports the term; 0 without a term, NaN without votes.
    `adata.obs[key_added + "_n_votes"]` : int32
        Number of annotators that vote in the cell.
    `adata.obs[key_added + "_voting"]` : category
        Keys of these annotators, separated by commas; "" if there are none.
    `adata.obs[key_added + "_dissenting"]` : category
        Those whose term is neither the consensus nor one of its ancestors or descendants.
    `adata.uns[key_added]` : dict
        Keys, weights, numbers of mapped and unmapped cells, parameters, versions.

    Raises
    ------
    LabelError
        If a key is not a column, no label can be mapped, or an override is not a term.
    ArgumentError
        If there are fewer than two keys, a weight is negative or not a number, or ``min_agreement`` is not in [0.5, 1).
    GroupError
        If ``groupby`` is not a column of groups.

    See Also
    --------
    sccello_tools.ontology.consensus_term : the same for the votes of one cell.

    Notes
    -----
    popV (Ergen et al., Nat. Genet. 56:2731, 2024) counts votes of annotators that are trained on one reference in the same way.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:4].copy()
    >>> adata.obs["a"] = ["T cells", "B cell", "beta cell", "unknown"]
    >>> adata.obs["b"] = ["B cell", "B cells", "alpha cell", "T cell"]
    >>> adata.obs["c"] = ["monocyte", "plasma cell", "pancreatic B cell", "T cell"]
    >>> sccello.tl.consensus(adata, ["a", "b", "c"])
    >>> adata.obs["sccello_consensus"].tolist()
    ['lymphocyte', 'B cell', 'type B pancreatic cell', 'T cell']
    >>> adata.obs["sccello_consensus_dissenting"].tolist()
    ['c', 'c', 'b', '']
    """
    check_writable(adata, copy=copy, key_added=key_added)
    check_min_agreement(min_agreement)
    if isinstance(keys, str) or len(dict.fromkeys(keys)) < 2:
        msg = f"keys must name at least two columns of adata.obs, got {keys!r}"
        raise ArgumentError(msg)
    keys = list(dict.fromkeys(keys))
    if key_added in keys:
        msg = f"key_added={key_added!r} is also one of keys. Pass another key_added."
        raise ArgumentError(msg)
    if not isinstance(ontology, CellOntology):
        ontology = CellOntology.load(ontology)
    if unknown := set(weights or {}) - set(keys):
        msg = f"weights contains {', '.join(map(repr, sorted(unknown)))}, which is not among keys ({', '.join(map(repr, keys))})"
        raise ArgumentError(msg)
    votes, counts = [], []
    for key in keys:
        vote, n_unmapped = _votes(adata, key, (weights or {}).get(key, 1.0), overrides, ontology)
        votes.append(vote)
        counts.append((int((vote.codes >= 0).sum()), n_unmapped))
    if not any(n for n, _ in counts):
        msg = f"No label in {', '.join(map(repr, keys))} is mapped to an informative Cell Ontology term. Map them with overrides=."
        raise LabelError(msg)
    n_votes = np.sum([vote.codes >= 0 for vote in votes], axis=0).astype(np.int32)
    if groupby is None:
        terms, agreement = _of_cells(votes, ontology, min_agreement)
    else:
        terms, agreement = _of_groups(votes, group_labels(adata, groupby), ontology, min_agreement)
    agreement[n_votes == 0] = np.nan
    if groupby is None:
        terms[n_votes == 0] = ""
    voting = _listed(keys, [vote.codes >= 0 for vote in votes])
    dissenting = _listed(keys, [_disagrees(vote, terms, ontology) for vote in votes])
    shown = {term: ontology.name(term) for term in set(terms.tolist()) - {""}}
    columns = {
        key_added: pd.Categorical([shown.get(term) for term in terms]),
        key_added + _keys.TERM_ID_SUFFIX: pd.Categorical([term or None for term in terms]),
        key_added + _keys.AGREEMENT_SUFFIX: agreement.astype(np.float32),
        key_added + _keys.N_VOTES_SUFFIX: n_votes,
        key_added + _keys.VOTING_SUFFIX: pd.Categorical(voting),
        key_added + _keys.DISSENTING_SUFFIX: pd.Categorical(dissenting),
    }
    record = {
        "keys": np.array(keys, dtype=object),
        "weights": np.array([str((weights or {}).get(key, 1.0)) for key in keys], dtype=object),
        "n_mapped": np.array([n for n, _ in counts]),
        "n_unmapped": np.array([n for _, n in counts]),
        "groupby": groupby or "",
        "min_agreement": min_agreement,
        "ontology_release": ontology.release,
    }
    with writing(adata, copy=copy) as target:
        slots = write_slots(target, key_added, record, obs=columns)
    log_written("consensus", *slots)
    return target if copy else None


def _votes(
    adata: AnnData,
    key: str,
    weight: float | str,
    overrides: Mapping[str, str] | None,
    ontology: CellOntology,
) -> tuple[_Votes, int]:
    """Return the votes of an annotator and the number of cells with a label that is not mapped."""
    labels = as_text(require_obs(adata, key, argument="keys", error=LabelError))
    id_key = key + _keys.TERM_ID_SUFFIX
    if id_key in adata.obs:
        ids = as_text(require_obs(adata, id_key, argument="keys", error=LabelError))
        labels = np.where(ids == "", labels, ids)
    present = [label for label in labels.tolist() if label]
    known = set(present)
    report = match_labels(
        present, ontology, overrides={k: v for k, v in (overrides or {}).items() if k in known}
    )
    term_of = {match.query: match.id for match in report.matches}
    votes_for = {
        label: term
        for label, term in term_of.items()
        if term and not is_uninformative(label) and not is_uninformative(term)
    }
    unmapped = [
        label for label, term in term_of.items() if not term and not is_uninformative(label)
    ]
    n_unmapped = int(np.isin(labels, unmapped).sum()) if unmapped else 0
    if unmapped:
        warn_user(
            f"{len(unmapped)} of {len(term_of)} labels in adata.obs[{key!r}] ({n_unmapped:,} of {adata.n_obs:,} cells) are not mapped to the Cell "
            f"Ontology and do not vote: {quoted(unmapped)}. Map them with overrides=."
        )
    logger.info("consensus: %s: %s", key, str(report).splitlines()[0])
    terms = tuple(sorted(set(votes_for.values())))
    index = {term: i for i, term in enumerate(terms)}
    distinct, member = np.unique(labels.astype(str), return_inverse=True)
    of_distinct = np.array([index.get(votes_for.get(label, ""), -1) for label in distinct.tolist()])
    codes = of_distinct[member].astype(np.intp)
    values = _weights(adata, key, weight)
    codes[~(values > 0)] = -1
    return _Votes(terms, codes, values), n_unmapped


def _weights(adata: AnnData, key: str, weight: float | str) -> NDArray[np.float64]:
    if isinstance(weight, str):
        column = require_obs(adata, weight, argument="weights", error=LabelError)
        if not pd.api.types.is_numeric_dtype(column):
            msg = f"The weights of {key!r}, adata.obs[{weight!r}], must be numeric, got {column.dtype}"
            raise ArgumentError(msg)
        values = np.nan_to_num(np.asarray(column, dtype=np.float64))
    else:
        values = np.full(adata.n_obs, float(weight))
    if not np.isfinite(values).all() or (values < 0).any():
        msg = f"Weights must be finite and >= 0; those of {key!r} are not"
        raise ArgumentError(msg)
    return values


def _of_cells(
    votes: Sequence[_Votes], ontology: CellOntology, min_agreement: float
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """Return the term and the agreement of each cell."""
    table = np.column_stack([*(v.codes for v in votes), *(v.weights for v in votes)])
    rows, member = np.unique(table, axis=0, return_inverse=True)
    found = []
    for row in rows:
        weight_of: dict[str, float] = {}
        for vote, code, weight in zip(votes, row[: len(votes)], row[len(votes) :]):
            if code >= 0:
                term = vote.terms[int(code)]
                weight_of[term] = weight_of.get(term, 0.0) + float(weight)
        found.append(consensus_term(weight_of, ontology, min_agreement=min_agreement))
    terms = np.array([one.term for one in found], dtype=object)[member.ravel()]
    return terms, np.array([one.agreement for one in found])[member.ravel()]


def _of_groups(
    votes: Sequence[_Votes],
    groups: pd.Categorical[object],
    ontology: CellOntology,
    min_agreement: float,
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """Return the term and the agreement of each cell's group."""
    n_groups = len(groups.categories)
    weight_of: list[dict[str, float]] = [{} for _ in range(n_groups)]
    for vote in votes:
        voted = vote.codes >= 0
        flat = groups.codes[voted].astype(np.intp) * len(vote.terms) + vote.codes[voted]
        totals = np.bincount(
            flat, weights=vote.weights[voted], minlength=n_groups * len(vote.terms)
        ).reshape(n_groups, len(vote.terms))
        for group, code in np.argwhere(totals > 0).tolist():
            term = vote.terms[code]
            weight_of[group][term] = weight_of[group].get(term, 0.0) + float(totals[group, code])
    found = [consensus_term(own, ontology, min_agreement=min_agreement) for own in weight_of]
    terms = np.array([one.term for one in found], dtype=object)[groups.codes]
    return terms, np.array([one.agreement for one in found])[groups.codes]


def _disagrees(
    vote: _Votes, terms: NDArray[np.object_], ontology: CellOntology
) -> NDArray[np.bool_]:
    """Whether a vote is on another lineage than the consensus, shape (n_obs,)."""

    @cache
    def compatible(own: str, term: str) -> bool:
        return own in ontology.ancestors(term, include_self=True) or term in ontology.ancestors(own)

    out = np.zeros(len(terms), dtype=bool)
    for cell in np.flatnonzero((vote.codes >= 0) & (terms != "")).tolist():
        out[cell] = not compatible(vote.terms[vote.codes[cell]], terms[cell])
    return out


def _listed(keys: Sequence[str], flags: Sequence[NDArray[np.bool_]]) -> NDArray[np.object_]:
    """Return the keys that are flagged for each cell, separated by commas."""
    rows, member = np.unique(np.column_stack(flags), axis=0, return_inverse=True)
    texts = [",".join(key for key, flag in zip(keys, row) if flag) for row in rows]
    return np.array(texts, dtype=object)[member.ravel()]
