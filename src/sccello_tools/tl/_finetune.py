"""Fine-tune a model to a user's own labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._anndata.counts import CountsSource, iter_token_chunks
from sccello_tools._anndata.labels import donor_column, label_column, labels_in_use
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools.errors import OutputExistsError
from sccello_tools.models import LoadedModel, load
from sccello_tools.tokens import RaggedTokens, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from anndata import AnnData

    from sccello_tools.tokens.counts import CountsPolicy
    from sccello_tools.training.finetune import FinetuneConfig
    from sccello_tools.training.finetune.config import Mode


@shared_docs
def finetune(
    adata: AnnData,
    label_key: str,
    *,
    out: str | Path,
    mode: Mode = "linear",
    batch_key: str | None = None,
    model: str | Path | LoadedModel = "sccello-small",
    config: FinetuneConfig | None = None,
    name: str | None = None,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Fine-tune a model to labels of your own: cell types, states, diseases. :func:`predict` then labels other cells.

    A part of the cells is held out to know when to stop, and how sure to be: whole donors with ``batch_key``, else a share of each
    label. Cells without a label or without any gene of the vocabulary are left out, and counted. All tokens are held in memory.
    ``adata`` stays as it is.

    Parameters
    ----------
    adata
        %(adata)s
    label_key
        Column of ``adata.obs`` with the labels: any names, two or more.
    out
        Folder for the new model; it must be empty or not there.
    mode
        ``"linear"``: a linear layer on frozen embeddings, in seconds; the published recipe. ``"lora"``: low-rank updates of the
        encoder's projections on top, merged into its weights in the end. ``"full"``: all weights of the encoder. The last two begin
        with the first, and keep it if nothing better is found.
    batch_key
        Column of ``adata.obs`` with donors, or studies. With it the score is that of new donors, without it it is that of more cells
        of the same donors, which is rosier than what new data will see.
    model
        %(model)s
    config
        Schedule, early stopping, rank of the updates; the published recipe if not given.
    name
        Name of the new model; that of the folder if not given.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    device
        %(device)s
    trainer_kwargs
        Passed to ``lightning.Trainer``: ``logger``, ``callbacks``, ``enable_progress_bar`` and so on. It runs on one device.

    Returns
    -------
    The new model, as :func:`sccello_tools.models.load` gives it: its folder holds the weights, the classifier with its labels
    (``classifier.safetensors``), the scores of each epoch (``finetuning_curve.csv``) and what it was made from.
    ``sccello_tools.training.finetune.classifier_of(model)`` gives the labels and the scores on the held-out cells.

    Raises
    ------
    LabelError
        If ``label_key`` is not a column, holds numbers, or has fewer than two labels or about as many as cells.
    GroupError
        If ``batch_key`` is not a column, is missing for labelled cells, or no donor can be held out.
    NotCountsError, GeneMatchError
        If the matrix does not hold raw counts of human genes.
    ConfigError
        If ``mode`` is unknown, or ``trainer_kwargs`` hold what ``config`` or ``device`` decides.
    FileExistsError
        If ``out`` holds something.
    TrainingError
        If the loss is no longer a number.

    Notes
    -----
    Linear probing: arXiv 2408.12373, cell type classification; rates and epochs, which it leaves open, are this package's. LoRA:
    arXiv 2106.09685. That "lora" and "full" begin with the probe: arXiv 2202.10054.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> cells = sccello.datasets.pancreas_tritschler()
    >>> adata, others = cells[:240].copy(), cells[240:300].copy()
    >>> model = sccello.tl.finetune(adata, "cell_type", out=tempfile.mkdtemp())
    >>> sccello.tl.predict(others, model)
    >>> bool((others.obs["sccello_prediction"].astype(str) == others.obs["cell_type"].astype(str)).mean() > 0.8)
    True
    """
    from sccello_tools.training.finetune import FinetuneConfig, fit_classifier
    from sccello_tools.training.finetune.config import check_mode
    from sccello_tools.training.finetune.split import hold_out
    from sccello_tools.training.finetune.write import write_model

    check_mode(mode)
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        msg = f"{out} is not empty. Name a new folder for the new model."
        raise OutputExistsError(msg)
    config = config or FinetuneConfig()
    column = label_column(adata, label_key)
    donors = None if batch_key is None else donor_column(adata, batch_key, column.codes >= 0)
    loaded = model if isinstance(model, LoadedModel) else load(model, device=device)

    source = CountsSource(layer, gene_ids, counts, min_matched)
    tokenizer = Tokenizer(source.gene_match(adata), loaded.config.max_positions)
    # cells without tokens are counted below, with those without a label
    chunks = iter_token_chunks(adata, tokenizer, source, warn_of_empty=False)
    tokens = RaggedTokens.concatenate(chunk.tokens for chunk in chunks)
    usable = np.flatnonzero((column.codes >= 0) & (tokens.lengths > 0))
    if len(usable) < adata.n_obs:
        logger.warning(
            "finetune: %d of %d cells have no label in %r or no gene and are left out",
            adata.n_obs - len(usable),
            adata.n_obs,
            label_key,
        )
    names, codes = labels_in_use(column, usable, label_key)
    split = hold_out(
        codes,
        share=config.held_out,
        donors=None if donors is None else donors[usable],
        labels=names,
        seed=config.seed,
    )
    held = f"donors {', '.join(split.donors)}" if split.donors else "a share of each label"
    logger.info(
        "finetune: %d cells train, %d held out (%s)", len(split.train), len(split.held_out), held
    )
    result = fit_classifier(
        loaded.network,
        tokens.take(usable),
        codes,
        split,
        mode=mode,
        config=config,
        trainer_kwargs=trainer_kwargs,
    )
    run = {
        "mode": mode,
        "label_key": label_key,
        "batch_key": batch_key or "",
        "base_model": loaded.name,
        "base_sha256": loaded.sha256,
        "n_cells": len(usable),
        **config.to_dict(),
    }
    write_model(result, out, base=loaded, labels=names, split=split, name=name or out.name, run=run)
    logger.info(
        "finetune: wrote the model to %s (held-out cells: accuracy %.3f, macro F1 %.3f)",
        out,
        result.scores["accuracy"],
        result.scores["macro_f1"],
    )
    return load(out, device=loaded.device)
