"""Training of an ensemble on drug responses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from sccello_tools._logging import logger
from sccello_tools._messages import quoted
from sccello_tools.errors import ConfigError, ResponseError, TrainingError
from sccello_tools.training.trainer import QUIET_OPTIONS, check_trainer_options, lightning_session

from .encoders import DrugInputs, drug_inputs
from .ensemble import Ensemble
from .network import DrugResponseNetwork
from .profiles import LineFeatures, embed_profiles, match_line_genes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from numpy.typing import NDArray

    from sccello_tools.models import LoadedModel

    from .config import DrugResponseConfig
    from .data import DrugResponseData

_CONFIGURED: Final = {
    "max_epochs": "max_epochs",
    "max_steps": "max_epochs",
    "gradient_clip_val": "learning_rate",
    "accumulate_grad_batches": "batch_lines",
}
# distance of seeds, so that ensembles of neighbouring seeds share no member
_MEMBER_SEEDS: Final = 1_000
_WARMUP: Final = 0.1  # fraction of the steps


def fit_ensemble(
    data: DrugResponseData,
    train: NDArray[np.bool_],
    *,
    config: DrugResponseConfig,
    encoder: LoadedModel | None,
    embedding: NDArray[np.float32] | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> Ensemble:
    """Train the networks of an ensemble on a subset of the pairs.

    Parameters
    ----------
    data
        Lines and drugs.
    train
        Training pairs, shape (n_lines, n_drugs). Means and principal axes are computed on lines of these pairs only.
    config
        Inputs, sizes, schedule.
    encoder
        The scCello model; required for the cell feature "sccello".
    embedding
        Precomputed output of :func:`embed_profiles` for all lines, shape (n_lines, d).
    trainer_kwargs
        Passed to :class:`lightning.Trainer`.

    Returns
    -------
    The trained ensemble. Drugs without a training pair are new to it.

    Raises
    ------
    ConfigError
        If ``trainer_kwargs`` contains options that ``config`` determines, or an encoder is missing.
    ResponseError
        If fewer than two lines, or no drug, remain to train on.
    DrugError, MissingExtraError
        If molecules cannot be read.
    TrainingError
        If the loss is not finite.
    """
    options = dict(trainer_kwargs or {})
    check_trainer_options(options, _CONFIGURED, owner="DrugResponseConfig")
    if "sccello" in config.cell_features and encoder is None:
        msg = "The cell feature 'sccello' requires a model. Pass model='sccello-small'."
        raise ConfigError(msg)
    has_smiles = np.asarray(data.smiles != "", dtype=bool)
    usable: NDArray[np.bool_] = (
        np.ones_like(has_smiles) if config.drug_encoder == "none" else has_smiles
    )
    train = train & usable
    rows, known = np.flatnonzero(train.any(axis=1)), np.flatnonzero(train.any(axis=0))
    if len(rows) < 2 or not len(known):
        msg = f"At least 2 cell lines and 1 drug are required for training, got {len(rows)} and {len(known)}."
        raise ResponseError(msg)
    if n_dropped := int(data.ln_ic50.notna().any(axis=0).to_numpy()[~usable].sum()):
        logger.warning(
            "%d drugs without SMILES are not used with drug_encoder=%r: %s",
            n_dropped,
            config.drug_encoder,
            quoted(data.smiles.index[~usable]),
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
    mean = float(responses[measured].mean())
    std = float(responses[measured].std()) or 1.0
    scaled = np.where(measured, (responses - mean) / std, 0.0)
    drug_means = scaled.sum(axis=0) / measured.sum(axis=0)
    smiles = [str(text) for text in data.smiles.iloc[known]]
    inputs = drug_inputs(config.drug_encoder, smiles, range(len(known)))

    networks, losses = [], []
    for member in range(config.n_members):
        seed = config.seed * _MEMBER_SEEDS + member
        bag = _bag(len(rows), config, seed)
        with lightning_session(seed):
            network = DrugResponseNetwork(config, n_features=lines.n_features, n_known=len(known))
            network.means[:-1] = torch.from_numpy(drug_means.astype(np.float32))
            residuals = np.where(measured[bag], scaled[bag] - drug_means, 0.0)
            network.start_from_ridge(features[bag], residuals)
            module = DrugResponseModule(network, inputs)
            loader = _line_batches(
                torch.from_numpy(features[bag]),
                torch.from_numpy(scaled[bag].astype(np.float32)),
                torch.from_numpy(measured[bag]),
                batch_lines=config.batch_lines,
                seed=seed,
            )
            _trainer(config, options).fit(module, loader)
        networks.append(network.cpu().eval())
        losses.append(module.losses)
        logger.info(
            "network %d of %d: training loss %.3f (mean squared error, ln IC50)",
            member + 1,
            config.n_members,
            module.losses[-1] * std**2,
        )
    return Ensemble(
        config=config,
        networks=tuple(networks),
        lines=lines,
        drugs=tuple(str(name) for name in data.ln_ic50.columns[known]),
        smiles=tuple(smiles),
        cell_lines=tuple(str(name) for name in data.ln_ic50.index[rows]),
        mean=mean,
        std=std,
        losses=np.array(losses),
    )


class DrugResponseModule(L.LightningModule):
    """Training step of one network. Logs ``train_loss`` once per epoch.

    All drugs are encoded once per step, and every line of the batch is paired with every drug.

    Parameters
    ----------
    network
        The network.
    drugs
        Its drugs, in the order of the responses' columns.
    """

    def __init__(self, network: DrugResponseNetwork, drugs: DrugInputs) -> None:
        super().__init__()
        self.network, self.config = network, network.config
        self.register_buffer("drugs_known", drugs.known, persistent=False)
        self._molecule_names = tuple(drugs.molecules)
        for name, value in drugs.molecules.items():
            self.register_buffer(f"drugs_{name}", value, persistent=False)
        self.losses: list[float] = []
        self._squares, self._n_pairs = 0.0, 0.0
        self.train()

    @property
    def drugs(self) -> DrugInputs:
        """The drugs, on the device of the network."""
        molecules = {name: getattr(self, f"drugs_{name}") for name in self._molecule_names}
        return DrugInputs(self.drugs_known, molecules)  # type: ignore[arg-type]

    def training_step(self, batch: tuple[torch.Tensor, ...], batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch: mean squared error of responses, and of offsets predicted from structures."""
        del batch_idx
        features, responses, measured = batch
        drugs, predicted_offsets = self.network.drug_vectors(self.drugs)
        errors = (self.network.respond(features, drugs) - responses)[measured]
        loss = (errors**2).mean() + ((predicted_offsets - drugs.offsets) ** 2).mean()
        if not torch.isfinite(loss):
            msg = f"The loss is {float(loss.detach())} at step {self.global_step}. Lower learning_rate."
            raise TrainingError(msg)
        self._squares += float((errors.detach() ** 2).sum())
        self._n_pairs += len(errors)
        return loss

    def on_train_epoch_end(self) -> None:
        """Record the loss of the epoch."""
        self.losses.append(self._squares / self._n_pairs)
        self.log("train_loss", self.losses[-1])
        self._squares, self._n_pairs = 0.0, 0.0

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine decay; weight decay for matrices only."""
        groups = [
            {
                "params": [p for p in self.parameters() if p.ndim >= 2],
                "weight_decay": self.config.weight_decay,
            },
            {"params": [p for p in self.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate)
        n_steps = int(self.trainer.estimated_stepping_batches)
        n_warmup = max(1, round(_WARMUP * n_steps))

        def rate(step: int) -> float:
            if step < n_warmup:
                return (step + 1) / n_warmup
            return 0.5 + 0.5 * math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _bag(n_lines: int, config: DrugResponseConfig, seed: int) -> NDArray[np.intp]:
    """Return the training lines of a network: all if it is the only one, else a random subset of at least two."""
    if config.n_members == 1:
        return np.arange(n_lines)
    size = max(2, round(config.bag * n_lines))
    return np.sort(np.random.default_rng(seed).permutation(n_lines)[:size])


def _line_batches(
    features: torch.Tensor,
    responses: torch.Tensor,
    measured: torch.Tensor,
    *,
    batch_lines: int,
    seed: int,
) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Return shuffled batches of (B, n_features) features, (B, n_drugs) responses and which of them are measured."""
    generator = torch.Generator().manual_seed(seed)
    lines = TensorDataset(features, responses, measured)
    return DataLoader(lines, batch_lines, shuffle=True, generator=generator)


def _trainer(config: DrugResponseConfig, options: Mapping[str, Any]) -> L.Trainer:
    return L.Trainer(
        **{
            **QUIET_OPTIONS,
            "accelerator": "cpu",  # the networks have 100,000 weights
            **options,
            "max_epochs": config.max_epochs,
            "gradient_clip_val": 1.0,
        }
    )
