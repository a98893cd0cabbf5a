"""Tokens on disk: Parquet shards with a manifest, and a shuffled streaming reader. No torch, no AnnData."""

from __future__ import annotations

from ._cells import CorpusCells
from ._shuffle import ShuffledReader
from .corpus import Corpus

__all__ = ["Corpus", "CorpusCells", "ShuffledReader"]
