"""Plan a job over a collection of files: inputs, gene matches, blocks of rows, and the results of an earlier call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from scipy import sparse

from sccello_tools.corpus import Corpus
from sccello_tools.corpus.manifest import (
    MANIFEST,
    Config,
    CorpusConfig,
    Fingerprint,
    Input,
    Manifest,
    Record,
)
from sccello_tools.errors import ArgumentError, FileFormatError, FilesError, GeneMatchError
from sccello_tools.tokens import check_sparse_structure, match_gene_names

from .stores import open_cells

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from sccello_tools.corpus.manifest import ColumnKind
    from sccello_tools.tokens import GeneMatch

    from .stores import CellFile

M = TypeVar("M", bound=Manifest)
LOCK: Final = ".lock"
BLOCKS: Final = "blocks"
CELLS: Final = "cells"
EMBEDDING: Final = "embedding"
"""Column of a block."""


class EmbedConfig(Config):
    """Configuration that determines embeddings."""

    weights_sha256: str
    representation: Literal["cls", "cell"]
    precision: str
    n_dimensions: int


class AnnotateConfig(Config):
    """Configuration that determines annotations."""

    weights_sha256: str
    precision: str
    ontology_release: str
    parameters: dict[str, str | float | tuple[str, ...] | None]
    """Arguments of the annotation."""
    infers_tissues: bool
    """Whether the tissues of each file are inferred from its cells: all blocks are embedded before any is annotated."""


FilesConfig = EmbedConfig | AnnotateConfig


class FilesManifest(Manifest):
    """Description of a folder that embed_files or annotate_files wrote."""

    ERROR = FilesError
    REMEDY = "Pass the folder that embed_files or annotate_files wrote."

    config: FilesConfig
    model: str
    """Name of the model."""
    ontology_release: str
    sccello_tools_version: str


class CellsRecord(Record):
    """Description of a block of embeddings or annotations."""

    n_empty: int
    """Cells without tokens."""
    n_unknown: int
    """Cells with most of their counts outside the vocabulary."""
    n_uncalibrated: int = 0
    """Cells with fewer or more tokens than those that confidence was calibrated on; counted when the blocks are joined."""
    inferred_tissues: dict[str, float] | None = None
    """Fractions of tissues by which the cells were annotated, empty if none were inferred; None for embedded cells."""


class Block(NamedTuple):
    """Rows of an input that are processed together and written as one file."""

    number: int
    """Index of the input."""
    ordinal: int
    """Index of the block within the input."""
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of its file, without extension."""
        return f"{self.number:05d}-{self.ordinal:06d}"

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


