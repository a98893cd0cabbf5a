"""In-silico perturbation of chosen genes and gene sets."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from sccello_tools import __version__, _keys
from sccello_tools._anndata.counts import CountsSource, warn_user
from sccello_tools._anndata.writing import check_writable, writing
from sccello_tools._docs import shared_docs
from sccello_tools._logging import log_written, logger
from sccello_tools._messages import quoted
from sccello_tools._progress import progress_bar
from sccello_tools._random import seed_of
from sccello_tools.errors import ArgumentError, GeneMatchError, GroupError
from sccello_tools.ontology import CellOntology, match_label

from ._perturbed_cells import PerturbedCells, tokens_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, Literal

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike
    from sccello_tools.engine import Precision
    from sccello_tools.models import LoadedModel
    from sccello_tools.perturbation import CellShifts, Mode, Perturbation, Target
    from sccello_tools.tokens.counts import CountsPolicy

_MAX_TARGET_CELLS = 200
_MAX_PAIRS = 2_000


@shared_docs
def perturb(
    adata: AnnData,
    genes: str | Sequence[str | Sequence[str]] | Mapping[str, Sequence[str]],
    *,
    mode: Mode = "mask",
    groupby: str | None = None,
    toward: str | AnnData | None = None,
    pairs: bool = False,
    method: Literal["perturb", "fast"] = "perturb",
    n_cells_per_group: int = 50,
    n_controls: int = 100,
    model: str | Path | LoadedModel = "sccello-small",
    layer: str | None = None,
    gene_ids: str | None = None,
    max_length: int | None = None,
    batch_tokens: int | Literal["auto"] = "auto",
    device: str = "auto",
    precision: Precision = "float32",
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    key_added: str = _keys.PERTURBATION,
    layer_added: str | None = None,
    ontology: CellOntology | None = None,
    rng: RNGLike = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Measure how far genes or gene sets shift the cells of each group when they are masked, deleted or overexpressed.

    With :math:`u` and :math:`u'` the normalised ``<cls>`` vectors of a cell before and after the perturbation and :math:`t` that of a
    target,

    .. math:: \mathrm{shift} = 1 - u \cdot u', \qquad \mathrm{toward} = (u' - u) \cdot \frac{t - u}{\lVert t - u \rVert}.

    Both are averaged over the sampled cells of a group whose tokens the perturbation changes. The null distribution consists of the
    same averages for random genes of similar rank: a p-value states whether the effect exceeds that of genes of similar expression, not
    whether it is reproducible between donors.

    Parameters
    ----------
    adata
        %(adata)s
    genes
        Names from ``adata.var_names``: one gene; a list of genes, perturbed one at a time; a list with tuples of genes, each perturbed
        jointly; or a mapping of names to gene sets, each perturbed jointly.
    mode
        ``"mask"`` replaces the token of a gene by ``<mask>``. ``"delete"`` removes it, so that lower-ranked genes move up.
        ``"overexpress"`` moves it to the highest rank, and inserts it in cells that do not express it.
    groupby
        Column of ``adata.obs`` with the groups. If not given, all cells form one group ("all").
    toward
        Target of the shift: a group of ``groupby``; a Cell Ontology id or name, of which the model has a prototype; or the target
        cells as AnnData.
    pairs
        Also perturb all pairs of the listed genes jointly.
    method
        ``"perturb"``: exact. ``"fast"``: approximation for masking single genes.
    n_cells_per_group
        Maximum number of cells sampled per group.
    n_controls
        Number of random genes (gene sets) of similar rank that each gene (set) is compared with in each group; the smallest possible
        p-value is ``1 / (n_controls + 1)``. For masking of single genes the comparison uses ``"fast"`` in all sampled cells; otherwise
        controls are computed exactly in up to ten cells, which takes ``10 * n_controls`` passes per set and group. 0 for no p-values.
    model
        %(model)s
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    max_length
        %(max_length)s
    batch_tokens
        Maximum number of tokens in a batch of copies of a cell. It affects memory and speed, not the result.
    device
        %(device)s
    precision
        Precision of exact shifts. ``"bfloat16"`` is faster on suitable hardware, but its rounding alone gives shifts of about 1e-5.
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    key_added
        Key of ``adata.uns``.
    layer_added
        Where to write the shifts of single cells: a layer for single genes, a table in ``adata.obsm`` if there are gene sets. Not
        written by default.
    ontology
        Cell Ontology; the bundled release by default.
    rng
        Seed or generator of the sample of cells and of the control sets.
    copy
        %(copy)s

    Returns
    -------
    ``None``, or the AnnData with ``copy=True``. Fields written:

    `adata.uns[key_added]` : dict
        ``table``, returned by :func:`sccello_tools.get.perturbation_df`, and ``params``.
    `adata.layers[layer_added]` : CSR, float32, shape (n_obs, n_vars)
        Shift of each cell by each gene; nothing is stored for cells that were not sampled.
    `adata.obsm[layer_added]` : DataFrame of float32, shape (n_obs, n_perturbations)
        Instead of the layer if there are gene sets; NaN for cells that were not sampled or do not change.

    Raises
    ------
    GeneMatchError
        If a gene is unknown, or no sampled cell changes.
    GroupError
        If ``groupby`` is not a column, numeric or incomplete, or a group has a single cell.
    ArgumentError
        If an option is unknown, a set is empty, or ``method="fast"`` is combined with another mode or with gene sets.
    LabelError
        If ``toward`` is neither a group nor a cell type of the model.
    NotCountsError
        If the matrix does not contain raw counts.
    WeightsError
        If the model cannot be loaded, or has no trained mask token.

    Notes
    -----
    Masking: arXiv 2408.12373, marker gene prediction; :func:`marker_genes` applies it to all genes. Deletion and overexpression on
    rank-encoded cells: Geneformer (Theodoris et al., Nature 618:616, 2023). Only masking of single genes shares computation between
    the copies of a cell; see ``docs/marker_genes.md`` for the upper bound of the savings.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> insulin, glucagon = "ENSG00000254647", "ENSG00000115263"
    >>> sccello.tl.perturb(
    ...     adata, [insulin, glucagon], groupby="cell_type", n_cells_per_group=4, max_length=64
    ... )
    >>> table = sccello.get.perturbation_df(adata, "type B pancreatic cell")
    >>> table.loc[table["shift"].idxmax(), "perturbation"]
    'ENSG00000254647'
    """
    from sccello_tools.perturbation import perturbation_shifts

    keys = {} if layer_added is None else {"layer_added": layer_added}
    check_writable(adata, copy=copy, key_added=key_added, **keys)
    seed = seed_of(rng)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    cells = PerturbedCells.draw(
        adata,
        source,
        groupby=groupby,
        n_cells_per_group=n_cells_per_group,
        model=model,
        device=device,
        max_length=max_length,
        seed=seed,
    )
    perturbations = _perturbations(genes, cells, pairs=pairs)
    target, target_name = None, ""
    if toward is not None:
        target, target_name = _target(
            toward, adata, groupby, cells, source, ontology or CellOntology.load(), seed
        )
    options: dict[str, Any] = {
        "max_length": cells.max_length,
        "batch_tokens": batch_tokens,
        "precision": precision,
    }
    with progress_bar("perturbing cells", len(cells.tokens)) as advance:
        shifts = perturbation_shifts(
            cells.model.network,
            cells.tokens,
            [p.tokens for p in perturbations],
            mode=mode,
            method=method,
            target=target,
            on_progress=advance,
            **options,
        )
    _check_changed(shifts, perturbations, mode)
    table = _table(
        shifts,
        perturbations,
        cells,
        target=target,
        mode=mode,
        n_controls=n_controls,
        seed=seed,
        **options,
    )
    record = {
        "table": {name: column.to_numpy() for name, column in table.items()},
        "params": {
            "mode": mode,
            "groupby": groupby or "",
            "toward": target_name,
            "representation": "" if target is None else target.representation,
            "method": method,
            "layer": "X" if layer is None else layer,
            "n_cells_per_group": n_cells_per_group,
            "n_controls": n_controls,
            "max_length": cells.max_length,
            "precision": "float32" if method == "fast" else precision,
            "seed": seed,
            "model": cells.model.name,
            "weights_sha256": cells.model.sha256,
        },
        _keys.VERSION: __version__,
    }
    with writing(adata, copy=copy) as written:
        written.uns[key_added] = record
        slots = [f".uns[{key_added!r}]"]
        if layer_added is not None:
            slots.append(_write_cells(written, layer_added, shifts, perturbations, cells))
    log_written("perturb", *slots)
    return written if copy else None


