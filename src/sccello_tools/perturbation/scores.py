"""Scores of all genes of many cells by masking, and the runner of perturbed copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from sccello_tools._logging import logger
from sccello_tools._validation import check_at_least, check_choice
from sccello_tools.engine import autocast, is_out_of_memory, resolve_precision
from sccello_tools.errors import ArgumentError, WeightsError
from sccello_tools.nn import resolve_attention

from .exact import PerturbedRows, edited_rows, half_squared_distance, masked_rows
from .fast import fast_differences, fast_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, Self

    from numpy.typing import NDArray

    from sccello_tools.engine import Precision
    from sccello_tools.nn import AttentionName, ScCelloModel
    from sccello_tools.tokens import RaggedTokens

PerturbMethod = Literal["perturb", "fast", "screen"]
METHODS: Final = ("perturb", "fast", "screen")
N_SCREENED: Final = 100
"""Genes of a cell for which ``method="screen"`` computes exact scores."""

# copies of a cell per batch: as many as fit into the cache of a CPU, or fill a GPU
_BATCH_TOKENS: Final = {"cpu": 4_096, "cuda": 131_072}


def perturbation_scores(
    network: ScCelloModel,
    tokens: RaggedTokens,
    *,
    method: PerturbMethod = "perturb",
    genes: NDArray[np.integer] | None = None,
    n_exact: int = N_SCREENED,
    batch_tokens: int | Literal["auto"] = "auto",
    precision: Precision = "float32",
    attention: AttentionName = "auto",
    n_directions: int = 4,
    on_progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    r"""Score each token of each cell by the shift of the cell when the token is replaced by ``<mask>``.

    .. math:: s_{ij} = 1 - \cos\left(h(x_i), h(x_i^{(j \to \mathrm{mask})})\right)

    with :math:`h` the last hidden state at ``<cls>`` (arXiv 2408.12373, marker genes by in-silico perturbation).

    Parameters
    ----------
    network
        The model, on the device to run on.
    tokens
        Tokens of the cells, none longer than the number of positions of the model.
    method
        ``"perturb"``: exact. ``"fast"``: approximation (:func:`~sccello_tools.perturbation.fast.fast_differences`). ``"screen"``: exact
        for the genes of each cell that rank highest by ``"fast"``, ``"fast"`` for the others.
    genes
        Token ids to score; by default all.
    n_exact
        Number of genes per cell with exact scores for ``"screen"``.
    batch_tokens
        Maximum number of tokens in a batch of copies of a cell.
    precision
        Precision of ``"perturb"`` and ``"screen"``. In bfloat16, rounding alone gives scores of about 1e-5. ``"fast"`` always uses
        float32.
    attention
        Attention backend of the middle layers for exact scores.
    n_directions
        Number of gradients per cell for ``"fast"``.
    on_progress
        Called with 1 after each cell.

    Returns
    -------
    Array of shape (n_tokens,), float32, aligned with ``tokens.ids``, in [0, 2]; NaN for ``<cls>`` and genes that are not requested.

    Raises
    ------
    WeightsError
        If the model has no trained mask token, or returns NaN.
    BackendError
        If a requested precision or backend is not available.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sccello_tools.tokens import RaggedTokens
    >>> from sccello_tools.nn import EncoderConfig, ScCelloModel
    >>> from sccello_tools.perturbation import perturbation_scores
    >>> network = ScCelloModel(EncoderConfig(vocab_size=50, cls_token_id=49, hidden_size=16))
    >>> ids = np.array([49, 3, 4, 5], dtype=np.int32)
    >>> tokens = RaggedTokens(np.array([0, 4]), ids, np.zeros(4, dtype=np.float32))
    >>> np.isnan(perturbation_scores(network, tokens)).tolist()
    [True, False, False, False]
    """
    check_choice("method", method, METHODS)
    check_at_least("n_directions", n_directions, 0)
    check_at_least("n_exact", n_exact, 1)
    runner = Runner(
        network,
        batch_tokens=batch_tokens,
        precision=precision,
        attention=attention,
        n_directions=n_directions,
    )
    runner.check_mask_token()
    wanted = tokens.ids != network.config.cls_token_id
    if genes is not None:
        wanted &= np.isin(tokens.ids, genes)
    out = np.full(len(tokens.ids), np.nan, dtype=np.float32)
    with runner:
        for cell in range(len(tokens)):
            start = tokens.indptr[cell]
            which = np.flatnonzero(wanted[start : tokens.indptr[cell + 1]])
            if len(which):
                out[start + which] = _cell_scores(runner, tokens[cell], which, method, n_exact)
            if on_progress:
                on_progress(1)
    if not np.isfinite(out[wanted]).all():
        msg = "The model returned NaN or infinite perturbation scores. Its weights are damaged, or the precision is too low: try precision='float32'."
        raise WeightsError(msg)
    return out


class Runner:
    """Runs perturbed copies of cells through a model, with smaller batches if memory is exhausted.

    Use it as a context manager, which sets the model to evaluation mode.

    Parameters
    ----------
    network
        The model, on the device to run on.
    batch_tokens, precision, attention, n_directions
        See :func:`perturbation_scores`.
    """

    def __init__(
        self,
        network: ScCelloModel,
        *,
        batch_tokens: int | Literal["auto"] = "auto",
        precision: Precision = "float32",
        attention: AttentionName = "auto",
        n_directions: int = 4,
    ) -> None:
        self.network, self.n_directions = network, n_directions
        self.device = next(network.parameters()).device
        self._dtype = resolve_precision(precision, self.device)
        self._attention = resolve_attention(attention, self.device, self._dtype)
        budget = (
            _BATCH_TOKENS.get(self.device.type, 8_192) if batch_tokens == "auto" else batch_tokens
        )
        if budget < 1:
            msg = f"batch_tokens must be >= 1 or 'auto', got {budget}"
            raise ArgumentError(msg)
        self._batch_tokens = budget
        self._was_training = network.training

    def __enter__(self) -> Self:
        self._was_training = self.network.training
        self.network.eval()
        return self

    def __exit__(self, *error: object) -> None:
        self.network.train(self._was_training)

    def check_mask_token(self) -> None:
        """Raise a WeightsError if the embedding of the mask token is zero or not finite."""
        config = self.network.config
        mask = self.network.word_embeddings[config.mask_token_id]
        if not bool(mask.isfinite().all()) or not bool(mask.any()):
            msg = (
                f"The embedding of the mask token (id {config.mask_token_id}) is zero or not finite, so genes cannot be masked. "
                "Use a model that was trained with the masked-gene loss, such as 'sccello-small'."
            )
            raise WeightsError(msg)

    def fast(self, ids: NDArray[np.integer]) -> PerturbedRows:
        """Approximate masking of every gene: the normalised ``<cls>`` row (d,) and the perturbed ones (L - 1, d)."""
        unit, difference = fast_differences(
            self.network.encoder, self._tensor(ids), n_directions=self.n_directions
        )
        # in double precision, so that small differences survive the sum
        return PerturbedRows(unit.double(), unit.double() + difference.double())

    def fast_scores(self, ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Approximate scores of all genes, shape (L - 1,)."""
        found = fast_scores(self.network.encoder, self._tensor(ids), n_directions=self.n_directions)
        return found.cpu().numpy()

    def masked(self, ids: NDArray[np.integer], which: NDArray[np.integer]) -> PerturbedRows:
        """Mask each of the positions ``which`` in turn; see :func:`~sccello_tools.perturbation.exact.masked_rows`."""
        return self._with_smaller_batches(
            lambda batch_tokens: masked_rows(
                self.network.encoder,
                self._tensor(ids),
                self._tensor(which),
                attention=self._attention,
                batch_tokens=batch_tokens,
            ),
            len(ids),
        )

    def edited(
        self, ids: NDArray[np.integer], copies: Sequence[NDArray[np.integer]]
    ) -> PerturbedRows:
        """Encode arbitrary copies; see :func:`~sccello_tools.perturbation.exact.edited_rows`."""
        return self._with_smaller_batches(
            lambda batch_tokens: edited_rows(
                self.network.encoder,
                ids,
                copies,
                attention=self._attention,
                batch_tokens=batch_tokens,
                device=self.device,
            ),
            len(ids),
        )

    def _tensor(self, values: NDArray[np.integer]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.device)

    def _with_smaller_batches(
        self, compute: Callable[[int], PerturbedRows], length: int
    ) -> PerturbedRows:
        while True:
            try:
                with torch.inference_mode(), autocast(self.device, self._dtype):
                    return compute(self._batch_tokens)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self._batch_tokens <= length:
                    msg = f"One cell of {length} tokens does not fit into the memory of {self.device}. Lower max_length, or use device='cpu'."
                    raise MemoryError(msg) from error
            self._batch_tokens //= 2  # for the following cells, too
            logger.warning(
                "out of memory on %s: continuing with batches of %d tokens",
                self.device,
                self._batch_tokens,
            )


def _cell_scores(
    runner: Runner,
    ids: NDArray[np.integer],
    which: NDArray[np.integer],
    method: PerturbMethod,
    n_exact: int,
) -> NDArray[np.float32]:
    """Scores of the positions ``which`` of one cell."""

    def exact(positions: NDArray[np.integer]) -> NDArray[np.float32]:
        found = runner.masked(ids, positions)
        exact_scores: NDArray[np.float32] = (
            half_squared_distance(found.clean, found.rows).cpu().numpy()
        )
        return exact_scores

    if method == "perturb":
        return exact(which)
    scores: NDArray[np.float32] = runner.fast_scores(ids)[which - 1]
    if method == "screen":
        best = np.sort(np.argsort(-scores, kind="stable")[:n_exact])
        scores[best] = exact(which[best])
    return scores
