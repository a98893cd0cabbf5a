"""An AnnData that follows the CELLxGENE schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from sccello_tools import _keys
from sccello_tools._anndata.columns import check_anndata, missing_column, obs_column
from sccello_tools._anndata.counts import RAW, CountsSource, warn_user
from sccello_tools._anndata.genes import names_of
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools.errors import NotFoundError, SchemaError
from sccello_tools.tokens import looks_like_counts, row_chunks

from .fields import CELLXGENE, FIELDS, HUMAN, SCHEMA_VERSION, field_values
from .gencode import RELEASE, accepted_ids

if TYPE_CHECKING:
    from typing import Any, Final

    from anndata import AnnData
    from numpy.typing import NDArray

_ROWS: Final = 4096
_FORBIDDEN_TYPES: Final = frozenset({"CL:0000255", "CL:0000257", "CL:0000548"})  # of any organism
_LABELS: Final = frozenset(  # columns of obs that the portal derives from "<name>_ontology_term_id"
    {
        "assay",
        "cell_type",
        "development_stage",
        "disease",
        "experimental_condition",
        "organism",
        "self_reported_ethnicity",
        "sex",
        "tissue",
    }
)
_RESERVED: Final = frozenset(
    {
        "ethnicity",
        "ethnicity_ontology_term_id",
        "observation_joinid",
        "organism_ontology_term_id",
        "perturbation_types",
    }
)
_TYPE_ID: Final = "cell_type_ontology_term_id"
_FILTERED: Final = "feature_is_filtered"
_NAME: Final = "original_name"


@shared_docs
def cellxgene(
    adata: AnnData,
    values: Mapping[str, object] | None = None,
    *,
    key: str = _keys.CELL_TYPE,
    layer: str | None = None,
    gene_ids: str | None = None,
) -> AnnData:
    """Return annotated cells in the form that the CELLxGENE schema requires.

    The annotation becomes ``obs["cell_type_ontology_term_id"]``. What the schema requires about the experiment is taken from ``obs``
    or ``values``; nothing is filled in by default. ``cellxgene-schema validate`` checks the written file, including what is not
    checked here, such as whether a term exists.

    Parameters
    ----------
    adata
        Human cells with raw counts, annotated by :func:`~sccello_tools.tl.annotate_novel` or :func:`~sccello_tools.tl.annotate`.
    values
        Value by field for all cells, such as ``{"assay_ontology_term_id": "EFO:0009922", "donor_id": "@donor"}``; ``"@donor"`` copies
        ``obs["donor"]``. Fields that are missing here are read from ``obs`` and ``uns``.
    key
        ``key_added`` of the annotation.
    layer
        %(layer)s Without it ``X`` of the result holds the counts; otherwise ``X`` stays what it is, and the counts are in ``raw``.
    gene_ids
        %(gene_ids)s

    Returns
    -------
    A new AnnData:

    - ``var_names`` are Ensembl ids. Variables that are not genes of GENCODE 48, or repeat a gene with fewer counts, are left out.
    - Cells without counts in these genes are left out, with a warning. Cells without an annotation have the type "unknown".
    - Columns of ``obs`` with reserved names, such as ``cell_type``, are renamed to ``author_cell_type``; those that CELLxGENE derives
      from a term in the file are left out.
    - Numeric embeddings whose key starts with ``X_`` are kept, and the records of this package in ``uns``. Layers, graphs and
      other keys are left out.

    Raises
    ------
    SchemaError
        If required fields are missing or invalid (all are listed), cells have identical counts, counts are not integers, or genes are
        not human.
    NotFoundError
        If there is no annotation of that key.
    NotCountsError, GeneMatchError
        As :func:`~sccello_tools.tl.embed`.

    Examples
    --------
    >>> import warnings
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[:50].copy()
    >>> sccello.tl.annotate_novel(adata)
    >>> warnings.simplefilter("ignore")  # about retired gene ids, which are left out
    >>> ready = sccello.export.cellxgene(
    ...     adata,
    ...     {
    ...         "title": "Pancreatic islets",
    ...         "assay_ontology_term_id": "EFO:0009899",
    ...         "development_stage_ontology_term_id": "unknown",
    ...         "disease_ontology_term_id": "PATO:0000461",
    ...         "donor_id": "@donor",
    ...         "is_primary_data": False,
    ...         "self_reported_ethnicity_ontology_term_id": "unknown",
    ...         "sex_ontology_term_id": "unknown",
    ...         "suspension_type": "@suspension",
    ...         "tissue_ontology_term_id": "UBERON:0000006",
    ...         "tissue_type": "tissue",
    ...     },
    ... )
    >>> ready.var_names[0], ready.obs["tissue_type"].unique().tolist()
    ('ENSG00000121410', ['tissue'])
    """
    check_anndata(adata)
    term_key = key + _keys.TERM_ID_SUFFIX
    if term_key not in adata.obs:
        remedy = "Call tl.annotate_novel(adata) first."
        raise NotFoundError(missing_column("adata.obs", term_key, adata.obs.columns, "key", remedy))
    found = field_values(adata, values, CELLXGENE)
    source = CountsSource(layer, gene_ids)
    counts, var, other = _matrices(adata, source)
    rows = _usable_rows(counts, adata)
    obs = _obs(
        adata, {name: v for name, v in found.items() if FIELDS[name].table == "obs"}, term_key
    )
    uns: dict[str, Any] = {n: v for n, v in found.items() if FIELDS[n].table == "uns"}
    uns["organism_ontology_term_id"] = HUMAN
    uns |= {name: v for name, v in adata.uns.items() if _is_record(v)}
    obsm: dict[str, Any] = {
        name: value
        for name, value in adata.obsm.items()
        if name.startswith("X_") and _is_embedding(value)
    }
    ready = anndata.AnnData(
        counts if other is None else other,
        obs=obs,
        var=var,
        uns=uns,
        obsm=obsm,
    )
    if other is not None:
        ready.raw = anndata.AnnData(counts, var=var.drop(columns=_FILTERED), obs=obs[[]])
    if not rows.all():
        warn_user(
            f"{int((~rows).sum()):,} of {adata.n_obs:,} cells have no counts in the genes of {RELEASE} and are left out, because CELLxGENE does not accept them."
        )
        ready = ready[rows].copy()
    for name in ready.obs:
        if isinstance(ready.obs[name].dtype, pd.CategoricalDtype):
            ready.obs[name] = ready.obs[name].cat.remove_unused_categories()
    if (embedding := uns.get("default_embedding")) is not None and embedding not in ready.obsm:
        msg = f"default_embedding is {embedding!r}, which is not one of the exported embeddings ({', '.join(ready.obsm) or 'none'})."
        raise SchemaError(msg)
    if not ready.obsm:
        msg = "adata.obsm has no embedding with a key that starts with 'X_', and CELLxGENE requires one. Call tl.embed or sc.tl.umap first."
        raise SchemaError(msg)
    logger.info("cellxgene: %d cells, %d genes, schema %s", *ready.shape, SCHEMA_VERSION)
    return ready


def _matrices(
    adata: AnnData, source: CountsSource
) -> tuple[sparse.csr_matrix, pd.DataFrame, sparse.csr_matrix | None]:
    """Return the counts of the accepted genes, their table, and X if it is another matrix."""
    matrix, table = source.matrix(adata), source.var(adata)
    if not looks_like_counts(matrix):
        msg = f"{source.name} does not hold integer counts, which CELLxGENE requires. Pass the layer that does as layer=."
        raise SchemaError(msg)
    counts = _csr(matrix)
    if (counts.data % 1 != 0).any() or (counts.data < 0).any():
        msg = f"{source.name} has values that are not whole numbers of 0 or more, which CELLxGENE requires. Pass the layer with raw counts as layer=."
        raise SchemaError(msg)
    ids = _gene_ids(adata, source)
    totals = np.asarray(counts.sum(axis=0)).ravel()
    chosen = _one_per_gene(ids, totals)
    names = np.array(names_of(table, None), dtype=object)
    n_unknown, n_repeated = int((ids == "").sum()), int((ids != "").sum()) - len(chosen)
    if n_unknown or n_repeated:
        examples = ", ".join(repr(name) for name in names[ids == ""][:5])
        warn_user(
            f"{n_unknown:,} of {len(ids):,} variables are not genes of {RELEASE} ({examples}) and {n_repeated:,} repeat a gene; they are left out, "
            f"with {1 - totals[chosen].sum() / max(totals.sum(), 1):.1%} of the counts. If var has a column of Ensembl IDs, pass it as gene_ids=."
        )
    if not len(chosen):
        msg = f"None of the {len(ids):,} variables is a gene of {RELEASE}. Pass the column of var with Ensembl IDs as gene_ids=."
        raise SchemaError(msg)
    var = pd.DataFrame(index=pd.Index(ids[chosen].astype(object)))
    if (names[chosen] != ids[chosen]).any():
        var[_NAME] = names[chosen]
    var[_FILTERED] = False
    counts = counts[:, chosen]
    if source.layer is None or adata.X is None:
        return counts, var, None
    columns = chosen
    if source.layer == RAW:  # X may have fewer genes
        place = {name: i for i, name in enumerate(names_of(adata.var, None))}
        columns = np.array([place.get(name, -1) for name in names[chosen]])
    var[_FILTERED] = columns < 0
    other = _csr(adata.X)
    empty = sparse.csr_matrix(np.zeros((adata.n_obs, 1), dtype=np.float32))
    other = sparse.hstack([other, empty], format="csr")[:, columns]  # column -1 is the empty one
    other.eliminate_zeros()
    return counts, var, other


def _csr(matrix: Any) -> Any:
    """Read a matrix of any type as CSR of float32; anndata writes the class that the validator expects."""
    parts = [sparse.csr_matrix(chunk.rows) for chunk in row_chunks(matrix, n_rows=_ROWS)]
    found: Any = sparse.csr_matrix(sparse.vstack(parts), dtype=np.float32, copy=True)
    found.sum_duplicates()
    found.eliminate_zeros()
    return found


def _gene_ids(adata: AnnData, source: CountsSource) -> NDArray[np.str_]:
    match = source.gene_match(adata, report=False)
    if match.organism != "human":
        msg = (
            f"The genes are those of {match.organism}; export.cellxgene supports human cells only."
        )
        raise SchemaError(msg)
    own = accepted_ids(names_of(source.var(adata), source.gene_ids))
    matched = accepted_ids(match.gene_ids.tolist())
    return np.where(match.excluded, "", np.where(own != "", own, matched))


def _one_per_gene(ids: NDArray[np.str_], totals: NDArray[Any]) -> NDArray[np.intp]:
    """Return the variable with most counts of each gene, in order of the variables."""
    known = np.flatnonzero(ids != "")
    order = known[np.argsort(-totals[known], kind="stable")]
    _, first = np.unique(ids[order], return_index=True)
    return np.sort(order[first])


def _usable_rows(counts: sparse.csr_matrix, adata: AnnData) -> NDArray[np.bool_]:
    """Return which cells have counts.

    Raises
    ------
    SchemaError
        If cells have identical counts.
    """
    usable: NDArray[np.bool_] = np.diff(counts.indptr) > 0
    first: dict[bytes, int] = {}
    repeats = []
    for row in np.flatnonzero(usable).tolist():
        part = slice(counts.indptr[row], counts.indptr[row + 1])
        content = counts.indices[part].tobytes() + counts.data[part].tobytes()
        if first.setdefault(content, row) != row:
            repeats.append(row)
    if repeats:
        names = ", ".join(repr(str(adata.obs_names[row])) for row in repeats[:5])
        msg = f"{len(repeats):,} cells have the same counts as another cell ({names}), which CELLxGENE does not accept. Remove them first."
        raise SchemaError(msg)
    return usable


def _obs(adata: AnnData, fields: Mapping[str, pd.Series], term_key: str) -> pd.DataFrame:
    terms = obs_column(adata, term_key).astype(object)
    is_term = terms.astype(str).str.fullmatch(r"CL:\d{7}") & ~terms.isin(_FORBIDDEN_TYPES)
    found: dict[str, Any] = {_TYPE_ID: pd.Categorical(terms.where(is_term, "unknown"))}
    found |= {
        name: column.to_numpy() if column.dtype == bool else column.array
        for name, column in fields.items()
    }
    for name in map(str, adata.obs.columns):
        if name in fields:
            continue
        to = name.lstrip("_") or "column"
        if name == _TYPE_ID or name in _LABELS | _RESERVED:
            if name in _LABELS - {"cell_type"} and f"{name}_ontology_term_id" in adata.obs:
                continue  # the portal derives it
            to = f"author_{name}"
        while to in found or (to != name and to in adata.obs):
            to += "_"
        if to != name:
            logger.info(
                "cellxgene: obs[%r] is renamed to %r, because the name is reserved", name, to
            )
        found[to] = _plain(obs_column(adata, name))
    return pd.DataFrame(found, index=adata.obs_names.astype(str).astype(object))


def _plain(column: pd.Series) -> Any:
    """Return numbers and booleans as NumPy arrays, everything else as categories of text."""
    if column.dtype == bool or (column.dtype.kind in "iuf" and isinstance(column.dtype, np.dtype)):
        return column.to_numpy()
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    texts = column.astype(object)
    return pd.Categorical(texts.where(texts.isna(), texts.astype(str)))


def _is_record(value: object) -> bool:
    """Whether a value of ``uns`` records the parameters of a function of this package."""
    return isinstance(value, Mapping) and "weights_sha256" in value


def _is_embedding(value: Any) -> bool:
    """Whether CELLxGENE accepts an embedding."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.shape[1] < 2:
        return False
    return value.dtype.kind in "iuf" and not (np.isinf(value).any() or np.isnan(value).all())
