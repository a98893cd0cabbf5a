"""Pretrain a model on AnnData in memory, or on a corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sccello_tools._anndata.columns import require_obs
from sccello_tools._anndata.counts import CountsSource, iter_token_chunks
from sccello_tools._anndata.labels import informative_labels
from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools._settings import settings
from sccello_tools.corpus import Corpus
from sccello_tools.errors import LabelError, ScCelloError
from sccello_tools.ontology import CellOntology
from sccello_tools.tokens import GeneVocabulary, RaggedTokens, Tokenizer, row_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from sccello_tools.models import LoadedModel
    from sccello_tools.tokens import GeneMatch
    from sccello_tools.tokens.counts import CountsPolicy
    from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig
    from sccello_tools.training.pretrain.run_file import LoggerName
    from sccello_tools.training.pretrain.sources import BlockSource

    CellSource = AnnData | Corpus | LabelledTokens | str | Path


@shared_docs
def pretrain(
    adatas: CellSource | Sequence[CellSource] | Mapping[str, CellSource],
    *,
    out: str | Path,
    overwrite: bool = False,
    label_key: str = "cell_type_ontology_term_id",
    config: PretrainConfig | None = None,
    start_from: str | Path | LoadedModel | None = None,
    name: str | None = None,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    ontology: CellOntology | None = None,
    validation: CellSource | None = None,
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
    """Pretrain a scCello model with masked gene prediction, ontology alignment and cell type coherence.

    Corpora of more than a gigabyte of tokens are read block by block during training (see ``PretrainConfig.stream``); smaller ones, and
    AnnData, are held in memory as tokens, with ``thinning`` or ``gene_dropout`` also as counts. Cells without counts in any gene of the
    vocabulary and cells with a missing or uninformative label ("unknown", "doublet", the root of the ontology) are excluded and
    counted.

    Parameters
    ----------
    adatas
        One or more AnnData with raw counts, each of shape (n_obs, n_vars), or corpora: a :class:`~sccello_tools.corpus.Corpus` or its
        path; or cells made by :func:`sccello_tools.training.synthetic_cells`. A mapping names the sources; those of a corpus built by
        ``pp.build_corpus`` and of synthetic cells keep their names. ``label_key``, ``layer``, ``gene_ids``, ``counts`` and
        ``min_matched`` apply to AnnData only.
    out
        Output folder for the model: weights, configuration, labels, loss curve, metadata.
    overwrite
        Replace a model that ``out`` already contains. Not needed to resume or repeat the run that wrote it.
    label_key
        Column of ``obs`` with Cell Ontology ids. Obsolete ids are replaced by their successors.
    config
        Model size, losses, schedule. ``PretrainConfig.published()`` returns the paper's settings.
    start_from
        A model to continue training, of the size set in ``config``: its name, its folder, or a loaded model. Random weights by default.
    name
        Name of the model; by default that of the folder.
    %(counts_source)s
    ontology
        Cell Ontology for the alignment loss; by default the bundled release.
    validation
        Labelled cells that are not used for training. Their zero-shot scores (nearest neighbours among training cells, clustering) are recorded
        every ``config.validate_every`` steps and used for early stopping with ``config.patience``.
    checkpoint_dir
        Folder for checkpoints. If it contains a checkpoint of the same run, the run is resumed.
    checkpoint_every
        Steps between two checkpoints.
    devices, num_nodes, strategy
        Passed to ``lightning.Trainer``: ``devices=8, num_nodes=4, strategy="ddp"`` trains on 32 GPUs. Batch sizes are per device, and
        cells are aligned to the cells of all devices.
    n_workers
        Processes per device that read a corpus ahead; they do not change the batches.
    loggers
        Any of ``"csv"``, ``"tensorboard"``, ``"wandb"``; they write to ``out / "logs"``.
    weights_dtype
        Precision of the saved weights. ``"float16"`` halves the file; computations use the rounded weights in float32.
    trainer_kwargs
        Passed to ``lightning.Trainer``: ``accelerator``, ``logger``, ``callbacks`` and so on.

    Returns
    -------
    The trained model, as returned by :func:`sccello_tools.models.load`.

    Raises
    ------
    LabelError
        If ``label_key`` is not a column, an id is not in the ontology, or there are fewer than two cell types.
    CorpusError
        If a corpus is missing or damaged, does not fit in memory with ``stream=False``, or has fewer blocks than there are processes.
    NotCountsError, GeneMatchError
        If a matrix does not hold raw counts of human genes.
    MissingExtraError
        If the package of a logger is not installed.
    ConfigError
        If ``trainer_kwargs`` contain options that ``config`` determines, or the checkpoint is damaged or belongs to another run.
    OutputExistsError
        If ``out`` is a file, or contains another model and ``overwrite`` is false.
    OutputError
        If ``out`` cannot be written to.
    TrainingError
        If the loss is not finite or diverges. The message names step, sources and rows.
    KeyboardInterrupt
        On Ctrl-C. The last checkpoint is kept.

    Notes
    -----
    arXiv 2408.12373, section 3.3, equations 1 to 5.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> from sccello_tools.training import PretrainConfig
    >>> adata = sccello.datasets.pancreas_tritschler()[:60].copy()
    >>> config = PretrainConfig(hidden_size=16, n_layers=1, n_heads=2, max_length=64, max_steps=2, batch_cells=4)
    >>> model = sccello.tl.pretrain(adata, out=tempfile.mkdtemp(), config=config)
    >>> sccello.tl.embed(adata, model=model)
    """
    from sccello_tools import models
    from sccello_tools.training.output import check_model_folder, remove_model
    from sccello_tools.training.pretrain import LabelledTokens, PretrainConfig, fit
    from sccello_tools.training.pretrain.parallel import wait_for_main
    from sccello_tools.training.pretrain.sources import (
        concatenate,
        corpus_in_memory,
        corpus_sources,
    )
    from sccello_tools.training.trainer import make_loggers

    out, config = Path(out), config or PretrainConfig()
    earlier = start_from
    if isinstance(earlier, (str, Path)):
        earlier = models.load(earlier, device="cpu")
    run = {**config.to_dict(), "start_from_sha256": "" if earlier is None else earlier.sha256}
    resumed = checkpoint_dir is not None and (Path(checkpoint_dir) / "last.ckpt").exists()
    check_model_folder(out, overwrite=overwrite or (resumed and _is_result_of(out, run)))
    ontology = ontology or CellOntology.load()
    logger_options = make_loggers(loggers, out / "logs", run_name=name or out.name)
    source = CountsSource(layer, gene_ids, counts, min_matched)

    def tokens_of(adata: AnnData, of: str) -> LabelledTokens:
        try:
            return _labelled_tokens(
                adata, of, source, label_key=label_key, ontology=ontology, config=config
            )
        except ScCelloError as error:  # with several sources, the message must say which one
            msg = f"{of}: {error}"
            raise type(error)(msg) from error

    sources: list[BlockSource] = []
    for of, cells in _named(adatas).items():
        if isinstance(cells, (str, Path)):
            cells = Corpus.open(cells, max_length=config.max_length)  # noqa: PLW2901
        if isinstance(cells, LabelledTokens):
            sources.append(cells)
        elif isinstance(cells, Corpus):
            sources += corpus_sources(cells, of, ontology, stream=config.stream)
        else:
            sources.append(tokens_of(cells, of))
    if isinstance(validation, (str, Path)):
        validation = Corpus.open(validation, max_length=config.max_length)
    if isinstance(validation, Corpus):
        validation = concatenate(corpus_in_memory(validation, "validation", ontology), "validation")
    elif isinstance(validation, AnnData):
        validation = tokens_of(validation, "validation")
    result = fit(
        sources,
        ontology,
        config,
        earlier=None if earlier is None else (earlier.network, earlier.labels),
        validation=validation,
        checkpoint_dir=Path(checkpoint_dir) if checkpoint_dir is not None else None,
        checkpoint_every=checkpoint_every,
        n_workers=n_workers,
        trainer_kwargs={
            "devices": devices,
            "num_nodes": num_nodes,
            "strategy": strategy,
            "logger": logger_options or False,
            **(trainer_kwargs or {}),
        },
    )
    if result.is_main:
        remove_model(out)
        models.save(
            result.network,
            out,
            labels=pd.DataFrame(
                {
                    "cell_type_ontology_term_id": result.labels,
                    "cell_type": [ontology.name(label) for label in result.labels],
                }
            ),
            metadata={
                "name": name or out.name,
                "ontology_release": ontology.release,
                "vocabulary_sha256": GeneVocabulary.load().sha256,
                "training_data": {
                    of: sum(by_type.values())
                    for part in sources
                    for of, by_type in part.n_cells_of.items()
                },
                "pretrain_config": run,
            },
            dtype=weights_dtype,
        )
        result.curve.to_csv(out / "training_curve.csv", index=False, float_format="%.5g")
        logger.info("pretrain: wrote the model to %s", out)
    wait_for_main()
    return models.load(out)


def _is_result_of(folder: Path, run: dict[str, Any]) -> bool:
    """Return whether a folder contains the model of a run with these settings."""
    try:
        metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(metadata, dict) and metadata.get("pretrain_config") == run


def _named(
    adatas: CellSource | Sequence[CellSource] | Mapping[str, CellSource],
) -> dict[str, CellSource]:
    if isinstance(adatas, Mapping):
        return dict(adatas)
    from sccello_tools.training.pretrain import LabelledTokens

    if isinstance(adatas, (AnnData, Corpus, LabelledTokens, str, Path)):
        return {"cells": adatas}
    return {f"cells-{number}": adata for number, adata in enumerate(adatas)}


def _labelled_tokens(
    adata: AnnData,
    of: str,
    source: CountsSource,
    *,
    label_key: str,
    ontology: CellOntology,
    config: PretrainConfig,
) -> LabelledTokens:
    """Tokenize the cells of one AnnData that can be trained on."""
    from sccello_tools.training.pretrain import LabelledTokens
    from sccello_tools.training.pretrain.augment import MeasuredCounts
    from sccello_tools.training.pretrain.sources import log_excluded

    column = require_obs(
        adata,
        label_key,
        argument="label_key",
        error=LabelError,
        remedy="It must contain Cell Ontology ids; pp.map_cell_types maps free text to them.",
    )
    labels = informative_labels(column)
    if excluded := labels.report(label_key):
        logger.warning("%s: %s", of, excluded)
    current = {label: ontology.current(label) for label in set(labels.texts) if label}
    match = source.gene_match(adata)
    tokenizer = Tokenizer(match, config.max_length)
    # cells without tokens are excluded and counted here
    chunks = iter_token_chunks(adata, tokenizer, source, warn_of_empty=False)
    tokens = RaggedTokens.concatenate(chunk.tokens for chunk in chunks)
    labelled = labels.texts != ""
    usable = np.flatnonzero(labelled & (tokens.lengths > 0))
    log_excluded(of, int(labelled.sum()) - len(usable), adata.n_obs, "no counts in known genes")
    return LabelledTokens(
        tokens.take(usable),
        np.array([current[label] for label in labels.texts[usable]], dtype=str),
        of,
        usable,
        MeasuredCounts(_vocabulary_counts(source.matrix(adata), match)[usable])
        if config.augments
        else None,
    )


def _vocabulary_counts(matrix: Any, match: GeneMatch) -> sparse.csr_array:
    """Return counts with one column per gene of the vocabulary; columns of the same gene are summed."""
    vocabulary = GeneVocabulary.load()
    columns = np.flatnonzero(match.tokens >= 0)
    genes = np.searchsorted(vocabulary.tokens, match.tokens[columns])
    select = sparse.csr_array(
        (np.ones(len(columns), dtype=np.float32), (columns, genes)),
        shape=(match.n_columns, len(vocabulary)),
    )
    chunks = row_chunks(matrix, n_rows=settings.chunk_cells)
    counts = sparse.vstack([chunk.rows.astype(np.float32) @ select for chunk in chunks])
    return sparse.csr_array(counts)