class Task(NamedTuple):
    """Blocks that a worker processes in one go: one, or all blocks of an input whose rows cannot be read independently."""

    source: str
    blocks: tuple[Block, ...]
    tissues: Mapping[str, float] | None = None
    """Inferred tissues of the file, by which the embedded cells of the blocks are annotated."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(block.n_rows for block in self.blocks)


class Planned(NamedTuple):
    """Description of one input."""

    input: Input
    labels: Mapping[str, int] = MappingProxyType({})
    """Number of cells of each label."""
    kinds: Mapping[str, ColumnKind] = MappingProxyType({})
    """Kind of each column of ``obs`` that is kept."""
    notes: tuple[str, ...] = ()
    """Warnings for the user."""


@dataclass(frozen=True)
class Look:
    """Examines an input before any cell is read; it is sent to workers, so it must be small."""

    config: Config
    min_matched: int
    tokens_allowed: bool = False
    """Whether corpora of tokens are valid inputs."""

    def __call__(self, named: tuple[str, Path]) -> Planned:
        """Examine an input: its genes, labels and columns, and the pointers of its matrix."""
        source, path = named
        if is_corpus(path):
            return self._corpus(source, path)
        with open_cells(path) as cells:
            fingerprint = Fingerprint.of(path)
            matrix = cells.matrix(self.config.layer)
            check_sparse_structure(matrix)
            match = matched(cells, self.config, min_matched=self.min_matched)
            labels: Counter[str] = Counter()
            kinds: dict[str, ColumnKind] = {}
            if isinstance(self.config, CorpusConfig):
                labels.update(cells.labels(self.config.label_key, 0, None).tolist())
                kinds = {key: cells.column_kind(key) for key in self.config.obs_keys}
            found = Input(
                source=source,
                path=str(path),
                fingerprint=fingerprint,
                n_cells=cells.n_cells,
                n_genes_matched=match.n_matched,
                by_row=getattr(matrix, "format", "") != "csc"
                and not isinstance(matrix, sparse.csr_matrix),
            )
        return Planned(found, dict(labels), kinds, tuple(match.warnings()))

    def _corpus(self, source: str, path: Path) -> Planned:
        if not self.tokens_allowed:
            msg = f"{path} is a corpus of tokens, but counts are needed. Pass the files that it was built from."
            raise FileFormatError(msg)
        corpus = Corpus.open(path)
        return Planned(
            Input(
                source=source, path=str(path), fingerprint=Fingerprint.of(path), n_cells=len(corpus)
            )
        )


def is_corpus(path: Path) -> bool:
    """Whether a path is a corpus of tokens rather than a file of counts."""
    if not path.is_dir():
        return path.suffix in {".parquet", ".arrow"}
    marks = (MANIFEST, "state.json", "dataset_dict.json", "*.parquet", "*.arrow", "data/*.parquet")
    return not (path / "zarr.json").exists() and any(next(path.glob(m), None) for m in marks)


def named_inputs(
    inputs: Path | str | Sequence[Path | str] | Mapping[str, Path | str],
) -> dict[str, Path]:
    """Name each input: by the key of a mapping, or the name of the file.

    A folder of h5ad files and a collection of annbatch stand for the files in them.

    Raises
    ------
    ArgumentError
        If there is no input, two have the same name, or one is not a path.
    """
    if isinstance(inputs, Mapping):
        given: list[tuple[str, Any]] = [(str(name), path) for name, path in inputs.items()]
    else:
        several = isinstance(inputs, Iterable) and not isinstance(inputs, str)
        paths: Iterable[Any] = inputs if several else [inputs]  # type: ignore[assignment]
        given = [("", path) for path in paths]
    named = []
    for name, path in given:
        if not isinstance(path, str | Path):
            msg = (
                f"Inputs must be paths, got {type(path).__name__}. Files are read in parts, possibly by other processes: "
                "write the AnnData with adata.write_h5ad(path) and pass the path."
            )
            raise ArgumentError(msg)
        own, members = name or Path(path).stem, _members(Path(path))
        named += [(own if len(members) == 1 else f"{own}/{m.stem}", m) for m in members]
    repeated = [name for name, n in Counter(name for name, _ in named).items() if n > 1]
    if repeated or not named:
        what = f"Two inputs are named {repeated[0]!r}" if repeated else "No input files were given"
        msg = f"{what}. Pass files with different names, or a mapping from names to files."
        raise ArgumentError(msg)
    return {name: path.absolute() for name, path in named}


def _members(path: Path) -> list[Path]:
    """Return the files that an input stands for."""
    if not path.is_dir() or is_corpus(path):
        return [path]
    stores = [p for p in path.iterdir() if p.suffix == ".h5ad" or p.name.startswith("dataset_")]
    if not stores or (path / "obs").exists():
        return [path]
    # dataset_10 comes after dataset_9
    return sorted(stores, key=lambda p: (len(p.name), p.name))


def matched(cells: CellFile, config: Config, *, min_matched: int) -> GeneMatch:
    """Match the columns of a file to the vocabulary.

    Raises
    ------
    GeneMatchError
        If too few genes match.
    """
    names = cells.gene_names(config.layer, config.gene_ids)
    types = cells.feature_types(config.layer)
    try:
        return _match(tuple(names), None if types is None else tuple(types), min_matched)
    except GeneMatchError as error:
        msg = f"{cells.path}: {error}"
        raise GeneMatchError(msg) from error


@lru_cache(maxsize=4)
def _match(names: tuple[str, ...], types: tuple[str, ...] | None, min_matched: int) -> GeneMatch:
    """Match names; files of one collection usually share them."""
    return match_gene_names(names, min_matched=min_matched, feature_types=types)


def blocks_of(manifest: Manifest, number: int) -> tuple[Block, ...]:
    """Divide the rows of an input; blocks depend on nothing else, so neither do the batches of a model."""
    n_cells, n_rows = manifest.inputs[number].n_cells, manifest.config.cells_per_block
    starts = range(0, n_cells, n_rows)
    return tuple(
        Block(number, i, start, min(start + n_rows, n_cells)) for i, start in enumerate(starts)
    )


def block_path(out: Path, block: Block) -> Path:
    """Return the file of a block of embeddings or annotations."""
    return out / BLOCKS / f"{block.name}.parquet"


def earlier_manifest(out: Path, config: Config, sources: Sequence[str], kind: type[M]) -> M | None:
    """Return the manifest that an earlier call left, after checking that it had the same arguments.

    Inputs may be added at the end.

    Raises
    ------
    ScCelloError
        If the folder holds something else, or results of other arguments or inputs.
    """
    if not (out / MANIFEST).is_file():
        other = [path.name for path in out.iterdir() if path.name != LOCK] if out.is_dir() else []
        if other:
            msg = f"{out} is not empty ({', '.join(sorted(other)[:3])}) and holds no {kind.NOUN}. Pass a new or an empty folder."
            raise kind.ERROR(msg)
        return None
    manifest = kind.read(out)
    if type(manifest.config) is not type(config):
        msg = f"{out} holds results of another kind. Pass a new or an empty folder."
        raise kind.ERROR(msg)
    differences = manifest.config.differences(config)
    before = [file.source for file in manifest.inputs]
    if before != list(sources[: len(before)]):
        differences.append(
            f"the inputs were {before[:5]} and are now {list(sources)[:5]}; inputs can only be added at the end"
        )
    if differences:
        msg = f"{out} was written with other arguments: {'; '.join(differences)}. Pass the same ones, or another folder."
        raise kind.ERROR(msg)
    return manifest
