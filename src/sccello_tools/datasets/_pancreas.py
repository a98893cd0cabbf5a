"""Real pancreas cells of a study that no bundled model saw in training."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def pancreas_tritschler() -> AnnData:
    """Load 583 human pancreas cells of Tritschler et al. (2022): raw counts, 10x 3' v2, authors' cell types.

    No model of this package was trained on them. ``obs`` has the authors' label (``original_label``), its Cell Ontology term
    (``cell_type_ontology_term_id``, ``cell_type``), donor, assay and tissue. Genes are Ensembl ids.

    Returns
    -------
    Annotated data of shape (583, 33053), raw counts in ``X`` (CSR, float32).

    Notes
    -----
    Source: doi:10.1016/j.molmet.2022.101595, by way of the CELLxGENE collection; licence CC BY 4.0.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> adata.shape
    (583, 33053)
    """
    import anndata

    with as_file(
        files("sccello_tools.resources").joinpath("cells", "pancreas_tritschler.h5ad")
    ) as path:
        return anndata.read_h5ad(path)
