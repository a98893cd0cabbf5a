"""With any AnnData, a public function works, or raises a ScCelloError that states a remedy and leaves the AnnData unchanged."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import sccello_tools as sccello
from sccello_tools import models
from sccello_tools.errors import ScCelloError
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

ONTOLOGY = CellOntology.load()
PANEL = sorted(symbol for symbol, genes in GeneVocabulary.load().genes_by_symbol.items() if len(genes) == 1)[::37]  # fmt: skip
ENSEMBL = list(GeneVocabulary.load().gene_ids[:600:2])
ODD = ["", " ", "nan", "NaN", "NA", "NA.1", "None-2", "#N/A", "HLA.A", "GRCh38_CD3E", "2-Sep", "BLANK_0001", b"CD3D", "基因", "ген\n", "<script>", "a/b", "1", "CD3E", "CD3E-1", "TP53", "ENSG00000141510.18", "enSG00000141510", "\x00", "ENSG0000000000000"]  # fmt: skip
TERMS = ["CL:0000084", "CL:0000236", "T cell", "B cell", "T cell/NK cell", "unknown", "doublet", "CL:0000003", "CL:0000000", "CL:9999999", "cl:0000084", "", "βセル", None, np.nan, 3, 1.5, True]  # fmt: skip
NUMBERS = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">i4", ">u8"]  # fmt: skip
FORMS = ["dense", "fortran", "csr", "csr_array", "csc", "csc_array", "unsorted", "repeated", "int64", "dask", "view", "readonly"]  # fmt: skip
FEATURES = [
    "Gene Expression",
    "Antibody Capture",
    "CRISPR Guide Capture",
    "protein_coding",
    "Peaks",
    None,
    "",
]
DAMAGES = ["overflow", "decrease", "short", "beyond", "negative"]
VALUES = ["counts", "zeros", "huge", "largest", "negative", "fractions", "nan", "inf", "one", "subnormal"]  # fmt: skip


def values_of(kind: str, dtype: np.dtype, shape: tuple[int, int], rng) -> np.ndarray:
    x = rng.poisson(0.7, size=shape).astype(dtype)
    if not x.size:
        return x
    at = tuple(rng.integers(0, n) for n in shape)
    limits = np.finfo(dtype) if dtype.kind == "f" else None
    top = 1 if dtype.kind == "b" else (limits or np.iinfo(dtype)).max
    if kind == "zeros":
        x[:] = 0
    elif kind == "one":
        x[:] = 1
    elif kind == "huge":
        x[at] = min(top, 2**62) if dtype.kind != "f" else min(float(top), 2.0**62)
    elif kind == "largest":
        x[:] = top
    elif kind == "negative" and dtype.kind in "if":
        x[at] = -3
    elif dtype.kind == "f" and kind in {"fractions", "nan", "inf", "subnormal"}:
        x[at] = {"fractions": 0.5, "nan": np.nan, "inf": np.inf}.get(
            kind, limits.smallest_subnormal
        )
    return x


def as_form(x: np.ndarray, form: str) -> Any:
    if x.dtype == np.float16 or x.dtype.byteorder == ">":  # SciPy has none of these
        form = form if form in {"dense", "fortran", "view", "readonly"} else "dense"
    if form in {"csr", "csr_array", "csc", "csc_array"}:
        return getattr(sparse, form if "_" in form else f"{form}_matrix")(x)
    if form in {"unsorted", "repeated", "int64"}:
        matrix = sparse.csr_matrix(x)
        if form == "int64":
            matrix.indices = matrix.indices.astype(np.int64)
            matrix.indptr = matrix.indptr.astype(np.int64)
            return matrix
        coo = matrix.tocoo()
        row, col, data = coo.row[::-1], coo.col[::-1], coo.data[::-1]
        order = np.argsort(row, kind="stable")
        if form == "repeated" and len(
            data
        ):  # an entry that is stored twice is a sum, as SciPy has it
            order = np.sort(np.concatenate([order, order[:1]]))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row[order], minlength=x.shape[0]))])
        return sparse.csr_matrix((data[order], col[order], indptr), shape=x.shape)
    if form == "dask":
        import dask.array

        return dask.array.from_array(x, chunks=(2, max(1, x.shape[1])))
    if form == "fortran":
        return np.asfortranarray(x)
    if form == "readonly":
        x.flags.writeable = False
    return x


def damaged(matrix: Any, kind: str) -> Any:
    """Damage the index arrays of a CSR or CSC matrix as a faulty writer does."""
    indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.copy()
    if kind == "overflow":
        indptr[len(indptr) // 2 :] -= 2**31
    elif kind == "decrease":
        indptr[1:-1] = indptr[1:-1][::-1] + np.arange(len(indptr) - 2)[::-1]
    elif kind == "short":
        indptr = indptr[:-1]
    elif len(indices):
        indices[len(indices) // 2] = 10**6 if kind == "beyond" else -4
    matrix.indptr, matrix.indices = indptr.astype(matrix.indptr.dtype), indices
    return matrix


@st.composite
def columns(draw, n: int) -> Any:
    """A column of obs: terms, names, numbers, times, with gaps or without."""
    kind = draw(st.sampled_from(["terms", "mixed", "category", "float", "int", "bool", "Int64", "string", "time", "empty", "one"]))  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    drawn = [TERMS[i] for i in rng.integers(0, len(TERMS), n)]
    good = [TERMS[i] for i in rng.integers(0, 4, n)]
    gaps = [None if i % 3 == 2 else i for i in range(n)]
    return {
        "terms": np.array(good, dtype=object),
        "mixed": np.array(drawn, dtype=object),
        "category": pd.Categorical([None if isinstance(x, float) else str(x) for x in drawn]),
        "float": rng.normal(size=n),
        "int": rng.integers(0, 3, n),
        "bool": rng.integers(0, 2, n).astype(bool),
        "Int64": pd.array(gaps, dtype="Int64"),
        "string": pd.array(good, dtype="string"),
        "time": pd.date_range("2020", periods=n),
        "empty": np.full(n, None, dtype=object),
        "one": pd.Categorical(["CL:0000084"] * n, categories=["CL:0000084", "unused"]),
    }[kind]


@st.composite
def anndatas(draw) -> anndata.AnnData:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(
        st.sampled_from(
            [(5, 40), (5, 40), (4, 300), (3, 60), (2, 12), (1, 1), (0, 9), (3, 0), (7, 3)]
        )
    )
    dtype, form = np.dtype(draw(st.sampled_from(NUMBERS))), draw(st.sampled_from(FORMS))
    x = values_of(draw(st.sampled_from(["counts", *VALUES])), dtype, (n, m), rng)
    names = list(rng.permutation(ENSEMBL)[:m])
    how = draw(
        st.sampled_from(["ensembl", "ensembl", "odd", "repeated", "numbers", "symbols", "panel"])
    )
    if how == "odd":
        names = [ODD[i] for i in rng.integers(0, len(ODD), m)]
    elif how == "repeated":
        names = [names[i // 2] for i in range(m)]
    elif how == "numbers":
        names = list(map(str, range(m)))
    elif how == "panel":
        names = [*PANEL[: m * 9 // 10], *(f"BLANK_{i:04d}" for i in range(m))][:m]
    elif how == "symbols":
        names = (["CD3E", "CD3D", "HLA-A", "TNF", "INS", "GCG", "SEPT7"] * m)[:m]
    cells = draw(st.sampled_from(["plain", "repeated", "odd", "integers"]))
    index = {"plain": [f"c{i}" for i in range(n)], "repeated": ["c"] * n, "odd": (ODD * n)[:n], "integers": list(range(n))}[cells]  # fmt: skip
    obs = pd.DataFrame({"label": draw(columns(n)), "donor": draw(columns(n))}, index=pd.Index(index).astype(str))  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata, of what it is given
        adata = anndata.AnnData(as_form(x, form), obs=obs, var=pd.DataFrame(index=names))
        adata.var["gene"] = draw(st.sampled_from([names, [None] * m, list(range(m))]))
        if draw(st.sampled_from([False, False, True])):
            adata.var["feature_types"] = [FEATURES[i] for i in rng.integers(0, len(FEATURES), m)]
        if draw(st.sampled_from([False, False, False, True])):  # as an outer join leaves it
            adata.var["sccello_gene_id"] = [name if i % 3 else np.nan for i, name in enumerate(names)]  # fmt: skip
        extra = draw(st.sampled_from(["", "layer", "raw", "no X"]))
        if extra == "layer":
            adata.layers["counts"] = sparse.csr_matrix(rng.poisson(1, (n, m)).astype("f4"))
        elif extra == "raw":
            adata.raw = adata.copy()
        elif extra == "no X":
            adata.X = None
        adata.uns["note"] = {"a": [1, 2], "b": np.arange(2)}
        kind = draw(
            st.sampled_from(
                ["good", "good", "good", "gaps", "f8", "narrow", "no uns", "odd uns", "none"]
            )
        )
        add_embedding(adata, kind, rng)
        if form == "view" and n and m:
            adata = adata[::-1]
        elif (
            sparse.issparse(adata.X)
            and adata.X.format in {"csr", "csc"}
            and n * m > 1
            and (kind := draw(st.sampled_from(["", "", "", "", *DAMAGES])))
        ):
            adata.X = damaged(adata.X, kind)
    return adata


def add_embedding(adata: anndata.AnnData, kind: str, rng) -> None:
    if kind == "none":
        return
    rows = rng.normal(size=(adata.n_obs, 16 if kind == "narrow" else 128)).astype("f4")
    if kind == "gaps" and adata.n_obs:
        rows[0] = np.nan
    adata.obsm["X_sccello"] = rows.astype("f8") if kind == "f8" else rows
    adata.obsm["X_umap"] = rng.normal(size=(adata.n_obs, 2))
    made = {"model": "sccello-small", "weights_sha256": small().sha256, "representation": "cls"}
    if kind != "no uns":
        adata.uns["X_sccello"] = "by hand" if kind == "odd uns" else made


def small() -> models.LoadedModel:
    return models.load("sccello-small", device="cpu")


# --- what must hold


def fixed(value: Any) -> Any:
    """Content of anything in a form that can be compared."""
    if hasattr(value, "dask"):
        return fixed(value.compute())
    if sparse.issparse(value):
        return (value.format, value.data.tobytes(), value.indices.tobytes(), value.indptr.tobytes())
    if isinstance(value, pd.DataFrame):
        return [(name, str(value.dtypes.iloc[i]), value.iloc[:, i].astype(object).map(repr).tolist()) for i, name in enumerate(value.columns)] + [value.index.tolist()]  # fmt: skip
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return {key: fixed(item) for key, item in value.items()}
    return repr(value)


def content(adata: anndata.AnnData) -> dict[str, Any]:
    found = {
        "X": fixed(adata.X),
        "obs": fixed(adata.obs),
        "var": fixed(adata.var),
        "view": adata.is_view,
    }
    found["raw"] = None if adata.raw is None else fixed(adata.raw.X)
    for slot in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        found[slot] = {key: fixed(value) for key, value in dict(getattr(adata, slot)).items()}
    return found


def without_new(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return the content that existed before; functions may add slots, and replace those of this package."""
    mine = ("sccello", "X_sccello", "written")
    kept = dict(after)
    for slot in ("layers", "obsm", "uns"):
        kept[slot] = {key: value for key, value in after[slot].items() if key in before[slot] and not key.startswith(mine)}  # fmt: skip
    for slot in ("obs", "var"):
        kept[slot] = [column for column in after[slot] if not (isinstance(column, tuple) and column[0].startswith(mine))]  # fmt: skip
    return kept


