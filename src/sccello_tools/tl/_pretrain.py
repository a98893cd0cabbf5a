"""Pretrain a model on AnnData in memory, or on a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from sccello_tools._anndata.columns import obs_column
from sccello_tools._anndata.counts import CountsSource, iter_token_chunks
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools.corpus import Corpus
from sccello_tools.errors import LabelError
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary, RaggedTokens, Tokenizer

from ._corpus_sources import corpus_sources, joined, labelled_corpus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens.counts import CountsPolicy
    from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig, TrainingResult
    from sccello_tools.training.pretrain.loggers import LoggerName
    from sccello_tools.training.pretrain.sources import BlockSource

    CellSource = AnnData | Corpus | str | Path


@shared_docs
def pretrain(
    adatas: CellSource | Sequence[CellSource] | Mapping[str, CellSource],
    *,
    out: str | Path,
    label_key: str = "cell_type_ontology_term_id",
    config: PretrainConfig | None = None,
    start_from: str | Path | LoadedModel | None = None,
    name: str | None = None,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    ontology: CellOntology | None = None,
    validation: CellSource | LabelledTokens | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 200,
    devices: int | list[int] | str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
    n_workers: int = 0,
    loggers: Sequence[LoggerName] = (),
    weights_dtype: Literal["float32", "float16"] = "float32",
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Pretrain a scCello model: masked genes, ontology alignment, cell-type coherence.

    Corpora of more than a gigabyte of tokens are read block by block while training (see ``PretrainConfig.stream``); smaller ones, and
    AnnData, are held in memory as tokens. Cells without a label or without any gene of the vocabulary are left out, and counted.

    Parameters
    ----------
    adatas
        One or more AnnData with raw counts, each of shape (n_obs, n_vars), or corpora: a :class:`~sccello_tools.tokens.Corpus` or the
        path of one. A mapping names the sources; those of a corpus that ``pp.build_corpus`` made keep their own names. What is said
        below of labels, layers, genes and counts is decided when a corpus is built.
    out
        Folder to write the model to: weights, configuration, labels, loss curve, metadata.
    label_key
        Column of ``obs`` that holds Cell Ontology ids. Obsolete ids are replaced by their successors.
    config
        Size of the model, losses, schedule. ``PretrainConfig.published()`` is the paper's.
    start_from
        A model to train further, of the size that ``config`` says: its name, its folder, or itself. From scratch if not given.
    name
        Name of the model; that of the folder if not given.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    ontology
        Cell Ontology to align to; the shipped release if not given.
    validation
        Labelled cells that do not train. Every ``config.validate_every`` steps their zero-shot scores (vote of neighbours among
        training cells, clusters) go to the curve and the loggers; with ``config.patience`` they end the run.
    checkpoint_dir
        Folder for checkpoints. A run that finds its own last checkpoint there goes on from it.
    checkpoint_every
        Steps between two checkpoints.
    devices, num_nodes, strategy
        Passed to ``lightning.Trainer``: ``devices=8, num_nodes=4, strategy="ddp"`` trains on 32 GPUs. The batch sizes of ``config`` are
        those of one device, and cells are aligned to the cells of all devices.
    n_workers
        Processes on each device that read a corpus ahead; they change nothing in the batches.
    loggers
        Any of ``"csv"``, ``"tensorboard"``, ``"wandb"``; they write below ``out / "logs"``.
    weights_dtype
        Precision of the weights on disk. ``"float16"`` halves the file; the model computes as before on weights so rounded.
    trainer_kwargs
        Passed to ``lightning.Trainer``: ``accelerator``, ``devices``, ``strategy``, ``logger``, ``callbacks`` and so on.

    Returns
    -------
    The trained model, as :func:`sccello_tools.models.load` gives it.

    Raises
    ------
    LabelError
        If ``label_key`` is not a column, an id is unknown to the ontology, or there are fewer than two cell types.
    CorpusError
        If a corpus is missing or damaged, does not fit in memory with ``stream=False``, or has fewer blocks than there are processes.
    NotCountsError, GeneMatchError
        If a matrix does not hold raw counts of human genes.
    MissingExtraError
        If the package of a logger is not installed.
    ConfigError
        If ``trainer_kwargs`` hold what ``config`` decides, or ``checkpoint_dir`` holds the checkpoint of another run.
    FileExistsError
        If ``out`` is a file.
    TrainingError
        If the loss is no longer a number, or diverges. The message names step, sources and rows.

    Notes
    -----
    arXiv 2408.12373, section 3.3, equations 1 to 5.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> from sccello_tools.training.pretrain import PretrainConfig
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> config = PretrainConfig(hidden_size=16, n_layers=1, n_heads=2, max_length=64, max_steps=2, batch_cells=4)
    >>> model = sccello.tl.pretrain(adata, out=tempfile.mkdtemp(), config=config)
    >>> sccello.tl.embed(adata, model=model)
    """
    from sccello_tools import models
    from sccello_tools.training.pretrain import PretrainConfig, fit
    from sccello_tools.training.pretrain.loggers import make_loggers
    from sccello_tools.training.pretrain.parallel import wait_for_main

    out = Path(out)
    out.mkdir(
        parents=True, exist_ok=True
    )  # an error now is better than one after hours of training
    config = config or PretrainConfig()
    ontology = ontology or CellOntology.load()
    logging = make_loggers(loggers, out / "logs", run_name=name or out.name)

    def tokens_of(cells: AnnData, source: str) -> LabelledTokens:
        return _labelled_tokens(
            cells,
            source,
            label_key=label_key,
            ontology=ontology,
            layer=layer,
            gene_ids=gene_ids,
            counts=counts,
            min_matched=min_matched,
            max_length=config.max_length,
        )

    sources: list[BlockSource] = []
    for source, cells in _named(adatas).items():
        if isinstance(cells, (str, Path)):
            cells = Corpus.open(cells, max_length=config.max_length)  # noqa: PLW2901
        if isinstance(cells, Corpus):
            sources += corpus_sources(cells, source, ontology, stream=config.stream)
        else:
            sources.append(tokens_of(cells, source))
    held_out: LabelledTokens | None = None
    if isinstance(validation, (str, Path)):
        validation = Corpus.open(validation, max_length=config.max_length)
    if isinstance(validation, Corpus):
        held_out = joined(labelled_corpus(validation, "validation", ontology))
    elif isinstance(validation, AnnData):
        held_out = tokens_of(validation, "validation")
    elif validation is not None:
        held_out = validation
    earlier = None
    if start_from is not None:
        earlier = (
            start_from
            if isinstance(start_from, models.LoadedModel)
            else models.load(start_from, device="cpu")
        )
    result = fit(
        sources,
        ontology,
        config,
        earlier=None if earlier is None else (earlier.network, earlier.labels),
        validation=held_out,
        checkpoint_dir=Path(checkpoint_dir) if checkpoint_dir is not None else None,
        checkpoint_every=checkpoint_every,
        n_workers=n_workers,
        trainer_kwargs={
            "devices": devices,
            "num_nodes": num_nodes,
            "strategy": strategy,
            "logger": logging or False,
            **(trainer_kwargs or {}),
        },
    )
    if result.is_main:
        _save(result, out, ontology, weights_dtype, {
            "name": name or out.name,
            "ontology_release": ontology.release,
            "vocabulary_sha256": GeneVocabulary.load().sha256,
            "training_data": {
                source: sum(by_type.values())
                for part in sources
                for source, by_type in part.counts.items()
            },
            "pretrain_config": {
                **config.to_dict(),
                "start_from_sha256": "" if earlier is None else earlier.sha256,
            },
        })  # fmt: skip
    wait_for_main()
    return models.load(out)


