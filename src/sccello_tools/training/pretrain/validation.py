"""Zero-shot scores of validation cells during training, and early stopping on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import lightning as L
import numpy as np
import pandas as pd

from sccello_tools._logging import logger
from sccello_tools.engine import encode
from sccello_tools.errors import LabelError
from sccello_tools.metrics import annotation_score, clustering_score, knn_vote

from .callbacks import format_scores

if TYPE_CHECKING:
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from sccello_tools.nn import ScCelloModel
    from sccello_tools.ontology import CellOntology
    from sccello_tools.tokens import RaggedTokens

    from .batch import Batch
    from .config import PretrainConfig
    from .sources import LabelledTokens

N_REFERENCE = 2_000
"""Number of training cells among which neighbours are searched."""
N_VALIDATION = 2_000
"""Maximum number of validation cells that are scored."""


class ValidationScores(NamedTuple):
    """Zero-shot scores of the validation cells."""

    knn_accuracy: float
    """Fraction of cells whose 15 nearest training cells predict the label or a subtype of it."""
    knn_recall: float
    """The same, averaged over types."""
    nmi: float
    """Normalised mutual information of types and Louvain clusters at the best resolution."""


class ZeroShotValidation:
    """Validation cells and the training cells that predict their types.

    Parameters
    ----------
    validation
        Labelled cells that are not trained on. Types absent from training count only in the clustering score.
    reference
        Tokens and Cell Ontology ids of training cells.
    ontology
        Determines which predictions are correct.
    seed
        Seed of the sample, if there are more than ``N_VALIDATION`` cells.

    Raises
    ------
    LabelError
        If the validation cells have fewer than two types, or none of them occurs in training.
    """

    def __init__(
        self,
        validation: LabelledTokens,
        reference: tuple[RaggedTokens, NDArray[np.str_]],
        ontology: CellOntology,
        *,
        seed: int,
    ) -> None:
        cells = np.flatnonzero(validation.tokens.lengths > 0)
        if len(cells) > N_VALIDATION:
            chosen = np.random.default_rng(seed).choice(len(cells), N_VALIDATION, replace=False)
            cells = cells[np.sort(chosen)]
        self._tokens, self._types = validation.tokens.take(cells), validation.cell_types[cells]
        self._reference, self._names = reference
        types = {str(t) for t in np.unique(self._types)}
        known = {str(t) for t in np.unique(self._names)}
        correct = {t: {t, *ontology.descendants(t)} for t in types}
        self._accepted = {t: terms for t, terms in correct.items() if terms & known}
        if len(types) < 2 or not self._accepted:
            msg = (
                f"validation needs cells of at least two types, one of them in the training data; found {sorted(types)[:5]}, "
                f"and the training data have {sorted(known)[:5]}."
            )
            raise LabelError(msg)

    def __call__(self, network: ScCelloModel) -> ValidationScores:
        """Score a network on its current device."""
        reference = encode(network, self._reference, precision="float32")
        vectors = encode(network, self._tokens, precision="float32")
        votes = knn_vote(reference, self._names, vectors)
        score = annotation_score(self._types, votes, self._accepted)
        clusters = clustering_score(vectors, self._types)
        return ValidationScores(score.accuracy, score.mean_recall, clusters.nmi)


class EarlyStopping(L.Callback):
    """Scores validation cells at intervals, stops when they no longer improve and restores the best weights.

    Parameters
    ----------
    zero_shot
        The validation cells.
    config
        Interval, monitored score and patience.
    """

    def __init__(self, zero_shot: ZeroShotValidation, config: PretrainConfig) -> None:
        self._zero_shot, self._config = zero_shot, config
        self.rows: list[dict[str, float]] = []
        self.best_step = 0
        """Step whose weights are kept; 0 without early stopping."""
        self._best, self._n_worse = -float("inf"), 0
        self._weights: dict[str, torch.Tensor] = {}

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Validate if it is due."""
        del outputs, batch
        step = trainer.global_step
        is_last = step == self._config.max_steps
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if not is_last and step % self._config.validate_every:
            return
        # the main process computes the scores, and all processes act on them
        network = cast("ScCelloModel", pl_module.network)
        found = self._zero_shot(network) if trainer.is_global_zero else ()
        scores = ValidationScores(*trainer.strategy.broadcast(tuple(found)))
        values = {f"validation_{name}": value for name, value in scores._asdict().items()}
        pl_module.log_dict(values, batch_size=1)
        self.rows.append({"step": step, **values})
        logger.info("step %d, validation: %s", step, format_scores(scores._asdict()))
        if self._config.patience is None:
            return
        score = getattr(scores, self._config.monitor)
        if score > self._best:
            self._best, self._n_worse, self.best_step = score, 0, step
            self._weights = {
                name: value.detach().cpu().clone() for name, value in network.state_dict().items()
            }
            return
        self._n_worse += 1
        if self._n_worse >= self._config.patience:
            logger.info(
                "stopped after %d validations without improvement; weights of step %d restored",
                self._n_worse,
                self.best_step,
            )
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the best weights."""
        del trainer
        if self._weights:
            cast("ScCelloModel", pl_module.network).load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the state stored in a checkpoint."""
        return {
            "rows": self.rows,
            "best": self._best,
            "best_step": self.best_step,
            "n_worse": self._n_worse,
            "weights": self._weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.rows, self._best = list(state_dict["rows"]), state_dict["best"]
        self.best_step, self._n_worse = state_dict["best_step"], state_dict["n_worse"]
        self._weights = dict(state_dict["weights"])

    def add_to(self, curve: pd.DataFrame) -> pd.DataFrame:
        """Return a loss curve with the validation scores at the steps that have them."""
        if not self.rows:
            return curve
        return curve.merge(pd.DataFrame(self.rows), on="step", how="left")
