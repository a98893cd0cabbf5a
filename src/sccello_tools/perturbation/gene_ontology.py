"""The Gene Ontology and its annotations of genes, read with goatools."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from sccello_tools.errors import OntologyError

if TYPE_CHECKING:
    from typing import Any, Final

Aspect = Literal["BP", "MF", "CC"]
ASPECTS: Final = {
    "BP": "biological_process",
    "MF": "molecular_function",
    "CC": "cellular_component",
}
_FOLDER: Final = "gene_ontology"
_OBO: Final = "go-2022-07-01.obo.gz"
_ANNOTATIONS: Final = "annotations.parquet"
_GZIP: Final = b"\x1f\x8b"


class GeneOntology:
    """Terms of the Gene Ontology and the genes annotated with them.

    Examples
    --------
    >>> from sccello_tools.perturbation import GeneOntology
    >>> go = GeneOntology.load()
    >>> go.dag["GO:0042100"].name
    'B cell proliferation'
    """

    def __init__(self, dag: Any, terms_of: dict[str, set[str]], release: str) -> None:
        self.dag = dag
        """``goatools.obo_parser.GODag``."""
        self.terms_of = terms_of
        """Direct annotations of each gene (Ensembl id)."""
        self.release = release
        self._with_ancestors: dict[str, dict[str, set[str]]] = {}

    @classmethod
    def load(cls, obo: str | Path | None = None, gaf: str | Path | None = None) -> GeneOntology:
        """Load the bundled release, or other files.

        Parameters
        ----------
        obo
            ``go.obo`` or ``go-basic.obo``, plain or gzipped.
        gaf
            Human annotations in GAF 2 format (``goa_human.gaf``), plain or gzipped; genes are matched by symbol.

        Raises
        ------
        OntologyError
            If a file cannot be read or has another format.
        """
        if obo is None and gaf is None:
            return _shipped()
        dag = _shipped().dag if obo is None else _read_dag(Path(obo))
        terms_of = _shipped().terms_of if gaf is None else _read_gaf(Path(gaf))
        return cls(dag, terms_of, str(getattr(dag, "version", "")))

    def with_ancestors(self, aspect: Aspect) -> dict[str, set[str]]:
        """Return the terms of each gene in one aspect with all their ancestors, without the root."""
        if aspect not in ASPECTS:
            msg = f"ontology must be one of {', '.join(map(repr, ASPECTS))}, got {aspect!r}"
            raise OntologyError(msg)
        if aspect not in self._with_ancestors:
            above: dict[str, frozenset[str]] = {}
            for term in {t for own in self.terms_of.values() for t in own}:
                record = self.dag.get(term)
                if record is None or record.is_obsolete or record.namespace != ASPECTS[aspect]:
                    continue
                found = {record.item_id, *record.get_all_parents()}
                above[term] = frozenset(t for t in found if self.dag[t].level > 0)
            self._with_ancestors[aspect] = {
                gene: set().union(*(above[t] for t in own if t in above))
                for gene, own in self.terms_of.items()
                if any(t in above for t in own)
            }
        return self._with_ancestors[aspect]


@lru_cache(maxsize=1)
def _shipped() -> GeneOntology:
    import pyarrow.parquet as pq

    folder = files("sccello_tools.resources").joinpath(_FOLDER)
    with as_file(folder.joinpath(_OBO)) as path:
        dag = _read_dag(path)
    with as_file(folder.joinpath(_ANNOTATIONS)) as path:
        table = pq.read_table(path)
    terms_of: dict[str, set[str]] = {}
    for gene, term in zip(table["gene"].to_pylist(), table["term"].to_pylist()):
        terms_of.setdefault(f"ENSG{gene:011d}", set()).add(f"GO:{term:07d}")
    return GeneOntology(dag, terms_of, _OBO.removeprefix("go-").removesuffix(".obo.gz"))


def _read_text(path: Path, what: str) -> str:
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read ({error}). Pass {what}, plain or gzipped."
        raise OntologyError(msg) from error


def _read_dag(path: Path) -> Any:
    from goatools.obo_parser import GODag

    text = _read_text(path, "an obo file of the Gene Ontology")
    if "[Term]" not in text or "\nid: GO:" not in text:
        msg = f"{path} has no terms of the Gene Ontology. Pass go.obo or go-basic.obo (not OWL, not JSON)."
        raise OntologyError(msg)
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        plain = Path(folder) / "go.obo"
        plain.write_text(text, encoding="utf-8")
        return GODag(os.fspath(plain), prt=None)


def _read_gaf(path: Path) -> dict[str, set[str]]:
    from sccello_tools.tokens.genes import match_gene_names

    text = _read_text(path, "a GAF 2 file of human genes")
    symbols: dict[str, set[str]] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if line.startswith("!") or len(fields) < 15:
            continue
        symbol, qualifier, term, evidence = fields[2], fields[3], fields[4], fields[6]
        if not qualifier.upper().startswith("NOT") and evidence != "ND" and term.startswith("GO:"):
            symbols.setdefault(symbol, set()).add(term)
    if not symbols:
        msg = f"{path} has no annotations. Pass a GAF 2 file: at least 15 tab-separated columns, GO ids in the fifth."
        raise OntologyError(msg)
    names = sorted(symbols)
    found = match_gene_names(names, min_matched=1)
    terms_of: dict[str, set[str]] = {}
    for name, gene in zip(names, found.gene_ids.tolist()):
        if gene:
            terms_of.setdefault(gene, set()).update(symbols[name])
    return terms_of
