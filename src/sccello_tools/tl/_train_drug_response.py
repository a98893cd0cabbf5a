"""Train a drug response model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sccello_tools._docs import shared_docs
from sccello_tools._logging import logger
from sccello_tools._messages import listed
from sccello_tools._random import seed_of
from sccello_tools.errors import ArgumentError, ConfigError, ResponseError
from sccello_tools.metrics import response_score
from sccello_tools.models import LoadedModel, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike
    from sccello_tools.drug import DrugResponseConfig, DrugResponseData, DrugResponseModel
    from sccello_tools.drug.config import CellFeature
    from sccello_tools.drug.data import SplitKind
    from sccello_tools.drug.encoders import DrugEncoderName


@shared_docs
def train_drug_response(
    data: DrugResponseData,
    *,
    model: str | Path | LoadedModel = "sccello-small",
    split: SplitKind | None = "cell_lines",
    validation: float = 0.2,
    drug_encoder: DrugEncoderName = "gcn",
    cell_features: tuple[CellFeature, ...] = ("sccello", "expression"),
    n_members: int = 5,
    rng: RNGLike = 0,
    config: DrugResponseConfig | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> DrugResponseModel:
    """Train an ensemble of networks that predict the response of cell lines to drugs.

    A fraction of the pairs is held out for validation and scored. Pass ``split=None`` to train on all pairs. Drugs of the training
    data have their measured mean response and a learned vector in addition to their structure; new drugs have their structure only.

    Parameters
    ----------
    data
        Expression, responses and SMILES: :func:`sccello_tools.datasets.gdsc`, or :meth:`sccello_tools.drug.DrugResponseData.join`.
    model
        %(model)s
        It embeds the cell lines; not loaded if ``cell_features`` does not contain "sccello".
    split
        Type of the validation pairs: random ``"pairs"`` (as published), all pairs of some ``"cell_lines"`` (the score to expect for
        new cells), of some ``"drugs"``, or of ``"both"``.
    validation
        Fraction of pairs, lines, drugs, or of both, that is held out.
    drug_encoder
        ``"gcn"``: graph convolution over the atoms. ``"fingerprint"``: two layers on Morgan fingerprints. Both ignore drugs without
        SMILES, with a warning. ``"none"``: a learned vector per drug, which does not require SMILES and cannot predict for new drugs.
    cell_features
        ``"sccello"``: embedding of the genes ranked by expression. ``"expression"``: principal components.
    n_members
        Number of networks in the ensemble. Each is trained on 80 % of the lines; their standard deviation is the uncertainty.
    rng
        Seed or generator of the split, the networks and the order of lines.
    config
        Further settings; ``drug_encoder``, ``cell_features``, ``n_members`` and ``rng`` take precedence.
    out
        Folder to save the model to.
    name
        Name of the model; by default that of the folder.
    metadata
        Further entries of the saved ``metadata.json``: description, licence, citation, training_data.
    trainer_kwargs
        Passed to :class:`lightning.Trainer`.
    device
        %(device)s
        It concerns the encoder; the small networks are trained on the CPU.

    Returns
    -------
    The model with ``scores`` and the table ``validation``.

    Raises
    ------
    ArgumentError
        If ``data`` is not a :class:`~sccello_tools.drug.DrugResponseData`.
    ResponseError
        If there are fewer than two lines, no drug with SMILES, or too few pairs to split.
    ConfigError
        If a setting is out of range, or ``drug_encoder="none"`` with validation drugs.
    DrugError
        If rdkit cannot parse a SMILES.
    MissingExtraError
        If rdkit is not installed (extra ``drug``).
    OutputExistsError
        If ``out`` is not empty.
    TrainingError
        If the loss is not finite.

    Notes
    -----
    DeepCDR (Liu et al., Bioinformatics 36:i911, 2020) with scCello embeddings, as in arXiv 2408.12373. Differences: expression is used
    in addition to the embedding, networks are initialised with a ridge regression, and all drugs are encoded once per step. The loss
    is the mean squared error of responses plus that of offsets predicted from structures.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> data = sccello.datasets.gdsc()
    >>> model = sccello.tl.train_drug_response(data, drug_encoder="fingerprint", n_members=2)
    >>> len(model.drugs), model.validation.columns.tolist()
    (20, ['cell_line', 'drug', 'measured', 'predicted', 'std'])
    """
    from sccello_tools.drug import (
        DrugResponseConfig,
        DrugResponseData,
        DrugResponseModel,
        split_responses,
    )
    from sccello_tools.drug.files import check_output_folder, save_model
    from sccello_tools.drug.training import fit_ensemble

    if not isinstance(data, DrugResponseData):  # callers without a type checker
        msg = f"data must be a DrugResponseData, got {type(data).__name__}. Create it with datasets.gdsc() or drug.DrugResponseData.join(expression, responses, smiles)."  # type: ignore[unreachable]
        raise ArgumentError(msg)
    seed = seed_of(rng)
    base = (config or DrugResponseConfig()).to_dict()
    settings = DrugResponseConfig.from_dict(
        base
        | {
            "drug_encoder": drug_encoder,
            "cell_features": cell_features,
            "n_members": n_members,
            "seed": seed,
        }
    )
    folder = None if out is None else Path(out)
    if folder is not None:
        check_output_folder(folder)
    if drug_encoder == "none" and split in {"drugs", "both"}:
        msg = f"drug_encoder='none' cannot predict for validation drugs (split={split!r}). Use 'gcn' or 'fingerprint', or split='cell_lines'."
        raise ConfigError(msg)
    if drug_encoder != "none":
        data = _with_smiles(data, drug_encoder)
    if len(data.lines) < 2:
        msg = f"At least 2 cell lines with responses are required, got {len(data.lines)}."
        raise ResponseError(msg)
    measured = data.ln_ic50.notna().to_numpy()
    train, held_out = measured, np.zeros_like(measured)
    if split is not None:
        train, held_out = split_responses(measured, split, validation=validation, rng=seed)
    encoder = None
    if "sccello" in cell_features:
        encoder = model if isinstance(model, LoadedModel) else load(model, device=device)
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
        # its name may not lead back to it: a folder, or a modified network
        trained.__dict__["encoder"] = encoder
    if split is not None:
        table, scores = _validate(trained, data, held_out)
        trained = _replace(trained, scores=scores, validation=table)
        logger.info(
            "train_drug_response: validation (%s): Pearson %.3f over %d pairs, %.3f within drugs; RMSE %.2f",
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
    return _replace(trained, sha256=saved.sha256, folder=saved.folder)


def _with_smiles(data: DrugResponseData, drug_encoder: str) -> DrugResponseData:
    """Drop drugs without SMILES, with a warning."""
    without = data.smiles.index[data.smiles == ""].tolist()
    if not without:
        return data
    logger.warning(
        "train_drug_response: %d of %d drugs have no SMILES and are dropped with drug_encoder=%r: %s",
        len(without),
        len(data.drugs),
        drug_encoder,
        listed(without),
    )
    kept = [drug for drug in data.drugs if drug not in set(without)]
    if not kept:
        msg = f"None of the {len(data.drugs)} drugs has a SMILES, which drug_encoder={drug_encoder!r} requires. Add them, or pass drug_encoder='none'."
        raise ResponseError(msg)
    return data.select(drugs=kept)


def _validate(
    model: DrugResponseModel, data: DrugResponseData, held_out: NDArray[np.bool_]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Predict and score the validation pairs."""
    rows = np.flatnonzero(held_out.any(axis=1))
    lines = data.expression.iloc[rows]
    mean = pd.DataFrame(np.nan, index=lines.index, columns=data.ln_ic50.columns)
    std = mean.copy()
    known = [drug for drug in data.drugs if drug in set(model.drugs)]
    new = {d: str(data.smiles[d]) for d in data.drugs if d not in set(known)}
    for drugs in (known, new):
        if drugs:
            found = model.predict(lines, drugs)
            names = found.ln_ic50.columns.tolist()
            mean[names], std[names] = found.ln_ic50, found.std
    truth = data.ln_ic50.iloc[rows].where(held_out[rows])
    pairs = np.argwhere(held_out[rows])
    table = pd.DataFrame(
        {
            "cell_line": truth.index.to_numpy()[pairs[:, 0]],
            "drug": truth.columns.to_numpy()[pairs[:, 1]],
            "measured": truth.to_numpy()[held_out[rows]],
            "predicted": mean.to_numpy(dtype=np.float32)[held_out[rows]],
            "std": std.to_numpy(dtype=np.float32)[held_out[rows]],
        }
    )
    scores = response_score(truth.to_numpy(dtype=np.float64), mean.to_numpy())._asdict()
    return table, {name: float(value) for name, value in scores.items()}


def _replace(model: DrugResponseModel, **changes: Any) -> DrugResponseModel:
    """Return the model with changed fields and the same encoder."""
    changed = replace(model, **changes)
    if "encoder" in model.__dict__:
        changed.__dict__["encoder"] = model.__dict__["encoder"]
    return changed
