"""Fine-tune a model to a user's labels."""

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
    overwrite: bool = False,
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
    """Fine-tune a model to cell types, states, diseases or any other labels. :func:`predict` then labels other cells.

    Some cells are held out for early stopping and for calibrating the confidence: whole donors with ``batch_key``, otherwise a fraction of
    each label. Cells without counts in any gene of the vocabulary and cells with a missing or uninformative label ("unknown", "doublet")
    are excluded and counted. All tokens are held in memory. ``adata`` is not modified.

    Parameters
    ----------
    adata
        %(adata)s
    label_key
        Column of ``adata.obs`` with two or more labels.
    out
        Output folder for the new model; it must be empty or not exist.
    overwrite
        Replace a model that ``out`` already contains.
    mode
        ``"linear"``: a linear layer on frozen embeddings, trained in seconds; the published recipe. ``"lora"``: additionally low-rank
        updates of the encoder's projections, which are merged into its weights. ``"full"``: additionally all weights of the encoder.
        The last two start with the first and keep its weights if no epoch is better.
    batch_key
        Column of ``adata.obs`` with donors, samples or studies, which are held out whole: validation scores then apply to new donors.
        Without it they apply to other cells of the same donors and are too optimistic for new data.
    model
        %(model)s
    config
        Schedule, early stopping, fraction of validation cells, rank of the updates; by default the published recipe.
    name
        Name of the new model; by default that of the folder.
    %(counts_source)s
    device
        %(device)s
    trainer_kwargs
        Passed to ``lightning.Trainer``: ``logger``, ``callbacks``, ``enable_progress_bar`` and so on. Training uses one device.

    Returns
    -------
    The new model, as returned by :func:`sccello_tools.models.load`. Its folder contains the weights, the classifier
    (``classifier.safetensors``), the scores by epoch (``finetuning_curve.csv``) and metadata.
    ``sccello_tools.training.finetune.classifier_of(model)`` returns the labels and the validation scores.

    Raises
    ------
    LabelError
        If ``label_key`` is not a column, contains numbers, or has fewer than two labels or about as many as cells.
    GroupError
        If ``batch_key`` is not a column, is missing for labelled cells, or no batch can be held out.
    NotCountsError, GeneMatchError
        If the matrix does not hold raw counts of human genes.
    ConfigError
        If ``mode`` is unknown, or ``trainer_kwargs`` contain options that ``config`` or ``device`` determines.
    OutputExistsError
        If ``out`` is a file or not empty, unless it contains a model and ``overwrite`` is true.
    OutputError
        If ``out`` cannot be written to.
    TrainingError
        If the loss is not finite.
    KeyboardInterrupt
        On Ctrl-C.

    Notes
    -----
    Linear probing: arXiv 2408.12373, cell type classification; learning rates and epochs are not published. LoRA: arXiv 2106.09685.
    Linear probing before fine-tuning: arXiv 2202.10054.

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
    from sccello_tools.training.finetune.classifier import write_model
    from sccello_tools.training.finetune.config import check_mode
    from sccello_tools.training.finetune.data import hold_out
    from sccello_tools.training.output import check_model_folder, remove_model

    check_mode(mode)
    out = Path(out)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        msg = f"{out} is not empty. Pass another folder as out=, or overwrite=True to replace a model."
        raise OutputExistsError(msg)
    check_model_folder(out, overwrite=overwrite)
    config = config or FinetuneConfig()
    column = label_column(adata, label_key)
    donors = None if batch_key is None else donor_column(adata, batch_key, column.codes >= 0)
    loaded = model if isinstance(model, LoadedModel) else load(model, device=device)

    source = CountsSource(layer, gene_ids, counts, min_matched)
    tokenizer = Tokenizer(source.gene_match(adata), loaded.config.max_positions)
    # cells without tokens are excluded and counted here
    chunks = iter_token_chunks(adata, tokenizer, source, warn_of_empty=False)
    tokens = RaggedTokens.concatenate(chunk.tokens for chunk in chunks)
    labelled = column.codes >= 0
    usable = np.flatnonzero(labelled & (tokens.lengths > 0))
    if column.excluded:
        logger.warning("finetune: %s", column.excluded)
    if n_empty := int(labelled.sum()) - len(usable):
        logger.warning(
            "finetune: excluded %d labelled cells without counts in known genes", n_empty
        )
    names, codes = labels_in_use(column, usable, label_key)
    split = hold_out(
        codes,
        validation=config.validation,
        groups=None if donors is None else donors[usable],
        labels=names,
        seed=config.seed,
    )
    held = f"{batch_key} {', '.join(split.groups)}" if split.groups else "a fraction of each label"
    logger.info(
        "finetune: %d training cells, %d validation cells (%s)",
        len(split.train),
        len(split.validation),
        held,
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
    remove_model(out)
    write_model(result, out, base=loaded, labels=names, split=split, name=name or out.name, run=run)
    logger.info(
        "finetune: wrote the model to %s (validation accuracy %.3f, macro F1 %.3f)",
        out,
        result.scores["accuracy"],
        result.scores["macro_f1"],
    )
    return load(out, device=loaded.device)
