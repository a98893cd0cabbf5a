"""Classify names of matrix columns: missing values, controls, feature types, and which kind of identifier they look like."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Final

    from numpy.typing import NDArray

FEATURE_TYPE_COLUMNS: Final = ("feature_types", "feature_type", "feature_biotype")
"""Columns of ``var`` that hold the type of each feature, in order of preference."""

# texts for a missing value, and what make.unique appends to them
_MISSING: Final = re.compile(
    r"(?:#?n/?a|<na>|<nan>|n\.a\.?|nan|none|null|na_character_|[-.?]*)(?:(?:[-.]|__?)\d+)?", re.IGNORECASE
)  # fmt: skip
# controls of targeted panels (Xenium, MERFISH, CosMx) and spike-ins
_CONTROL: Final = re.compile(
    r"NegControl\w*[-_ ]?\d*|Neg(?:ative)?[-_ ]?(?:Prb|Probe|Control|Codeword)?[-_ ]?\d+|BLANK[-_ ]?\d+|antisense_\w+|"
    r"(?:Unassigned|Deprecated|False)[-_]?(?:Codeword|Code)[-_]?\d+|(?:FalseCode|SystemControl|Intergenic_?Region)[-_]?\d+|"
    r"(?:gene_)?ERCC[-_]\d{5}",
    re.IGNORECASE,
)  # fmt: skip
_GENE_TYPES: Final = frozenset(
    {"expression", "gene", "gene expression", "genes", "gex", "mrna", "rna", "rna expression", "transcript", "transcripts"}
)  # fmt: skip
# recognised without a "Gene Expression" beside them: the column may hold biotypes ("protein_coding"), which are genes
_NON_GENE_TYPES: Final = re.compile(
    r"\b(antibod(y|ies)|antigen|crispr|[sp]?g ?rnas?|guides?|hash(tag|ing)s?|htos?|adts?|cite|multiplexing|cell tags?|cmos?|lmos?|"
    r"surface proteins?|proteins?|peaks?|atac|chromatin( accessibility)?|tiles?|custom|spike ?ins?|ercc|controls?|codewords?|blank|"
    r"vdj|tcr|bcr|methylation)\b"
)

_HUMAN_ID = re.compile(r"ENSG\d{11}(\.\d+)?(_PAR_Y)?", re.IGNORECASE)
_OTHER_ID = re.compile(r"ENS([A-Z]{3,4})?G\d{11}(\.\d+)?", re.IGNORECASE)
_TRANSCRIPT = re.compile(r"ENS[A-Z]*T\d{11}(\.\d+)?", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(\.0)?")
_PEAK = re.compile(r"(chr)?[\dXYM]{1,2}[:_-]\d+[-_:]\d+", re.IGNORECASE)
_MOUSE_SYMBOL = re.compile(
    r"[A-Z][a-z]+[a-z0-9-]*|[A-Z][a-z]+\d*[A-Z]?[a-z0-9-]*|\d{7}[A-Z]\d{2}Rik|mt-[A-Z][a-z0-9]+|Gm\d+"
)
_LOWER_CASE = re.compile(r"[a-z][a-z0-9.:_-]*[a-z0-9][a-z0-9.:_-]*")
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9.]*?(?:_+|-+|:+|\|))(?=.)")

_SYMBOLS = "Ensembl IDs (ENSG...) or human gene symbols are required"
_OF_COLUMN = "If a column of adata.var holds them: pp.match_genes(adata, gene_ids='that column')."


class NameKind(NamedTuple):
    """What names look like, and what to do if they do not match."""

    description: str
    advice: str


def is_missing(name: str) -> bool:
    """Whether a name is a text for a missing value ("", "NA", "nan", "#N/A"), possibly made unique ("NA.1", "NaN-2")."""
    return _MISSING.fullmatch(name) is not None


def is_control(name: str) -> bool:
    """Whether a name is that of a control probe, blank code word or spike-in."""
    return _CONTROL.fullmatch(name) is not None


def feature_type_column(columns: Iterable[str]) -> str | None:
    """Return the column of ``var`` that holds feature types; None if there is none.

    Parameters
    ----------
    columns
        Names of the columns.
    """
    by_name = {str(column).lower(): str(column) for column in columns}
    return next((by_name[name] for name in FEATURE_TYPE_COLUMNS if name in by_name), None)


def non_gene_types(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.object_]:
    """Return the feature type of each column that is not a gene, and "" for genes and columns without a type.

    If any type is "Gene Expression" (or "Gene", "RNA"), all other types are not genes. Otherwise only antibodies, guides, peaks,
    multiplexing tags, controls and similar types are not, so that a column of biotypes ("protein_coding") excludes nothing.

    Parameters
    ----------
    values
        Type of each column; bytes are decoded, missing values count as genes.
    """
    texts = [
        value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for value in values
    ]
    plain = {text: " ".join(re.split(r"[\s_-]+", text.strip().lower())) for text in set(texts)}
    has_genes = any(kind in _GENE_TYPES for kind in plain.values())
    excluded = {
        text
        for text, kind in plain.items()
        if kind not in _GENE_TYPES
        and not is_missing(kind)
        and kind != "protein coding"
        and (has_genes or _NON_GENE_TYPES.search(kind))
    }
    return np.array([text if text in excluded else "" for text in texts], dtype=object)


def describe_names(names: Sequence[str]) -> NameKind:
    """Describe what most of the names look like."""
    if not names:
        return NameKind("there are none", f"{_SYMBOLS}, one per column.")

    if sum(is_missing(name) for name in names) > len(names) / 2:
        return NameKind("most names are empty or missing", f"{_SYMBOLS}. {_OF_COLUMN}")

    def mostly(pattern: re.Pattern[str]) -> bool:
        return sum(pattern.fullmatch(name) is not None for name in names) > len(names) / 2

    if mostly(_NUMBER):
        numbers = [int(float(name)) for name in names if _NUMBER.fullmatch(name)]
        # positions run from 0 or 1 without gaps; Entrez IDs range up to a hundred million
        if max(numbers) <= len(names) and len(set(numbers)) == len(numbers):
            return NameKind(
                "names look like row numbers",
                f"{_SYMBOLS}; the names were lost in an earlier step. {_OF_COLUMN}",
            )
        return NameKind(
            "names look like Entrez IDs",
            f"{_SYMBOLS}: map the numbers to symbols or Ensembl IDs first. {_OF_COLUMN}",
        )
    if mostly(_HUMAN_ID):
        return NameKind(
            "names look like human Ensembl IDs", "Reduce min_matched if this is a small panel."
        )
    if mostly(_OTHER_ID):
        return NameKind(
            "names look like Ensembl IDs of another species",
            "The model knows human genes and orthologs of mouse genes only: map them to human one-to-one orthologs first.",
        )
    if mostly(_TRANSCRIPT):
        return NameKind(
            "names look like Ensembl transcripts",
            f"{_SYMBOLS}: sum transcripts to genes first.",
        )
    if mostly(_PEAK):
        return NameKind(
            "names look like genomic regions",
            "Peak counts are not gene expression: pass the RNA modality.",
        )
    if prefix := shared_prefix(names):
        return NameKind(
            f"names share the prefix {prefix!r}",
            f"If they are human genes, remove it: adata.var_names = adata.var_names.str.removeprefix({prefix!r}).",
        )
    if mostly(_MOUSE_SYMBOL):
        return NameKind(
            "names look like symbols of mouse or rat genes",
            "Mouse genes are matched by their human ortholog with organism='mouse'; map those of other organisms to human one-to-one "
            "orthologs first (upper-casing is not a reliable mapping).",
        )
    if mostly(_LOWER_CASE):
        return NameKind(
            "names are in lower case, as zebrafish symbols are",
            "If they are human genes, convert them to upper case: adata.var_names = adata.var_names.str.upper(). "
            "Otherwise map them to human one-to-one orthologs first.",
        )
    return NameKind(
        "names look like symbols",
        f"{_SYMBOLS}. {_OF_COLUMN} Reduce min_matched if this is a small panel.",
    )


def shared_prefix(names: Sequence[str]) -> str:
    """Return the prefix up to a separator that at least four in five names share, such as "GRCh38_"; "" if there is none."""
    if len(names) < 10:
        return ""
    found = Counter(match[1] for match in map(_PREFIX.match, names) if match)
    prefix, n = found.most_common(1)[0] if found else ("", 0)
    return prefix if n >= 0.8 * len(names) else ""
