"""Corpora of tokens on disk: Parquet shards with a manifest, and published corpora in Parquet or Arrow. No torch, no AnnData."""

from __future__ import annotations

from ._cells import CorpusCells
from ._shards import RECORD_KEY, read_record
from .corpus import Corpus, shard_path

__all__ = ["RECORD_KEY", "Corpus", "CorpusCells", "read_record", "shard_path"]
