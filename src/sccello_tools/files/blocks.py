"""Computations on the cells of a block: tokens, embeddings, annotations. Pure functions without input or output."""

from __future__ import annotations

import hashlib
from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import sparse

from sccello_tools import _keys
from sccello_tools.corpus.manifest import CELL_TYPE, LENGTH, SOURCE, SOURCE_ROW, TOKENS
from sccello_tools.tokens import RaggedTokens, ValueSummary

from .parquet import NAMES, as_table, vector_column, vectors_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any, Literal

    from numpy.typing import NDArray

    from sccello_tools.annotation import OpenWorldAnnotator
    from sccello_tools.corpus.manifest import ColumnKind
    from sccello_tools.engine import Precision
    from sccello_tools.models import LoadedModel
    from sccello_tools.nn import AttentionName, Representation
    from sccello_tools.tokens import Chunk, GeneMatch, Tokenizer
    from sccello_tools.tokens.counts import CountsPolicy

_ARROW_KINDS = {"string": NAMES, "bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64()}

PARTIAL = "partial_"
"""Prefix of the columns of a block that are joined and decided for the file as a whole."""

# tasks on the same worker read and tokenize concurrently, but use its cores or GPU one at a time
_computing = Lock()


class BlockCells(NamedTuple):
    """Cells of a block."""

    tokens: RaggedTokens
    match: GeneMatch | None = None
    """Gene of each column of ``counts``."""
    counts: sparse.csr_array | None = None
    """(n_cells, n_columns) raw counts, where they are needed besides the tokens."""


class Shard(NamedTuple):
    """Rows of a corpus with their summary."""

    table: pa.Table
    n_tokens: int
    sha256: str
    cell_types: dict[str, int]
    left_out: dict[str, int]


def tokenize(
    chunks: Iterable[Chunk], tokenizer: Tokenizer, policy: CountsPolicy, *, keep_counts: bool
) -> tuple[BlockCells, str]:
    """Tokenize the rows of a block.

    Returns
    -------
    The cells, and the reason why the values are not raw counts, "" if they are.
    """
    tokens, counts = [], []
    for chunk in chunks:
        summary = ValueSummary()
        summary.add(chunk.rows.data)
        if complaint := summary.complaint(policy):
            return BlockCells(RaggedTokens.concatenate([])), complaint
        tokens.append(tokenizer(chunk.rows))
        if keep_counts:
            counts.append(chunk.rows)
    kept = sparse.vstack(counts, format="csr") if counts else None
    return BlockCells(RaggedTokens.concatenate(tokens), tokenizer.gene_match, kept), ""


def shard(
    tokens: RaggedTokens,
    labels: NDArray[np.object_],
    terms: Mapping[str, str],
    obsolete: Collection[str],
    uninformative: Collection[str],
    obs: Mapping[str, Any],
    *,
    source: str,
    first_row: int,
    schema: pa.Schema,
) -> Shard:
    """Keep the cells that have a current label and a gene, as rows of a corpus.

    Parameters
    ----------
    tokens, labels
        Cells of the block and their labels, "" if missing.
    terms
        Current Cell Ontology id of each label that has one.
    obsolete
        Labels that are obsolete without successor, which are counted apart from unknown ones.
    uninformative
        Labels that do not name a cell type, which are counted apart as well.
    obs
        Columns of ``obs`` that are kept, (n_cells,) each.
    source, first_row
        Name of the input, and row of the first cell in it.
    schema
        Columns of the corpus.
    """
    cell_types = np.array([terms.get(label, "") for label in labels], dtype=object)
    labelled, has_gene = cell_types != "", tokens.lengths > 0
    kept = np.flatnonzero(labelled & has_gene)
    reasons = dict.fromkeys(uninformative, "uninformative_label")
    reasons |= dict.fromkeys(obsolete, "obsolete_label")
    reasons[""] = "no_label"
    left_out = Counter(reasons.get(label, "unknown_label") for label in labels[~labelled])
    left_out["no_gene"] = int((labelled & ~has_gene).sum())
    tokens, cell_types, rows = tokens.take(kept), cell_types[kept], kept + first_row
    digest = hashlib.sha256()
    for part in (tokens.ids, tokens.indptr, rows, "\n".join(cell_types).encode()):
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
    columns = {
        # 32-bit offsets suffice within a block, and every token id fits into 16 bits
        TOKENS: pa.ListArray.from_arrays(
            pa.array(tokens.indptr.astype(np.int32)), pa.array(tokens.ids.astype(np.uint16))
        ),
        LENGTH: tokens.lengths.astype(np.int32),
        CELL_TYPE: cell_types,
        SOURCE: [source] * len(kept),
        SOURCE_ROW: rows,
        **{key: np.asarray(values)[kept] for key, values in obs.items()},
    }
    return Shard(
        as_table(columns, schema),
        len(tokens.ids),
        digest.hexdigest(),
        dict(sorted(Counter(cell_types.tolist()).items())),
        {why: n for why, n in sorted(left_out.items()) if n},
    )


def shard_schema(obs_kinds: Mapping[str, ColumnKind]) -> pa.Schema:
    """Return the columns of a corpus."""
    columns = {
        TOKENS: pa.list_(pa.uint16()),
        LENGTH: pa.int32(),
        CELL_TYPE: NAMES,
        SOURCE: NAMES,
        SOURCE_ROW: pa.int64(),
        **{key: _ARROW_KINDS[kind] for key, kind in obs_kinds.items()},
    }
    return pa.schema(list(columns.items()))


def embed(
    cells: BlockCells,
    model: LoadedModel,
    *,
    representation: Representation,
    precision: Precision,
    attention: AttentionName,
    batch_tokens: int | Literal["auto"],
) -> NDArray[np.float32]:
    """Embed cells, (n_cells, d); NaN for cells without tokens. Batches depend on the cells of the block only."""
    from sccello_tools.engine import encode

    with _computing:
        return encode(
            model.network,
            cells.tokens,
            representation=representation,
            precision=precision,
            attention=attention,
            batch_tokens=batch_tokens,
        )


def annotate(
    hidden: NDArray[np.float32],
    counts: sparse.csr_array | None,
    match: GeneMatch | None,
    model: LoadedModel,
    annotator: OpenWorldAnnotator,
) -> dict[str, Any]:
    """Score the cells of a block: the first pass of the annotation, which depends on each cell alone.

    Parameters
    ----------
    hidden
        (n_cells, d), ``representation="cls"``.
    counts
        (n_cells, n_columns) raw counts.
    match
        Gene of each column of ``counts``.
    model
        The model that computed ``hidden``.
    annotator
        Prepared once per worker.

    Returns
    -------
    Columns by name for :func:`finish`.
    """
    from sccello_tools.engine import cell_representation

    if match is not None:
        annotator = annotator.for_columns(match.tokens)
    with _computing:
        part = annotator.partial(hidden, cell_representation(model.network, hidden), counts)
    return {
        PARTIAL + name: vector_column(values.astype(np.float32)) if values.ndim == 2 else values
        for name, values in part._asdict().items()
        if values.ndim == 1 or values.shape[1]
    }


def finish(table: pa.Table, annotator: OpenWorldAnnotator) -> dict[str, Any]:
    """Decide for all cells of a file, which is a data set of its own, from the columns of :func:`annotate`.

    Returns
    -------
    Columns of ``obs`` by name, (n_cells,) each: arrays or categoricals.
    """
    from sccello_tools.annotation import PartialAnnotation

    n = len(table)
    columns: dict[str, Any] = {}
    for name in PartialAnnotation._fields:
        if PARTIAL + name not in table.column_names:
            columns[name] = np.empty((n, 0), dtype=np.float32)
            continue
        column = table.column(PARTIAL + name)
        is_vector = pa.types.is_fixed_size_list(column.type)
        columns[name] = vectors_of(column) if is_vector else column.to_numpy()
    found = annotator.finish([PartialAnnotation(**columns)])
    return found.columns(_keys.CELL_TYPE, annotator.term_names)


def annotator_of(model: LoadedModel, parameters: Mapping[str, Any]) -> OpenWorldAnnotator:
    """Prepare the annotator of a model from arguments of :func:`sccello_tools.annotate_files`; called once per worker."""
    from sccello_tools.annotation import annotator_for, evidence_of, resolve_candidates
    from sccello_tools.ontology import CellOntology

    ontology = CellOntology.load()
    candidates, method = parameters["candidates"], parameters["method"]
    terms = None
    if candidates is not None or method == "published":
        terms = resolve_candidates(candidates, ontology)
    return annotator_for(
        evidence_of(model),
        ontology,
        candidates=terms,
        tissue=parameters["tissue"],
        method=method,
        level=parameters["level"],
        alpha=parameters["alpha"],
    )


def cell_columns(
    tokens: RaggedTokens, names: NDArray[np.object_], source: Any, rows: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the columns that identify the cells of a block."""
    return {
        "cell": names,
        SOURCE: source,
        SOURCE_ROW: rows,
        _keys.N_TOKENS: tokens.lengths.astype(np.int32),
        _keys.TRUNCATED: tokens.truncated,
    }
