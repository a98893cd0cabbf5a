"""The cells of a model: tokens, and which can train."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scvi import REGISTRY_KEYS

from sccello_tools._anndata.counts import CountsSource, iter_token_chunks
from sccello_tools.errors import ConfigError, LabelError
from sccello_tools.tokens import RaggedTokens, Tokenizer
from sccello_tools.training.finetune.split import hold_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.training.finetune import FinetuneConfig
    from sccello_tools.training.finetune.split import Split

    from ._model import ScCello


def tokens_of(
    model: ScCello,
    adata: AnnData,
    indices: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> RaggedTokens:
    """Tokenize cells by the names of their own genes.

    Parameters
    ----------
    model
        For the layer of its setup and its number of positions.
    adata
        Registered cells.
    indices
        Rows to take; all if not given.
    batch_size
        Rows of counts held in memory at a time.

    Raises
    ------
    GeneMatchError, NotCountsError
        If the matrix does not hold raw counts of human genes.
    """
    source = CountsSource(layer=model.get_setup_arg("layer"))
    tokenizer = Tokenizer(source.gene_match(adata), model.module.network.config.max_positions)
    chunks = iter_token_chunks(
        adata if indices is None else adata[np.asarray(indices)],
        tokenizer,
        source,
        chunk_cells=batch_size,
    )
    return RaggedTokens.concatenate(chunk.tokens for chunk in chunks)


class TrainingCells(NamedTuple):
    """Cells that can train: they have a label and a gene of the vocabulary."""

    tokens: RaggedTokens
    codes: NDArray[np.intp]
    """(n_cells,) label of each."""
    rows: NDArray[np.intp]
    """(n_cells,) row of each in the AnnData."""
    split: Split


def cells_to_train(model: ScCello, config: FinetuneConfig) -> TrainingCells:
    """Tokenize the cells of a model and hold some out: whole batches where there are several, else a share of each label.

    Raises
    ------
    ConfigError
        If the model has no cells.
    LabelError
        If there are fewer than two labels.
    GroupError
        If no batch can be held out.
    """
    if model.adata is None:
        msg = "The model was loaded without cells. Load it with ScCello.load(folder, adata=...) to train it on them."
        raise ConfigError(msg)
    labels = model.labels_
    if len(labels) < 2:
        msg = f"Training needs cells of at least two labels, found {labels}. Name their column in setup_anndata(adata, labels_key=...)."
        raise LabelError(msg)
    tokens = tokens_of(model, model.adata)
    codes, batches = (
        np.asarray(model.data_registry(key)).ravel().astype(np.intp)
        for key in (REGISTRY_KEYS.LABELS_KEY, REGISTRY_KEYS.BATCH_KEY)
    )
    rows = np.flatnonzero((codes < len(labels)) & (tokens.lengths > 0))
    if (n_there := len(np.unique(codes[rows]))) < 2:
        msg = f"Training needs cells of at least two labels; {len(rows):,} usable cells have {n_there}. Cells labelled {model.unlabeled_category_!r} do not train."
        raise LabelError(msg)
    mapping = model.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
    names = np.array([str(name) for name in mapping])
    split = hold_out(
        codes[rows],
        share=config.held_out,
        donors=names[batches[rows]] if len(np.unique(batches[rows])) > 1 else None,
        labels=labels,
        seed=config.seed,
    )
    return TrainingCells(tokens.take(rows), codes[rows], rows, split)
