"""Decide, before any cell is read, what a corpus will be made of; tell what cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._logging import logger
from sccello_tools.corpus.manifest import RESERVED
from sccello_tools.errors import CorpusError, FileFormatError, LabelError
from sccello_tools.tokens import match_gene_names

from .inputs import (
    fingerprint_of,
    gene_names,
    labels_of,
    matrix_of,
    n_cells_of,
    obs_kind,
    open_store,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sccello_tools.corpus.manifest import CorpusConfig, Fingerprint
    from sccello_tools.ontology import CellOntology
    from sccello_tools.tokens import GeneMatch


@dataclass(frozen=True, eq=False)
class InputPlan:
    """One input, looked through."""

    number: int
    """Its place among the inputs."""
    source: str
    """Its name."""
    path: Path
    """Where it is."""
    fingerprint: Fingerprint
    """Its size and time."""
    n_cells: int
    """Its rows."""
    gene_match: GeneMatch
    """Which gene each column is, without the names."""
    by_column: bool
    """Whether its matrix is CSC, so that its rows cannot be read apart."""
    term_of: dict[str, str]
    """Current Cell Ontology id of each label that has one."""
    reason_of: dict[str, str]
    """Why cells of the other labels are left out."""
    labels_left_out: dict[str, int]
    """Cells by label, of those."""
    obs_kinds: dict[str, str]
    """Kind of each chosen column of ``obs``."""


def named_inputs(
    inputs: Path | str | Sequence[Path | str] | Mapping[str, Path | str],
) -> dict[str, Path]:
    """Give each input a name: that of the mapping, or of the file.

    Raises
    ------
    CorpusError
        If there is no input, two have the same name, or one is no path.
    """
    for given in inputs.values() if isinstance(inputs, Mapping) else _as_list(inputs):
        if not isinstance(given, str | Path):
            msg = (
                f"An input is of type {type(given).__name__}; expected is the path of an h5ad file or a zarr folder. Inputs are read from disk a few "
                "rows at a time, also by other processes: write what is in memory with adata.write_h5ad(path), and pass the path."
            )
            raise CorpusError(msg)
    if isinstance(inputs, Mapping):
        named = [(str(name), Path(path)) for name, path in inputs.items()]
    else:
        named = [(Path(path).stem, Path(path)) for path in _as_list(inputs)]
    repeated = [name for name, n in Counter(name for name, _ in named).items() if n > 1]
    if repeated or not named:
        what = f"Two inputs are called {repeated[0]!r}" if repeated else "There is no input"
        msg = f"{what}. Pass files of different names, or a mapping from names to files."
        raise CorpusError(msg)
    return dict(named)


def _as_list(inputs: Any) -> list[Any]:
    is_several = isinstance(inputs, Iterable) and not isinstance(inputs, str)
    return list(inputs) if is_several else [inputs]


def plan_input(
    number: int,
    source: str,
    path: Path,
    config: CorpusConfig,
    *,
    ontology: CellOntology,
    min_matched: int,
) -> InputPlan:
    """Look through one input: its genes, labels and columns, not its matrix."""
    if not path.exists():
        msg = f"There is no file {path}. Expected is an h5ad file or a zarr folder with raw counts."
        raise FileFormatError(msg)
    fingerprint = fingerprint_of(path)  # before it is read, so that a later change shows
    with open_store(path) as store:
        n_cells = n_cells_of(store, path)
        matrix = matrix_of(store, path, config.layer)
        if matrix.shape[0] != n_cells:
            msg = f"{path} has {n_cells:,} rows in obs and {matrix.shape[0]:,} in its matrix. It is damaged: write it again."
            raise CorpusError(msg)
        match = match_gene_names(
            gene_names(store, path, config.gene_ids, config.layer), min_matched=min_matched
        )
        logger.info("%s: %s", source, match)
        labels = Counter(labels_of(store, path, config.label_key, 0, None).tolist())
        kinds = {key: obs_kind(store, path, key) for key in config.obs_keys}
    term_of, reason_of = _terms(sorted(labels), ontology)
    return InputPlan(
        number=number,
        source=source,
        path=path,
        fingerprint=fingerprint,
        n_cells=n_cells,
        # the names would travel to every worker for nothing
        gene_match=replace(match, gene_ids=np.empty(0, dtype=str), ambiguous=(), unmatched=()),
        by_column=getattr(matrix, "format", "") == "csc",
        term_of=term_of,
        reason_of=reason_of,
        labels_left_out={
            label: n for label, n in labels.most_common() if label and label in reason_of
        },
        obs_kinds=kinds,
    )


def check_obs_keys(obs_keys: Sequence[str], label_key: str) -> None:
    """Refuse columns that every shard has anyway.

    Raises
    ------
    CorpusError
        If one is named.
    """
    taken = sorted(set(obs_keys) & (RESERVED | {label_key}))
    if taken or len(set(obs_keys)) < len(obs_keys):
        what = f"names {', '.join(map(repr, taken))}" if taken else "names a column twice"
        msg = f"obs_keys {what}; the columns {', '.join(sorted(RESERVED))} are written anyway. Leave it out, or rename the column of obs."
        raise CorpusError(msg)


def common_kinds(plans: Sequence[InputPlan]) -> dict[str, str]:
    """Kind that holds a column of every input: whole numbers give way to fractions, and all else to strings."""
    common: dict[str, str] = {}
    for key in plans[0].obs_kinds:
        kinds = {plan.obs_kinds[key] for plan in plans}
        if len(kinds) == 1:
            common[key] = kinds.pop()
        else:
            common[key] = "float64" if kinds == {"int64", "float64"} else "string"
    return common


def check_labels(plans: Sequence[InputPlan]) -> None:
    """Refuse labels that are no current term.

    Raises
    ------
    LabelError
        If there are any; the message names the first ones of each input.
    """
    found = [
        f"{plan.source}: "
        + ", ".join(f"{label!r} ({n:,} cells)" for label, n in [*plan.labels_left_out.items()][:5])
        for plan in plans
        if plan.labels_left_out
    ]
    if found:
        more = f" (and {len(found) - 5} more inputs)" if len(found) > 5 else ""
        msg = (
            f"Labels that are no current Cell Ontology id: {'; '.join(found[:5])}{more}. Map them with pp.map_cell_types, "
            "or pass unknown_labels='leave_out' to build the corpus without these cells."
        )
        raise LabelError(msg)


def _terms(labels: list[str], ontology: CellOntology) -> tuple[dict[str, str], dict[str, str]]:
    term_of: dict[str, str] = {}
    reason_of: dict[str, str] = {"": "no_label"}
    for label in filter(None, labels):
        try:
            term_of[label] = ontology.current(label)
        except LabelError:
            known = label in ontology.obsolete_terms
            reason_of[label] = "obsolete_label" if known else "unknown_label"
    return term_of, reason_of
