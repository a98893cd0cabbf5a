"""Fields of the CELLxGENE schema 7 that describe an experiment and that nobody but its authors can fill in."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sccello_tools._anndata.columns import obs_column
from sccello_tools._messages import quoted
from sccello_tools.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from anndata import AnnData

SCHEMA_VERSION: Final = "7.1.0"
"""Release of the CELLxGENE schema that :func:`cellxgene` follows."""

HUMAN: Final = "NCBITaxon:9606"


class Field(NamedTuple):
    """A field of the schema."""

    pattern: str
    """Regular expression of its values."""

    example: str
    """What to pass, for messages."""

    table: str = "obs"
    """Where it is stored: ``obs``, ``uns``, or the Cell Annotation Schema ("cas")."""

    required: bool = True


_ETHNICITY = r"(?:HANCESTRO|AfPO):\d+"

FIELDS: Final[Mapping[str, Field]] = {
    "assay_ontology_term_id": Field(r"EFO:\d{7}", "EFO:0009922 (10x 3' v3)"),
    "development_stage_ontology_term_id": Field(
        r"HsapDv:\d{7}|unknown|na", "HsapDv:0000258 (mature stage), or unknown"
    ),
    "disease_ontology_term_id": Field(
        r"PATO:0000461|MONDO:\d{7}(?: \|\| MONDO:\d{7})*", "PATO:0000461 (normal), or a MONDO term"
    ),
    "donor_id": Field(r"\S(?:.*\S)?", "the name of the donor, or @COLUMN"),
    "is_primary_data": Field(r"True|False", "true if these cells are not published elsewhere"),
    "self_reported_ethnicity_ontology_term_id": Field(
        rf"{_ETHNICITY}(?: \|\| {_ETHNICITY})*|unknown|na",
        "a HANCESTRO or AfPO term, or unknown",
    ),
    "sex_ontology_term_id": Field(
        r"PATO:000038[34]|unknown|na", "PATO:0000383 (female), PATO:0000384 (male), or unknown"
    ),
    "suspension_type": Field(r"cell|nucleus|na", "cell, nucleus or na"),
    "tissue_ontology_term_id": Field(
        r"UBERON:\d{7}|CL:\d{7}|CVCL_\w+|unknown", "UBERON:0000178 (blood)"
    ),
    "tissue_type": Field(
        r"tissue|organoid|primary cell culture|cell line",
        "tissue, organoid, primary cell culture or cell line",
    ),
    "title": Field(r"\S(?:.*\S)?", "the title of the data set", "uns"),
    "default_embedding": Field(r"X_\S+", "a key of obsm, such as X_umap", "uns", required=False),
    "author_name": Field(r"\S(?:.*\S)?", "first and last name", "cas"),
    "author_contact": Field(r"\S+@\S+", "an email address", "cas", required=False),
    "orcid": Field(r"(?:https://orcid\.org/)?[\dX-]{19}", "an ORCID", "cas", required=False),
    "reference_location": Field(
        r"https?://\S+", "the URL of the reference data set", "cas", required=False
    ),
    "description": Field(r"\S(?:.*\S)?", "a description of the data set", "cas", required=False),
}
"""Fields by name."""

CELLXGENE: Final = tuple(name for name, field in FIELDS.items() if field.table != "cas")
CELL_ANNOTATION_SCHEMA: Final = (
    "title",
    *(name for name, field in FIELDS.items() if field.table == "cas"),
)


def check_names(values: Mapping[str, object]) -> None:
    """Refuse names of fields that do not exist.

    Raises
    ------
    SchemaError
        With the field that was probably meant.
    """
    for name in values:
        if name not in FIELDS:
            close = get_close_matches(name, FIELDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            msg = f"There is no field {name!r} to set.{hint} Fields: {', '.join(FIELDS)}."
            raise SchemaError(msg)


def field_values(
    adata: AnnData, values: Mapping[str, object] | None, names: Sequence[str]
) -> dict[str, Any]:
    """Return the values of all required fields, and of the optional ones that are given.

    Parameters
    ----------
    adata
        Annotated data. A field is read from the column of ``obs`` of this name, or the key of ``uns``.
    values
        Constants, or ``"@column"`` for a column of ``obs``, by field. They take precedence.
    names
        Fields that are wanted; values of others are ignored.

    Returns
    -------
    Columns for fields of ``obs``, texts for others.

    Raises
    ------
    SchemaError
        That lists all fields that are missing, incomplete or invalid, with what to pass.
    """
    values = {} if values is None else values
    check_names(values)
    found: dict[str, Any] = {}
    problems = []
    for name in names:
        field = FIELDS[name]
        try:
            value = _value(adata, name, field, values)
        except SchemaError as error:
            problems.append(str(error))
            continue
        if value is not None:
            found[name] = value
        elif field.required:
            problems.append(f"{name} is missing. Set it to {field.example}.")
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        msg = (
            f"{len(problems)} required fields are missing or invalid:\n{listed}\n"
            "Pass them as values={name: value}, where '@column' copies a column of obs. Terms are found at www.ebi.ac.uk/ols4."
        )
        raise SchemaError(msg)
    return found


def _value(adata: AnnData, name: str, field: Field, values: Mapping[str, object]) -> Any:
    if name in values:
        given = values[name]
        if isinstance(given, str) and given.startswith("@"):
            column = given[1:]
            if column not in adata.obs:
                msg = f"{name}: obs has no column {column!r} (columns: {', '.join(map(str, adata.obs.columns))})."
                raise SchemaError(msg)
            return _checked(obs_column(adata, column), name, field)
        text = _text(given)
        if not re.fullmatch(field.pattern, text):
            msg = f"{name} is {text!r}. Set it to {field.example}."
            raise SchemaError(msg)
        if field.table == "obs":
            return _checked(pd.Series([given] * adata.n_obs, index=adata.obs_names), name, field)
        return text
    if field.table == "obs":
        return _checked(obs_column(adata, name), name, field) if name in adata.obs else None
    stored = adata.uns.get(name)
    return str(stored) if isinstance(stored, str) and re.fullmatch(field.pattern, stored) else None


def _checked(column: pd.Series, name: str, field: Field) -> pd.Series:
    """Return a complete column of valid values: booleans, or categories of text."""
    missing = column.isna().to_numpy()
    texts = np.array([_text(value) for value in column], dtype=object)
    empty = missing | (texts == "")
    if empty.any():
        msg = f"{name} is missing for {int(empty.sum()):,} of {len(column):,} cells. Set it to {field.example}."
        raise SchemaError(msg)
    wrong = [text for text in pd.unique(texts) if not re.fullmatch(field.pattern, text)]
    if wrong:
        msg = f"{name} has the values {quoted(wrong)}. Set it to {field.example}."
        raise SchemaError(msg)
    if name == "is_primary_data":
        return pd.Series(texts == "True", index=column.index)
    return pd.Series(pd.Categorical(texts), index=column.index)


def _text(value: object) -> str:
    text = str(value).strip()
    return text.capitalize() if text.lower() in {"true", "false"} else text
