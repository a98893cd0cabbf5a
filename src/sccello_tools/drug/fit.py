"""One call from responses to an ensemble of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch

from sccello_tools._logging import logger
from sccello_tools.errors import ConfigError, ResponseError
from sccello_tools.training.trainer import (
    QUIET_OPTIONS,
    check_trainer_options,
    lightning_session,
)

from .drugs import drug_inputs, n_drug_features
from .ensemble import Ensemble
from .lines import LineFeatures, embed_profiles, match_line_genes
from .module import DrugResponseModule, batches_of_lines
from .network import DrugResponseNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

    from .config import DrugResponseConfig
    from .data import DrugResponseData

_CONFIGURED: Final = {
    "max_epochs": "max_epochs",
    "max_steps": "max_epochs",
    "gradient_clip_val": "max_epochs",
    "accumulate_grad_batches": "batch_lines",
}
_MEMBER_SEEDS: Final = 1_000  # so that the members of neighbouring seeds differ


def fit_ensemble(
    data: DrugResponseData,
    train: NDArray[np.bool_],
    *,
    config: DrugResponseConfig,
    encoder: LoadedModel | None,
    embedding: NDArray[np.float32] | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> Ensemble:
    """Train the networks of an ensemble on some of the pairs.

    Parameters
    ----------
    data
        Lines and drugs.
    train
        (n_lines, n_drugs) the pairs to train on. Whatever is measured on lines, means and axes, is measured on lines of these pairs.
    config
        Inputs, sizes, schedule.
    encoder
        The scCello model; needed for the cell feature "sccello".
    embedding
        (n_lines, d) of all lines as :func:`embed_profiles` makes them with this encoder, to spare making them again.
    trainer_kwargs
        Passed to ``lightning.Trainer``.

    Returns
    -------
    The trained ensemble. Drugs without a pair in ``train`` count as new.

    Raises
    ------
    ConfigError
        If ``trainer_kwargs`` hold what ``config`` decides, or an encoder is missing.
    ResponseError
        If fewer than two lines, or no drug, are left to train on.
    DrugError, MissingExtraError
        If molecules cannot be read.
    TrainingError
        If the loss is no longer a number.
    """
    options = dict(trainer_kwargs or {})
    check_trainer_options(options, _CONFIGURED, owner="DrugResponseConfig")
    if "sccello" in config.cell_features and encoder is None:
        msg = "cell_features names 'sccello', which needs a model to embed with. Pass model='sccello-small'."
        raise ConfigError(msg)
    structured = np.asarray(data.smiles != "", dtype=bool)
    usable: NDArray[np.bool_] = (
        np.ones_like(structured) if config.drug_encoder == "none" else structured
    )
    train = train & usable
    rows, known = np.flatnonzero(train.any(axis=1)), np.flatnonzero(train.any(axis=0))
    if len(rows) < 2 or not len(known):
        msg = f"There are {len(rows)} cell lines and {len(known)} drugs to train on; at least 2 lines and 1 drug are needed."
        raise ResponseError(msg)
    if left_out := int(data.ln_ic50.notna().any(axis=0).to_numpy()[~usable].sum()):
        logger.warning(
            "%d drugs have no SMILES and are left out, since drug_encoder is %r: %s",
            left_out,
            config.drug_encoder,
            ", ".join(data.smiles.index[~usable][:5].astype(str)),
        )
    columns, genes = match_line_genes([str(name) for name in data.expression.columns])
    profiles = data.expression.to_numpy(dtype=np.float32)[np.ix_(rows, columns)]
    if "sccello" not in config.cell_features:
        embedding = None
    elif embedding is not None:
        embedding = embedding[rows]
    elif encoder is not None:
        embedding = embed_profiles(profiles, genes, encoder)
    lines = LineFeatures.fit(profiles, genes, embedding, config)
    features = lines(profiles, embedding)
    responses = data.ln_ic50.to_numpy(dtype=np.float64)[np.ix_(rows, known)]
    measured = train[np.ix_(rows, known)]
    centre = float(responses[measured].mean())
    spread = float(responses[measured].std()) or 1.0
    scaled = np.where(measured, (responses - centre) / spread, 0.0)
    means = scaled.sum(axis=0) / measured.sum(axis=0)
    smiles = [str(text) for text in data.smiles.iloc[known]]
    inputs = drug_inputs(config.drug_encoder, smiles, range(len(known)))

    networks, losses = [], []
    for member in range(config.n_members):
        seed = config.seed * _MEMBER_SEEDS + member
        seen = _bag(len(rows), config, seed)
        with lightning_session(seed):
            network = DrugResponseNetwork(
                config,
                n_features=lines.n_features,
                n_drug_features=n_drug_features(config.drug_encoder),
                n_known=len(known),
            )
            network.means[:-1] = torch.from_numpy(means.astype(np.float32))
            left = np.where(measured[seen], scaled[seen] - means, 0.0)
            network.start_from_ridge(features[seen], left)
            module = DrugResponseModule(network, inputs)
            loader = batches_of_lines(
                torch.from_numpy(features[seen]),
                torch.from_numpy(scaled[seen].astype(np.float32)),
                torch.from_numpy(measured[seen]),
                batch_lines=config.batch_lines,
                seed=seed,
            )
            _trainer(config, options).fit(module, loader)
        networks.append(network.cpu().eval())
        losses.append(module.losses)
        logger.info(
            "network %d of %d: mean squared error %.3f (ln IC50, training pairs)",
            member + 1,
            config.n_members,
            module.losses[-1] * spread**2,
        )
    return Ensemble(
        config=config,
        networks=tuple(networks),
        lines=lines,
        drugs=tuple(str(name) for name in data.ln_ic50.columns[known]),
        smiles=tuple(smiles),
        cell_lines=tuple(str(name) for name in data.ln_ic50.index[rows]),
        centre=centre,
        spread=spread,
        losses=np.array(losses),
    )


def _bag(n_lines: int, config: DrugResponseConfig, seed: int) -> NDArray[np.intp]:
    """Lines that a network sees: all if it is alone, else a share, at least two."""
    if config.n_members == 1:
        return np.arange(n_lines)
    size = max(2, round(config.bag * n_lines))
    return np.sort(np.random.default_rng(seed).permutation(n_lines)[:size])


def _trainer(config: DrugResponseConfig, options: Mapping[str, Any]) -> L.Trainer:
    return L.Trainer(
        **{
            **QUIET_OPTIONS,
            "accelerator": "cpu",  # networks of 100,000 weights gain nothing elsewhere
            **options,
            "max_epochs": config.max_epochs,
            "gradient_clip_val": 1.0,
        }
    )
