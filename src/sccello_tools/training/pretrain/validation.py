"""Zero-shot scores of held-out cells while training, and an early stop on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import lightning as L
import numpy as np
import pandas as pd

from sccello_tools._logging import logger
from sccello_tools.engine import encode
from sccello_tools.errors import LabelError
from sccello_tools.metrics import annotation_score, clustering_score, knn_vote

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
"""Training cells whose neighbours vote."""
N_HELD_OUT = 2_000
"""Held-out cells that are looked at, at most."""


class HeldOutScores(NamedTuple):
    """What a look at the held-out cells found."""

    knn_accuracy: float
    """Share of cells that 15 neighbours among training cells name right; a subtype of the truth is right."""
    knn_recall: float
    """The same as the mean over types."""
    nmi: float
    """Mutual information of types and Louvain clusters, at the best resolution."""


class ZeroShot:
    """Held-out cells and the training cells that name them.

    Parameters
    ----------
    held_out
        Labelled cells that do not train. Types that training lacks are clustered, but have no share in the neighbour vote.
    reference
        Tokens and Cell Ontology ids of training cells.
    ontology
        To tell which answers are right.
    seed
        Of the choice of held-out cells, where there are too many.

    Raises
    ------
    LabelError
        If the held-out cells are of fewer than two types, or of none that trains.
    """

    def __init__(
        self,
        held_out: LabelledTokens,
        reference: tuple[RaggedTokens, NDArray[np.str_]],
        ontology: CellOntology,
        *,
        seed: int,
    ) -> None:
        cells = np.flatnonzero(held_out.tokens.lengths > 0)
        if len(cells) > N_HELD_OUT:
            chosen = np.random.default_rng(seed).choice(len(cells), N_HELD_OUT, replace=False)
            cells = cells[np.sort(chosen)]
        self._tokens, self._types = held_out.tokens.take(cells), held_out.cell_types[cells]
        self._reference, self._names = reference
        kinds = {str(t) for t in np.unique(self._types)}
        known = {str(t) for t in np.unique(self._names)}
        answers = {t: {t, *ontology.descendants(t)} for t in kinds}
        self._accepted = {t: right for t, right in answers.items() if right & known}
        if len(kinds) < 2 or not self._accepted:
            msg = (
                f"Validation needs cells of at least two types, one of which trains; found {sorted(kinds)[:5]}, "
                f"and training has {sorted(known)[:5]}. Pass other cells in validation=."
            )
            raise LabelError(msg)

    def __call__(self, network: ScCelloModel) -> HeldOutScores:
        """Score a network, on the device that it is on."""
        reference = encode(network, self._reference, precision="float32")
        vectors = encode(network, self._tokens, precision="float32")
        votes = knn_vote(reference, self._names, vectors)
        score = annotation_score(self._types, votes, self._accepted)
        clusters = clustering_score(vectors, self._types)
        return HeldOutScores(score.accuracy, score.mean_recall, clusters.nmi)


class Watch(L.Callback):
    """Scores held-out cells every so many steps, stops a run that no longer gets better, and keeps its best weights.

    Parameters
    ----------
    zero_shot
        The held-out cells.
    config
        How often, which score decides, and how long to wait.
    """

    def __init__(self, zero_shot: ZeroShot, config: PretrainConfig) -> None:
        self._zero_shot, self._config = zero_shot, config
        self.rows: list[dict[str, float]] = []
        self.best_step = 0
        """The step whose weights are kept; 0 if none are."""
        self._best, self._waited = -float("inf"), 0
        self._weights: dict[str, torch.Tensor] = {}

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Look, if it is time."""
        del outputs, batch
        step = trainer.global_step
        is_last = step == self._config.max_steps
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if not is_last and step % self._config.validate_every:
            return
        # one process looks, and all of them do what it says
        network = cast("ScCelloModel", pl_module.network)
        found = self._zero_shot(network) if trainer.is_global_zero else ()
        scores = HeldOutScores(*trainer.strategy.broadcast(tuple(found)))
        values = {f"validation_{name}": value for name, value in scores._asdict().items()}
        pl_module.log_dict(values, batch_size=1)
        self.rows.append({"step": step, **values})
        logger.info(
            "step %d, held-out cells: %s",
            step,
            ", ".join(f"{name} {value:.3f}" for name, value in scores._asdict().items()),
        )
        if self._config.patience is None:
            return
        score = getattr(scores, self._config.monitor)
        if score > self._best:
            self._best, self._waited, self.best_step = score, 0, step
            self._weights = {
                name: value.detach().cpu().clone() for name, value in network.state_dict().items()
            }
            return
        self._waited += 1
        if self._waited >= self._config.patience:
            logger.info("no better for %d looks; back to step %d", self._waited, self.best_step)
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the best weights back."""
        del trainer
        if self._weights:
            cast("ScCelloModel", pl_module.network).load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "rows": self.rows,
            "best": self._best,
            "best_step": self.best_step,
            "waited": self._waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.rows, self._best = list(state_dict["rows"]), state_dict["best"]
        self.best_step, self._waited = state_dict["best_step"], state_dict["waited"]
        self._weights = dict(state_dict["weights"])

    def joined(self, curve: pd.DataFrame) -> pd.DataFrame:
        """Add the scores to a curve, at the steps that were looked at."""
        if not self.rows:
            return curve
        return curve.merge(pd.DataFrame(self.rows), on="step", how="left")
