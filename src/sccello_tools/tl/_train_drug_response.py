"""Train a model of drug response."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools.errors import ArgumentError, ConfigError, OutputExistsError, ResponseError
from sccello_tools.metrics import response_score
from sccello_tools.models import LoadedModel, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools.drug import DrugResponseConfig, DrugResponseData, DrugResponseModel
    from sccello_tools.drug.config import CellFeature, DrugEncoder
    from sccello_tools.drug.ensemble import Ensemble
    from sccello_tools.drug.split import SplitKind


@shared_docs
def train_drug_response(
    data: DrugResponseData,
    *,
    model: str | Path | LoadedModel = "sccello-small",
    split: SplitKind | None = "cell_lines",
    held_out: float = 0.2,
    drug_encoder: DrugEncoder = "gcn",
    cell_features: tuple[CellFeature, ...] = ("sccello", "expression"),
    n_members: int = 5,
    seed: int = 0,
    config: DrugResponseConfig | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> DrugResponseModel:
    """Train an ensemble of networks that predict the response of cells to drugs.

    A share of the pairs is held out and scored. Pass ``split=None`` to train on everything, once you know the score. A drug of the training
    data has its measured mean response and a vector of its own, beside what its structure says; a new drug has its structure alone.

    Parameters
    ----------
    data
        Expression, responses and SMILES: :func:`sccello_tools.datasets.gdsc`, or :meth:`sccello_tools.drug.DrugResponseData.join`
        for data of your own.
    model
        %(model)s
        It embeds the lines; not loaded if ``cell_features`` do without it.
    split
        What is held out: any ``"pairs"`` (as published; lines and drugs are known), all pairs of some ``"cell_lines"`` (the score to
        expect for your cells), of some ``"drugs"``, or of ``"both"``.
    held_out
        Share of pairs, lines, drugs, or each of both that is held out.
    drug_encoder
        ``"gcn"``: graph convolution over the atoms; ``"fingerprint"``: two layers on Morgan fingerprints; both leave out drugs
        without SMILES, and say so. ``"none"``: a learned vector a drug, which also takes drugs without SMILES, but no new ones.
    cell_features
        What is read of a line: ``"sccello"``, the embedding of its genes in the order of their expression; ``"expression"``, its
        principal components.
    n_members
        Networks of the ensemble. Each sees four fifths of the lines; their standard deviation is the uncertainty.
    seed
        Of the split, the networks and the order of lines.
    config
        The other settings; the five arguments above win.
    out
        Folder to save the model to.
    name
        Name of the model; that of the folder if not given.
    metadata
        More for the saved model's ``metadata.json``: description, licence, citation, training_data.
    trainer_kwargs
        Passed to ``lightning.Trainer``.

    Returns
    -------
    The model, with ``scores`` and the table ``held_out``.

    Raises
    ------
    ArgumentError
        If ``data`` is no :class:`~sccello_tools.drug.DrugResponseData`.
    ResponseError
        If fewer than two lines, or no drug with a SMILES, are there, or nothing can be held out.
    ConfigError
        If a setting is out of its range, or ``drug_encoder="none"`` is to answer for held-out drugs.
    DrugError
        If rdkit refuses a SMILES.
    MissingExtraError
        If rdkit is not installed: it comes with the extra ``drug``.
    OutputExistsError
        If ``out`` holds something.
    TrainingError
        If the loss is no longer a number.

    Notes
    -----
    After DeepCDR (Liu et al., Bioinformatics 36:i911, 2020), as arXiv 2408.12373 uses it, section 4.5. Unlike it: expression is
    read beside the embedding, networks start from a ridge regression, and all drugs are encoded once a step.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> data = sccello.datasets.gdsc()
    >>> model = sccello.tl.train_drug_response(data, drug_encoder="fingerprint", n_members=2)
    >>> len(model.drugs), model.held_out.columns.tolist()
    (20, ['cell_line', 'drug', 'measured', 'predicted', 'std'])
    """
    from sccello_tools.drug import (
        DrugResponseConfig,
        DrugResponseData,
        DrugResponseModel,
        split_responses,
    )
    from sccello_tools.drug.files import save_model
    from sccello_tools.drug.fit import fit_ensemble

    if not isinstance(data, DrugResponseData):  # callers without a type checker
        msg = f"data is a {type(data).__name__}; expected is a DrugResponseData. Make it with datasets.gdsc() or drug.DrugResponseData.join(expression, responses, smiles)."  # type: ignore[unreachable]
        raise ArgumentError(msg)
    settings = replace(
        config or DrugResponseConfig(),
        drug_encoder=drug_encoder,
        cell_features=cell_features,
        n_members=n_members,
        seed=seed,
    )
    folder = None if out is None else Path(out)
    if folder is not None and folder.exists() and any(folder.iterdir()):
        msg = f"{folder} is not empty. Name a new folder for the drug response model."
        raise OutputExistsError(msg)
    if drug_encoder == "none" and split in {"drugs", "both"}:
        msg = f"drug_encoder='none' reads no molecules and so cannot answer for held-out drugs (split={split!r}). Use 'gcn' or 'fingerprint', or split='cell_lines'."
        raise ConfigError(msg)
    if drug_encoder != "none":
        data = _with_smiles(data, drug_encoder)
    if len(data.lines) < 2:
        msg = f"There are {len(data.lines)} cell lines with responses; at least 2 are needed to train on."
        raise ResponseError(msg)
    measured = data.ln_ic50.notna().to_numpy()
    train, test = measured, np.zeros_like(measured)
    if split is not None:
        train, test = split_responses(measured, split, held_out=held_out, seed=seed)
    encoder = None
    if "sccello" in cell_features:
        encoder = model if isinstance(model, LoadedModel) else load(model, device="cpu")
    ensemble = fit_ensemble(
        data, train, config=settings, encoder=encoder, trainer_kwargs=trainer_kwargs
    )
    trained = DrugResponseModel(
        name=name or (folder.name if folder is not None else "drug-response"),
        ensemble=ensemble.with_vectors(),
        encoder_name="" if encoder is None else encoder.name,
        encoder_sha256="" if encoder is None else encoder.sha256,
        split=split or "",
    )
    if encoder is not None:
        # it may be a folder or a changed network that its name does not lead back to
        trained.__dict__["encoder"] = encoder
    if split is not None:
        table, scores = _score(trained, data, test)
        trained = _with(trained, scores=scores, held_out=table)
        logger.info(
            "train_drug_response: held out (%s): Pearson %.3f over %d pairs, %.3f by drug; RMSE %.2f",
            split,
            scores["pearson"],
            scores["n_pairs"],
            scores["pearson_by_drug"],
            scores["rmse"],
        )
    if folder is None:
        return trained
    saved = save_model(trained, folder, metadata=metadata)
    logger.info("train_drug_response: wrote the model to %s", folder)
    return _with(trained, sha256=saved.sha256, folder=saved.folder)


def _with_smiles(data: DrugResponseData, drug_encoder: str) -> DrugResponseData:
    """Leave out, and say so, drugs that no network that reads molecules can learn from."""
    without = data.smiles.index[data.smiles == ""].tolist()
    if not without:
        return data
    logger.warning(
        "train_drug_response: %d of %d drugs have no SMILES and are left out, since drug_encoder is %r: %s",
        len(without),
        len(data.drugs),
        drug_encoder,
        ", ".join(without[:5]) + (", ..." if len(without) > 5 else ""),
    )
    kept = [drug for drug in data.drugs if drug not in set(without)]
    if not kept:
        msg = f"None of the {len(data.drugs)} drugs has a SMILES, which drug_encoder={drug_encoder!r} needs. Add them, or pass drug_encoder='none'."
        raise ResponseError(msg)
    return data.select(drugs=kept)


def _score(
    model: DrugResponseModel, data: DrugResponseData, test: NDArray[np.bool_]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Predict the held-out pairs, and score them."""
    rows = np.flatnonzero(test.any(axis=1))
    lines = data.expression.iloc[rows]
    mean = pd.DataFrame(np.nan, index=lines.index, columns=data.ln_ic50.columns)
    spread = mean.copy()
    ensemble: Ensemble = model.ensemble
    known = [drug for drug in data.drugs if drug in set(ensemble.drugs)]
    new = {d: str(data.smiles[d]) for d in data.drugs if d not in set(known)}
    for drugs in (known, new):
        if drugs:
            found = model.predict(lines, drugs)
            names = found.ln_ic50.columns.tolist()
            mean[names], spread[names] = found.ln_ic50, found.std
    truth = data.ln_ic50.iloc[rows].where(test[rows])
    at = np.argwhere(test[rows])
    table = pd.DataFrame(
        {
            "cell_line": truth.index.to_numpy()[at[:, 0]],
            "drug": truth.columns.to_numpy()[at[:, 1]],
            "measured": truth.to_numpy()[test[rows]],
            "predicted": mean.to_numpy(dtype=np.float32)[test[rows]],
            "std": spread.to_numpy(dtype=np.float32)[test[rows]],
        }
    )
    scores = response_score(truth.to_numpy(dtype=np.float64), mean.to_numpy())._asdict()
    return table, {name: float(value) for name, value in scores.items()}


def _with(model: DrugResponseModel, **changes: Any) -> DrugResponseModel:
    """Change fields, and keep the encoder that was given."""
    changed = replace(model, **changes)
    if "encoder" in model.__dict__:
        changed.__dict__["encoder"] = model.__dict__["encoder"]
    return changed