EMBEDDING = ("X_sccello", "sccello_n_tokens", "sccello_truncated")


def without_embedding(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Leave out the slots of a complete embedding if a call has written one."""
    kept = dict(after)
    if EMBEDDING[0] not in dict(after["obsm"]):
        return kept
    for slot in ("obsm", "uns"):
        kept[slot] = {key: value for key, value in after[slot].items() if key != EMBEDDING[0]}
    kept["obs"] = [
        column
        for column in after["obs"]
        if not (isinstance(column, tuple) and column[0] in EMBEDDING)
    ]
    kept["view"] = before["view"]
    return kept


NEXT_STEP = re.compile(
    r"\b(Did you mean|must|required|Reduce|Convert|Write|Omit|Read|Re-run|subtract|Pass|Rename|load|needs|merge|Call|Pass|Name|Map|Use|Give|Make|Merge|Fill|Load|Leave|Rename|Expected|expected|Raw counts are available|pass|call|name|Check|see|Copy|Set|Take|Lower|Remove|Add)\b"
)


def holds(call: Callable[[anndata.AnnData], Any], adata: anndata.AnnData) -> None:
    before = content(adata)
    n_obs, error = adata.n_obs, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # an invalid operation on numbers
            call(adata)
    except ScCelloError as found:
        error = str(found)
    if error:
        assert NEXT_STEP.search(error), f"no next step in: {error}"
        # an embedding that was computed before the error is kept, so that it need not be computed again
        after = without_embedding(content(adata), before)
        assert after == without_embedding(before, before), f"changed by a failing call: {error}"
        return
    assert adata.n_obs == n_obs
    after = without_new(content(adata), before)
    before = without_new(before, before)
    after["view"] = before["view"]  # writing to a view makes it an actual AnnData
    assert after == before


LAYER, GENE = (
    st.sampled_from([None, None, None, "counts", "none"]),
    st.sampled_from([None, None, "gene", "none"]),
)
LABEL = st.sampled_from(["label", "label", "donor", "none", "sccello_cell_type"])
TINY: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def _tiny(tiny_model_folder, tmp_path_factory):
    TINY["model"] = models.load(tiny_model_folder, device="cpu")
    TINY["out"] = tmp_path_factory.mktemp("out")
    level = sccello.settings.verbosity
    sccello.settings.verbosity = "error"
    yield
    sccello.settings.verbosity = level


def options(**choices: st.SearchStrategy) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(choices)


def hold(n: int, **choices: st.SearchStrategy):
    """Run a test on n AnnData with drawn options."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]

    def wrap(test):
        test = given(adata=anndatas(), options=options(**choices))(test)
        return settings(max_examples=n, deadline=None, suppress_health_check=quiet, derandomize=True, database=None)(test)  # fmt: skip

    return wrap


COUNTS = st.sampled_from(["check", "check", "trust", "guess"])
KEY_ADDED = st.sampled_from(["written", "written", "written", "written/1", "_index", ""])


@hold(250, gene_ids=GENE, min_matched=st.sampled_from([0, 1, 500]), key_added=KEY_ADDED)
def test_match_genes(adata, options):
    holds(lambda a: sccello.pp.match_genes(a, **options), adata)


@hold(500, layer=LAYER, gene_ids=GENE, counts=COUNTS, min_matched=st.sampled_from([1, 1, 500]),
      max_length=st.sampled_from([2048, 16, 2, 1, 0, -1]), chunk_cells=st.sampled_from([None, 1, 3, 0]))  # fmt: skip
def test_tokenize(adata, options):
    holds(lambda a: sccello.pp.tokenize(a, **options), adata)


@hold(250, key=LABEL, min_mapped=st.sampled_from([0, 0.1, 1, 2]), key_added=KEY_ADDED)
def test_map_cell_types(adata, options):
    holds(lambda a: sccello.pp.map_cell_types(a, ontology=ONTOLOGY, **options), adata)


@hold(400, layer=LAYER, gene_ids=GENE, counts=COUNTS, copy=st.booleans(),
      representation=st.sampled_from(["cls", "cell", "gene"]), max_length=st.sampled_from([None, 16, 1, 9999]),
      batch_tokens=st.sampled_from(["auto", 1, 64, 0, 1.5]), key_added=KEY_ADDED)  # fmt: skip
def test_embed(adata, options):
    holds(
        lambda a: sccello.tl.embed(
            a, model=TINY["model"], min_matched=1, precision="float32", **options
        ),
        adata,
    )


@hold(150, groupby=st.sampled_from([None, "label", "none"]), alpha=st.sampled_from([0.1, 0, 1, float("nan")]),
      candidates=st.sampled_from([None, ["T cell", "B cell"], "CL:0000084", [], ["no such cell"]]),
      use_rep=st.sampled_from([None, "X_sccello", "none"]), return_scores=st.booleans(), copy=st.booleans(),
      level=st.sampled_from(["auto", "type", "other"]))  # fmt: skip
def test_annotate_novel(adata, options):
    holds(
        lambda a: sccello.tl.annotate_novel(a, model=small(), ontology=ONTOLOGY, **options), adata
    )


@hold(100, label_key=LABEL, batch_key=st.sampled_from([None, "donor", "none"]),
      use_rep=st.sampled_from([None, "X_sccello", "none"]), n_neighbors=st.sampled_from([15, 1, 0, 99]))  # fmt: skip
def test_build_reference(adata, options):
    holds(
        lambda a: sccello.tl.build_reference(a, model=small(), ontology=ONTOLOGY, **options), adata
    )


@hold(
    100,
    label_key=LABEL,
    level=st.sampled_from(["auto", "type", "x"]),
    return_scores=st.booleans(),
    copy=st.booleans(),
)
def test_annotate_by_itself(adata, options):
    holds(
        lambda a: sccello.tl.annotate(a, reference=a, model=small(), ontology=ONTOLOGY, **options),
        adata,
    )


@hold(100, groupby=st.sampled_from([None, "label", "donor", "none"]), layer=LAYER, n_cells_per_group=st.sampled_from([2, 1, 50]),
      method=st.sampled_from(["perturb", "other"]), reference=st.sampled_from(["rest", "T cell"]), copy=st.booleans())  # fmt: skip
def test_marker_genes(adata, options):
    holds(
        lambda a: sccello.tl.marker_genes(
            a, model=TINY["model"], min_matched=1, key_added="written", **options
        ),
        adata,
    )


@hold(
    40,
    label_key=LABEL,
    layer=LAYER,
    batch_key=st.sampled_from([None, "donor", "none"]),
    mode=st.sampled_from(["linear", "x"]),
)
def test_finetune(adata, options):
    from sccello_tools.training.finetune import FinetuneConfig

    config = FinetuneConfig(max_epochs=1, batch_cells=4)
    holds(
        lambda a: sccello.tl.finetune(
            a,
            out=TINY["out"] / str(len(list(TINY["out"].iterdir()))),
            model=TINY["model"],
            config=config,
            min_matched=1,
            device="cpu",
            **options,
        ),
        adata,
    )


@hold(60, truth=LABEL, prediction=LABEL)
def test_plots_of_columns(adata, options):
    import matplotlib.pyplot as plt

    try:
        holds(lambda a: sccello.pl.confusion(a, show=False, **options), adata)
        holds(lambda a: sccello.pl.ontology_umap(a, options["truth"], show=False), adata)
        holds(lambda a: sccello.pl.confidence(a, options["truth"], show=False), adata)
    finally:
        plt.close("all")


@hold(
    100,
    key=st.sampled_from(["sccello_marker_genes", "note", "none", "X_sccello"]),
    group=st.sampled_from([None, "a", []]),
)
def test_get_marker_genes_df(adata, options):
    holds(lambda a: sccello.get.marker_genes_df(a, **options), adata)


def a_new_folder() -> Path:
    return TINY["out"] / str(len(list(TINY["out"].iterdir())))


@hold(
    60,
    label_key=LABEL,
    batch_key=st.sampled_from([None, "donor", "none"]),
    layer=LAYER,
    gene_ids=GENE,
    counts=COUNTS,
)
def test_calibrate(adata, options):
    holds(
        lambda a: sccello.tl.calibrate(
            a, model=TINY["model"], min_matched=1, ontology=ONTOLOGY, **options
        ),
        adata,
    )


@hold(
    60,
    label_key=LABEL,
    use_rep=st.sampled_from([None, "X_sccello", "none"]),
    parents=st.sampled_from([None, {"CL:0000084": "CL:0000000"}, {"x": "y"}]),
)
def test_add_types(adata, options):
    holds(
        lambda a: sccello.tl.add_types(
            a, out=a_new_folder(), model=small(), ontology=ONTOLOGY, **options
        ),
        adata,
    )


@hold(
    60,
    use_rep=st.sampled_from([None, "X_sccello", "none"]),
    return_scores=st.booleans(),
    copy=st.booleans(),
)
def test_predict(adata, options):
    holds(lambda a: sccello.tl.predict(a, model=small(), **options), adata)


@hold(60, groupby=st.sampled_from([None, "label", "none"]), center=st.booleans(), layer=LAYER, copy=st.booleans(),
      drugs=st.sampled_from([None, ["Erlotinib"], ["no such drug"], []]))  # fmt: skip
def test_drug_response(adata, options):
    pytest.importorskip("rdkit")
    holds(
        lambda a: sccello.tl.drug_response(a, min_matched=1, key_added="written", **options), adata
    )


@hold(60, label_key=LABEL, layer=LAYER, gene_ids=GENE, counts=COUNTS)
def test_pretrain(adata, options):
    from sccello_tools.training.pretrain import PretrainConfig

    config = PretrainConfig(
        hidden_size=8, n_layers=1, n_heads=2, intermediate_size=8, max_length=16, max_steps=1,
        batch_cells=2, n_negatives=8,
    )  # fmt: skip
    holds(
        lambda a: sccello.tl.pretrain(
            a, out=a_new_folder(), config=config, ontology=ONTOLOGY, min_matched=1, **options
        ),
        adata,
    )


@hold(80, label_key=LABEL, layer=LAYER, counts=COUNTS, unknown_labels=st.sampled_from(["error", "leave_out"]),
      obs_keys=st.sampled_from([(), ("donor",), ("none",)]))  # fmt: skip
def test_files(adata, options):
    """What anndata can write, build_corpus and embed_files can read, or say why not."""
    path = a_new_folder().with_suffix(".h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adata.write_h5ad(path)
        except Exception:  # noqa: BLE001
            return  # what anndata itself cannot write
    common = {"layer": options["layer"], "counts": options["counts"], "min_matched": 1}
    holds(lambda _: sccello.pp.build_corpus(path, a_new_folder(), **common, **{k: v for k, v in options.items() if k not in common}), adata)  # fmt: skip
    holds(
        lambda _: sccello.embed_files(
            path, a_new_folder(), model=TINY["model"].folder, device="cpu", **common
        ),
        adata,
    )
