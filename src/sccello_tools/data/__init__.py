"""Arrays in, arrays out: genes, counts, tokens, and corpora of tokens on disk. No torch, no AnnData."""

from __future__ import annotations

from ._corpus_cells import CorpusCells
from ._corpus_shuffle import ShuffledReader
from ._row_chunks import Chunk, row_chunks
from .corpus import Corpus
from .counts import ValueSummary, looks_like_counts
from .gene_ontology import GeneOntology
from .genes import GeneMatch, match_gene_names
from .tokens import MAX_LENGTH, RaggedTokens, Tokenizer
from .vocabulary import CLS_ID, MASK_ID, PAD_ID, VOCABULARY_SIZE, GeneVocabulary

__all__ = [
    "CLS_ID",
    "MASK_ID",
    "MAX_LENGTH",
    "PAD_ID",
    "VOCABULARY_SIZE",
    "Chunk",
    "Corpus",
    "CorpusCells",
    "GeneMatch",
    "GeneOntology",
    "GeneVocabulary",
    "RaggedTokens",
    "ShuffledReader",
    "Tokenizer",
    "ValueSummary",
    "looks_like_counts",
    "match_gene_names",
    "row_chunks",
]
