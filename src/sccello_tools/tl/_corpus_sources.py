"""A corpus on disk as what a training run takes: read block by block, or held in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._logging import logger
from sccello_tools.errors import LabelError
from sccello_tools.ontology import match_label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sccello_tools.corpus import Corpus
    from sccello_tools.ontology import CellOntology
    from sccello_tools.training.pretrain import LabelledTokens
    from sccello_tools.training.pretrain.sources import BlockSource

MAX_BYTES_IN_MEMORY = 1 << 30
"""Tokens of a corpus, 8 bytes each, above which it is streamed unless asked otherwise."""


def corpus_sources(
    corpus: Corpus, name: str, ontology: CellOntology, *, stream: bool | None
) -> list[BlockSource]:
    """Return a corpus as sources of cells, streamed or in memory.

    Parameters
    ----------
    corpus
        The corpus.
    name
        Name of a source, where the corpus does not name its own.
    ontology
        The Cell Ontology that labels are looked up in.
    stream
        Whether to read it block by block; None if it is large.

    Raises
    ------
    CorpusError
        If it does not fit in memory and may not be streamed, or is damaged.
    LabelError
        If a label is neither a current id nor a name of the ontology.
    """
    from sccello_tools.training.pretrain import CorpusSource

    if stream is None:
        stream = 8 * _n_tokens(corpus) > MAX_BYTES_IN_MEMORY
    if not stream:
        return list(labelled_corpus(corpus, name, ontology))
    terms = _terms(corpus.cell_types, ontology, name)
    if without := corpus.cell_types.get("", 0):
        logger.warning(
            "%s: %d of %d cells have no label and are left out", name, without, len(corpus)
        )
    return [CorpusSource(corpus, terms, name)]


def joined(parts: list[LabelledTokens]) -> LabelledTokens:
    """Put the sources of a corpus together, to be scored as one."""
    from sccello_tools.tokens import RaggedTokens
    from sccello_tools.training.pretrain import LabelledTokens

    return LabelledTokens(
        RaggedTokens.concatenate(part.tokens for part in parts),
        np.concatenate([np.empty(0, dtype=str), *(part.cell_types for part in parts)]),
        "validation",
    )


def _n_tokens(corpus: Corpus) -> int:
    """Count the tokens of a corpus from its manifest, or guess from its first block."""
    if corpus.manifest is not None and corpus.manifest.complete:
        return sum(record.n_tokens for record in corpus.manifest.shards)
    first = corpus.read_block(0).tokens.lengths
    return round(float(first.mean()) * len(corpus)) if len(first) else 0


def labelled_corpus(corpus: Corpus, name: str, ontology: CellOntology) -> list[LabelledTokens]:
    """Read a corpus, one source for each of its inputs; a published corpus is one source.

    Raises
    ------
    CorpusError
        If it does not fit in memory, or is damaged.
    LabelError
        If a label is neither a current id nor a name of the ontology.
    """
    from sccello_tools.training.pretrain import LabelledTokens

    cells = corpus.to_memory()
    current = _terms(corpus.cell_types, ontology, name)
    terms = np.array([current.get(label, "") for label in cells.cell_types], dtype=str)
    usable = (terms != "") & (cells.tokens.lengths > 0)
    if not usable.all():
        logger.warning(
            "%s: %d of %d cells have no label or no gene and are left out",
            name,
            len(usable) - int(usable.sum()),
            len(usable),
        )
    of_shard = [name] * len(corpus.shards)
    if corpus.manifest is not None:
        source_of = {record.name: record.source for record in corpus.manifest.shards}
        of_shard = [source_of.get(shard.path.stem, name) for shard in corpus.shards]
    sources = np.repeat(of_shard, [shard.n_cells for shard in corpus.shards])
    parts = {
        source: np.flatnonzero(usable & (sources == source)) for source in dict.fromkeys(of_shard)
    }
    return [
        LabelledTokens(cells.tokens.take(kept), terms[kept], source, kept)
        for source, kept in parts.items()
        if len(kept)
    ]


def _terms(labels: Iterable[str], ontology: CellOntology, name: str) -> dict[str, str]:
    """Find the current id of each label but ""."""
    found = {label: match_label(label, ontology) for label in labels if label}
    unknown = [label for label, match in found.items() if not match.id]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        msg = (
            f"{name}: {len(unknown):,} labels are no current id and no name of the Cell Ontology ({shown}). "
            "Name another column in Corpus.open(..., label_key=), or build the corpus from mapped labels; see pp.map_cell_types."
        )
        raise LabelError(msg)
    return {label: match.id for label, match in found.items()}