def _save(
    result: TrainingResult,
    out: Path,
    ontology: CellOntology,
    dtype: Literal["float32", "float16"],
    metadata: dict[str, Any],
) -> None:
    from sccello_tools import models

    models.save(
        result.network,
        out,
        labels=pd.DataFrame(
            {
                "cell_type_ontology_term_id": result.labels,
                "cell_type": [ontology.name(label) for label in result.labels],
            }
        ),
        metadata=metadata,
        dtype=dtype,
    )
    result.curve.to_csv(out / "training_curve.csv", index=False, float_format="%.5g")
    logger.info("pretrain: wrote the model to %s", out)


def _named(
    adatas: CellSource | Sequence[CellSource] | Mapping[str, CellSource],
) -> dict[str, CellSource]:
    if isinstance(adatas, Mapping):
        return dict(adatas)
    if isinstance(adatas, (AnnData, Corpus, str, Path)):
        return {"cells": adatas}
    return {f"cells-{number}": adata for number, adata in enumerate(adatas)}


def _labelled_tokens(
    adata: AnnData,
    source: str,
    *,
    label_key: str,
    ontology: CellOntology,
    layer: str | None,
    gene_ids: str | None,
    counts: CountsPolicy,
    min_matched: int,
    max_length: int,
) -> LabelledTokens:
    """Tokenize one AnnData and keep the cells that can train."""
    from sccello_tools.training.pretrain import LabelledTokens

    if label_key not in adata.obs:
        msg = (
            f"{source}: adata.obs has no column {label_key!r} (columns: {list(adata.obs.columns)}). "
            "Name the column that holds Cell Ontology ids in label_key=; see pp.map_cell_types for free-text labels."
        )
        raise LabelError(msg)
    given = obs_column(adata, label_key).astype(object)
    labels = np.array(["" if pd.isna(label) else str(label) for label in given])
    current = {label: ontology.current(label) for label in np.unique(labels) if label}
    counts_source = CountsSource(layer, gene_ids, counts, min_matched)
    tokenizer = Tokenizer(counts_source.gene_match(adata), max_length)
    # cells without tokens are counted below, with those without a label
    chunks = iter_token_chunks(adata, tokenizer, counts_source, warn_of_empty=False)
    tokens = RaggedTokens.concatenate(chunk.tokens for chunk in chunks)
    usable = np.flatnonzero((labels != "") & (tokens.lengths > 0))
    if len(usable) < len(labels):
        logger.warning(
            "%s: %d of %d cells have no label or no gene and are left out",
            source,
            len(labels) - len(usable),
            len(labels),
        )
    return LabelledTokens(
        tokens.take(usable),
        np.array([current[label] for label in labels[usable]], dtype=str),
        source,
        usable,
    )
