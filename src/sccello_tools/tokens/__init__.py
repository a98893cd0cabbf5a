"""Gene vocabulary, gene matching, checks of raw counts and rank-value tokens. No torch, no AnnData."""

from __future__ import annotations

from ._gene_names import feature_type_column
from .chunks import Chunk, row_chunks
from .counts import ValueSummary, looks_like_counts
from .gene_match import GeneMatch
from .genes import DEFAULT_MIN_MATCHED, Organism, match_gene_names
from .orthologs import MouseOrthologs
from .structure import check_indices, check_sparse_structure, is_on_disk_sparse
from .tokenizer import MAX_LENGTH, RaggedTokens, Tokenizer
from .vocabulary import CLS_ID, MASK_ID, PAD_ID, VOCABULARY_SIZE, GeneVocabulary

__all__ = [
    "CLS_ID",
    "DEFAULT_MIN_MATCHED",
    "MASK_ID",
    "MAX_LENGTH",
    "PAD_ID",
    "VOCABULARY_SIZE",
    "Chunk",
    "GeneMatch",
    "GeneVocabulary",
    "MouseOrthologs",
    "Organism",
    "RaggedTokens",
    "Tokenizer",
    "ValueSummary",
    "check_indices",
    "check_sparse_structure",
    "feature_type_column",
    "is_on_disk_sparse",
    "looks_like_counts",
    "match_gene_names",
    "row_chunks",
]