def _perturbations(
    genes: str | Sequence[str | Sequence[str]] | Mapping[str, Sequence[str]],
    cells: PerturbedCells,
    *,
    pairs: bool,
) -> list[Perturbation]:
    from sccello_tools.perturbation import Perturbation

    if isinstance(genes, str):
        genes = [genes]
    sets: dict[str, tuple[str, ...]] = {}
    if isinstance(genes, Mapping):
        if pairs:
            msg = "pairs=True requires a list of genes. Pass genes as a list, or omit pairs."
            raise ArgumentError(msg)
        sets = {
            str(name): (members,) if isinstance(members, str) else tuple(map(str, members))
            for name, members in genes.items()
        }
    else:
        for item in genes:
            members = (item,) if isinstance(item, str) else tuple(map(str, item))
            sets["+".join(members)] = members
        if pairs:
            single = [members[0] for members in sets.values() if len(members) == 1]
            if len(single) < 2:
                msg = f"pairs=True requires at least 2 single genes, got {len(single)}."
                raise ArgumentError(msg)
            if (n_pairs := len(single) * (len(single) - 1) // 2) > _MAX_PAIRS:
                msg = f"{len(single)} genes have {n_pairs:,} pairs; at most {_MAX_PAIRS:,} are supported. Pass fewer genes, or the pairs of interest as tuples."
                raise ArgumentError(msg)
            sets |= {f"{a}+{b}": (a, b) for a, b in combinations(single, 2)}
    if not sets:
        msg = "genes is empty. Pass names from adata.var_names."
        raise GeneMatchError(msg)
    if empty := [name for name, members in sets.items() if not members]:
        msg = f"{len(empty)} gene sets are empty: {quoted(empty)}. Remove them."
        raise ArgumentError(msg)
    distinct = list(dict.fromkeys(gene for members in sets.values() for gene in members))
    columns = dict(zip(distinct, cells.columns_of(distinct).tolist()))
    out = []
    for name, members in sets.items():
        tokens = dict.fromkeys(int(cells.match.tokens[columns[gene]]) for gene in members)
        out.append(Perturbation(name, members, tuple(tokens)))
    return out


def _target(
    toward: str | AnnData,
    adata: AnnData,
    groupby: str | None,
    cells: PerturbedCells,
    source: CountsSource,
    ontology: CellOntology,
    seed: int,
) -> tuple[Target, str]:
    """Return the target and its name."""
    from sccello_tools.annotation import evidence_of
    from sccello_tools.errors import LabelError
    from sccello_tools.perturbation import Target

    groups = cells.sample.names if groupby is not None else ()
    if isinstance(toward, anndata.AnnData):
        return _mean_of_cells(toward, cells, source), "cells"
    if not isinstance(toward, str):  # callers without a type checker
        msg = f"toward must be a group, a cell type or an AnnData, got {type(toward).__name__}"  # type: ignore[unreachable]
        raise ArgumentError(msg)
    if toward in groups:
        rows = np.flatnonzero(adata.obs[groupby].astype(str).to_numpy() == toward)
        rows = np.random.default_rng(seed).permutation(rows)[:_MAX_TARGET_CELLS]
        logger.info("perturb: target: the mean of %d cells of group %r", len(rows), toward)
        return _mean_of_cells(adata[np.sort(rows)], cells, source), toward
    match = match_label(toward, ontology)
    known = evidence_of(cells.model).known
    if not match.is_mapped or match.id not in known.types:
        named = quoted(groups) or "none"
        why = (
            f"{match.name} ({match.id}) is not among the {len(known.types)} types of model {cells.model.name!r}"
            if match.is_mapped
            else "it is not a Cell Ontology term"
        )
        msg = f"toward={toward!r} is not a group (groups: {named}), and {why}. Pass a group of groupby=, another cell type, or the target cells as AnnData."
        raise LabelError(msg)
    logger.info("perturb: target: the prototype of %s (%s)", match.name, match.id)
    vector = known.prototypes[known.types.index(match.id)]
    return Target(vector, "cell"), match.name


def _mean_of_cells(target: AnnData, cells: PerturbedCells, source: CountsSource) -> Target:
    """Return the normalised mean of the normalised embeddings of the target cells."""
    from sccello_tools.engine import encode
    from sccello_tools.perturbation import Target

    match = source.gene_match(target, report=False)
    if target.isbacked:
        target = target.to_memory()
    embedding = encode(cells.model.network, tokens_of(target, source, match, cells.max_length))
    embedding = embedding[np.isfinite(embedding).all(axis=1)]
    if not len(embedding):
        msg = "The target cells have no tokens. Pass other cells as toward=."
        raise GroupError(msg)
    mean = (embedding / np.linalg.norm(embedding, axis=1, keepdims=True)).mean(axis=0)
    return Target((mean / np.linalg.norm(mean)).astype(np.float32), "cls")


def _check_changed(shifts: CellShifts, perturbations: list[Perturbation], mode: Mode) -> None:
    changed: NDArray[np.bool_] = np.isfinite(shifts.shift).sum(axis=0) > 0
    without = [p.name for p, some in zip(perturbations, changed.tolist()) if not some]
    if not without:
        return
    shown = quoted(without)
    n_cells = len(shifts.shift)
    if not changed.any():
        msg = (
            f"None of the {len(perturbations)} perturbations ({shown}) changes any of the {n_cells} sampled cells with mode={mode!r}. Choose genes "
            "that these cells express, raise n_cells_per_group, or raise max_length if cells are truncated."
        )
        raise GeneMatchError(msg)
    warn_user(
        f"{len(without)} of {len(perturbations)} perturbations change none of the {n_cells} sampled cells: {shown}."
    )


def _table(
    shifts: CellShifts,
    perturbations: list[Perturbation],
    cells: PerturbedCells,
    *,
    target: Target | None,
    mode: Mode,
    n_controls: int,
    seed: int,
    **options: Any,
) -> pd.DataFrame:
    from sccello_tools.perturbation import CellShifts
    from sccello_tools.perturbation.controls import group_effects

    sets = [p.tokens for p in perturbations]
    index: dict[tuple[int, ...], int] = {
        genes: i for i, genes in enumerate(sets) if len(genes) == 1
    }
    expressed = np.unique(cells.tokens.ids)
    parts = []
    for i, group in enumerate(cells.sample.names):
        members = np.flatnonzero(cells.sample.group == i)
        tokens = cells.tokens.take(members)
        own = CellShifts(*(values[members] for values in shifts))
        found = group_effects(
            cells.model.network,
            tokens,
            sets,
            own,
            mode=mode,
            target=target,
            n_controls=n_controls,
            absent=np.setdiff1d(expressed, tokens.ids),
            seed=seed,
            **options,
        )
        part = pd.DataFrame(
            {
                "group": group,
                "perturbation": [p.name for p in perturbations],
                "genes": [",".join(p.genes) for p in perturbations],
                "n_genes": [len(genes) for genes in sets],
                "n_cells": len(members),
                "n_changed": found.n_changed,
                "shift": found.shift.mean,
                "control_shift": found.shift.control,
                "interaction": [
                    _interaction(own.shift, p, j, index) for j, p in enumerate(perturbations)
                ],
                "pval": found.shift.pvals,
                "fdr": found.shift.fdr,
            }
        )
        if target is not None:
            part = part.assign(
                toward=found.toward.mean,
                control_toward=found.toward.control,
                toward_pval=found.toward.pvals,
                toward_fdr=found.toward.fdr,
            )
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _interaction(
    values: NDArray[np.float32],
    perturbation: Perturbation,
    column: int,
    index: Mapping[tuple[int, ...], int],
) -> float:
    """Mean difference of a set's shift and the sum of its genes' shifts; NaN unless all genes were also perturbed alone."""
    parts = [index.get((token,)) for token in perturbation.tokens]
    single = [i for i in parts if i is not None]
    if len(parts) < 2 or len(single) < len(parts):
        return float("nan")
    difference = values[:, column] - values[:, single].sum(axis=1, dtype=np.float64)
    kept = difference[np.isfinite(difference)]
    return float(kept.mean()) if len(kept) else float("nan")


def _write_cells(
    adata: AnnData,
    key: str,
    shifts: CellShifts,
    perturbations: list[Perturbation],
    cells: PerturbedCells,
) -> str:
    if all(len(p.tokens) == 1 for p in perturbations):
        rows, places = np.nonzero(np.isfinite(shifts.shift))
        columns = cells.column_of_token[np.array([p.tokens[0] for p in perturbations])]
        scores = sparse.csr_matrix(
            (shifts.shift[rows, places], (rows, columns[places])),
            shape=(len(shifts.shift), len(cells.names)),
            dtype=np.float32,
        )
        adata.layers[key] = cells.layer_of(scores, adata)
        return f".layers[{key!r}]"
    values = np.full((adata.n_obs, len(perturbations)), np.nan, dtype=np.float32)
    values[cells.sample.rows] = shifts.shift
    names = [p.name for p in perturbations]
    adata.obsm[key] = pd.DataFrame(values, index=adata.obs_names, columns=names)
    return f".obsm[{key!r}]"
