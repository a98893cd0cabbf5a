"""Word embeddings of the genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sccello_tools import __version__
from sccello_tools._docs import shared_docs

from ._embed import loaded_model

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sccello_tools.models import LoadedModel


@shared_docs
def gene_embeddings(
    model: str | Path | LoadedModel = "sccello-small", *, device: str = "auto"
) -> AnnData:
    """Return the trained word embedding of each gene as an AnnData with genes as observations.

    Neighbours and clusters of genes, computed with scanpy, are genes that the model uses similarly.

    Parameters
    ----------
    model
        %(model)s
    device
        %(device)s

    Returns
    -------
    AnnData of shape (25424, d), in the order of the vocabulary: ``X`` float32; ``obs_names`` Ensembl ids; ``obs["symbol"]``, "" if
    unknown; ``obs["token"]`` int32; ``uns["sccello_gene_embeddings"]`` model, sha256 of its weights, version.

    Raises
    ------
    WeightsError
        If the model cannot be loaded or has another vocabulary.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> genes = sccello.tl.gene_embeddings()
    >>> genes.shape
    (25424, 256)
    >>> genes.obs.loc["ENSG00000105374", "symbol"]
    'NKG7'
    """
    import anndata
    import pandas as pd

    from sccello_tools.tokens import GeneVocabulary

    loaded = loaded_model(model, device)
    vocabulary = GeneVocabulary.load()
    table = loaded.network.word_embeddings.detach().float().cpu().numpy()
    width = table.shape[1]
    return anndata.AnnData(
        table[vocabulary.tokens],
        obs=pd.DataFrame(
            {
                "symbol": vocabulary.symbols.astype(object),
                "token": vocabulary.tokens.astype(np.int32),
            },
            index=pd.Index(vocabulary.gene_ids.astype(object)),
        ),
        var=pd.DataFrame(index=[f"dim_{i}" for i in range(width)]),
        uns={
            "sccello_gene_embeddings": {
                "model": loaded.name,
                "weights_sha256": loaded.sha256,
                "sccello_tools_version": __version__,
            }
        },
    )
