"""Training losses as pure functions of tensors (arXiv 2408.12373, section 3; formulas in ``docs/how_it_works.md``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from torch import Tensor

MAX_LOGITS = 2**24
"""Scores in memory at a time in the masked-gene loss: 64 MiB in float32."""


class LossAndAccuracy(NamedTuple):
    """A classification loss and the accuracy of the highest score."""

    loss: Tensor
    """Scalar float32, mean over the rows, differentiable; 0 without rows."""
    accuracy: Tensor
    """Scalar float32 in [0, 1]; 0 without rows."""


class LossTerms(NamedTuple):
    """A loss as a sum and its number of terms."""

    total: Tensor
    """Scalar float32, sum over the terms, differentiable."""
    n_terms: Tensor
    """Scalar float32, number of terms."""


class MaskedTokens(NamedTuple):
    """Tokens of which some are masked."""

    inputs: Tensor
    """(T,) int64 input of the encoder."""
    positions: Tensor
    """(M,) int64 positions of the selected tokens, ascending."""
    targets: Tensor
    """(M,) int64 original tokens at these positions."""


def mask_tokens(
    ids: Tensor,
    *,
    generator: torch.Generator,
    mask_id: int,
    protected_ids: Sequence[int],
    random_range: tuple[int, int],
    probability: float = 0.15,
) -> MaskedTokens:
    """Select tokens to predict: 80 % of them become ``<mask>``, 10 % a random token, 10 % stay as they are.

    Parameters
    ----------
    ids
        (T,) int64 packed tokens.
    generator
        Random number generator; one on the CPU gives the same selection on every device.
    mask_id
        Token id of ``<mask>``.
    protected_ids
        Token ids that are never selected: ``<cls>`` and ``<pad>``.
    random_range
        Half-open range of token ids from which random replacements are drawn.
    probability
        Probability that a token is selected.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.losses import mask_tokens
    >>> ids = torch.tensor([49, 3, 4, 5, 49, 6, 7])
    >>> rng = torch.Generator().manual_seed(0)
    >>> masked = mask_tokens(
    ...     ids, generator=rng, mask_id=1, protected_ids=[0, 49], random_range=(2, 49), probability=1
    ... )
    >>> masked.positions.tolist(), masked.targets.tolist()
    ([1, 2, 3, 5, 6], [3, 4, 5, 6, 7])
    """
    source = generator.device
    draws = torch.rand((2, len(ids)), generator=generator, device=source).to(ids.device)
    others = torch.randint(*random_range, (len(ids),), generator=generator, device=source)
    protected = torch.isin(ids, torch.tensor(list(protected_ids), device=ids.device))
    chosen, kind = (draws[0] < probability) & ~protected, draws[1]
    inputs = ids.masked_fill(chosen & (kind < 0.8), mask_id)
    inputs = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), others.to(ids.device), inputs)
    positions = chosen.nonzero().squeeze(1)
    return MaskedTokens(inputs, positions, ids[positions])


def masked_gene_loss(
    hidden: Tensor,
    targets: Tensor,
    *,
    head: Callable[[Tensor], Tensor],
    word_embeddings: Tensor,
    tau: float,
    max_logits: int = MAX_LOGITS,
    negatives: int | None = None,
    generator: torch.Generator | None = None,
) -> LossAndAccuracy:
    r"""Cross-entropy of the masked gene among all tokens, scored by cosine similarity.

    With :math:`c` the gene head, :math:`h_j` the hidden state and :math:`E_v` the word embeddings, the mean over masked
    positions j of :math:`-\log \mathrm{softmax}_v(\cos(c(h_j), c(E_v)) / \tau)` at the original gene.

    Parameters
    ----------
    hidden
        (M, d) last hidden states at the masked positions only.
    targets
        (M,) int64 original token ids.
    head
        The gene head of the model, ``cls``.
    word_embeddings
        (V, d) word embeddings of all tokens.
    tau
        Temperature.
    max_logits
        Maximum number of scores in memory at a time, backward pass included (at least one row).
    negatives
        If given, score against this many tokens drawn uniformly with replacement, and the targets of the batch, instead of
        all tokens: cheaper, with fewer negatives and therefore lower values.
    generator
        Random number generator for ``negatives``; None is torch's global generator.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.losses import masked_gene_loss
    >>> table = torch.eye(3)
    >>> found = masked_gene_loss(
    ...     table[:2], torch.tensor([0, 1]), head=torch.nn.Identity(), word_embeddings=table, tau=1.0
    ... )
    >>> round(found.loss.item(), 3), found.accuracy.item()
    (0.551, 1.0)
    """
    if not len(targets):
        return LossAndAccuracy(hidden.float().sum(), hidden.new_zeros((), dtype=torch.float32))
    if negatives is not None:
        device = targets.device if generator is None else generator.device
        drawn = torch.randint(
            len(word_embeddings), (negatives,), generator=generator, device=device
        )
        candidates = torch.unique(torch.cat([targets, drawn.to(targets.device)]))
        word_embeddings = word_embeddings[candidates]
        targets = torch.searchsorted(candidates, targets)
    queries = functional.normalize(head(hidden).float(), dim=-1)
    table = functional.normalize(head(word_embeddings).float(), dim=-1)
    total = chunked_cross_entropy(queries, table, targets, scale=1 / tau, max_logits=max_logits)
    return LossAndAccuracy(total.loss / len(targets), total.n_correct / len(targets))


def ontology_alignment_loss(
    cells: Tensor, second_pass: Tensor, levels: Tensor, ancestor_mask: Tensor, *, tau: float
) -> Tensor:
    r"""Contrast cells of similar types with cells of less similar types, at every level of ontology similarity.

    For each cell i and each similarity level l between i and the batch: positives p are the cells whose level to i is at
    least l (including i), negatives N those below l whose type is not an ancestor of i's type. The loss is the mean over all
    (i, l, p) of :math:`-\log(e^{z_i z_p / \tau} / (e^{z_i z_p / \tau} + \sum_{n \in N} e^{z_i z_n / \tau}))`. Levels
    without negatives, such as the lowest level of each cell, are omitted.

    Parameters
    ----------
    cells
        (B, d) unit vectors (``ScCelloModel.cell_representation``).
    second_pass
        (B, d) unit vectors of the same cells from a second forward pass with other dropout; the score of a cell with itself
        is between the two passes.
    levels
        (B, B) int similarity level between the types of cells i and j.
    ancestor_mask
        (B, B) bool: the type of j is an ancestor of the type of i, or the same.
    tau
        Temperature.

    Returns
    -------
    Scalar float32; 0 if no cell has both positives and negatives. Memory is proportional to B² times the number of distinct
    levels.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.losses import ontology_alignment_loss
    >>> cells = torch.eye(2)
    >>> levels, ancestors = torch.tensor([[5, 1], [1, 5]]), torch.eye(2, dtype=torch.bool)
    >>> round(ontology_alignment_loss(cells, cells, levels, ancestors, tau=1.0).item(), 3)
    0.313
    """
    total, n_terms = ontology_alignment_terms(
        cells, cells, second_pass, levels, ancestor_mask, tau=tau
    )
    return total / n_terms.clamp(min=1)


def ontology_alignment_terms(
    cells: Tensor,
    others: Tensor,
    second_pass: Tensor,
    levels: Tensor,
    ancestor_mask: Tensor,
    *,
    tau: float,
    first: int = 0,
) -> LossTerms:
    """Sum the terms of :func:`ontology_alignment_loss` over some of the cells, contrasted with all of them.

    Sums and counts of parts add up to those of the whole batch, so that each process can compute those of its own cells.

    Parameters
    ----------
    cells
        (b, d) unit vectors of the cells of this part.
    others
        (B, d) unit vectors of all cells; those from index ``first`` on are ``cells``.
    second_pass
        (b, d) unit vectors of this part from a second forward pass.
    levels
        (b, B) int similarity level between the types of cells i and j.
    ancestor_mask
        (b, B) bool: the type of j is an ancestor of the type of i, or the same.
    tau
        Temperature.
    first
        Index of the first cell of this part among all cells.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.losses import ontology_alignment_terms
    >>> cells = torch.eye(2)
    >>> levels, ancestors = torch.tensor([[1, 5]]), torch.tensor([[False, True]])
    >>> found = ontology_alignment_terms(cells[1:], cells, cells[1:], levels, ancestors, tau=1.0, first=1)
    >>> round(found.total.item(), 3), found.n_terms.item()
    (0.313, 1.0)
    """
    cells, others, second_pass = cells.float(), others.float(), second_pass.float()
    own = torch.arange(len(cells), device=cells.device) + first
    with torch.autocast(cells.device.type, enabled=False):  # see coherence_loss
        cosines = cells @ others.T
    # (b, B)
    scores = cosines.scatter(1, own[:, None], (cells * second_pass).sum(-1)[:, None]) / tau
    distinct, rank = torch.unique(levels, return_inverse=True)
    level = torch.arange(len(distinct), device=levels.device)
    rank = rank[:, :, None]  # (b, B, 1), against the (n_levels,) levels
    negative = (rank < level) & ~ancestor_mask.bool()[:, :, None]  # (b, B, n_levels)
    occurs = (rank == level).any(1)  # (b, n_levels)
    counted = (rank >= level) & (occurs & negative.any(1))[:, None]
    # Finite instead of minus infinity, so that rows without negatives give no NaN in the gradient.
    lowest = torch.finfo(scores.dtype).min / 4
    against = scores[:, :, None].masked_fill(~negative, lowest).logsumexp(1)  # (b, n_levels)
    terms = functional.softplus(against[:, None] - scores[:, :, None])  # (b, B, n_levels)
    return LossTerms(terms.masked_fill(~counted, 0).sum(), counted.sum().float())


def coherence_loss(
    cells: Tensor, prototypes: Tensor, targets: Tensor, *, tau: float
) -> LossAndAccuracy:
    r"""Cross-entropy of each cell's type among all types, scored by cosine similarity to their prototypes.

    The mean over cells of :math:`-\log \mathrm{softmax}_t(\cos(z, p_t) / \tau)` at the type of the cell. All types are treated
    as mutually exclusive, as in the paper.

    Parameters
    ----------
    cells
        (B, d) unit vectors.
    prototypes
        (n_types, d) rows of ``learned_centroid`` in use; normalised here.
    targets
        (B,) int64 index of each cell's type.
    tau
        Temperature.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.losses import coherence_loss
    >>> found = coherence_loss(torch.eye(2), 7 * torch.eye(2), torch.tensor([0, 1]), tau=1.0)
    >>> round(found.loss.item(), 3), found.accuracy.item()
    (0.313, 1.0)
    """
    if not len(targets):
        return LossAndAccuracy(cells.float().sum(), cells.new_zeros((), dtype=torch.float32))
    # in bfloat16, a cosine divided by a low temperature would be wrong by a tenth of a nat and more
    with torch.autocast(cells.device.type, enabled=False):
        scores = cells.float() @ functional.normalize(prototypes.float(), dim=-1).T / tau
    accuracy = (scores.argmax(1) == targets).float().mean()
    return LossAndAccuracy(functional.cross_entropy(scores, targets), accuracy)


def ontology_coherence_loss(
    cells: Tensor, prototypes: Tensor, correct: Tensor, ignored: Tensor, *, tau: float
) -> LossAndAccuracy:
    r"""Coherence loss for labels at different depths of the ontology, such as "T cell" and "CD8-positive T cell".

    The mean over cells of :math:`-\log (\sum_{t \in C} e^{s_t} / \sum_{t \notin A} e^{s_t})` with
    :math:`s_t = \cos(z, p_t) / \tau`, where :math:`C` are the correct types of the cell, its label and the descendants of its label, and
    :math:`A` are the proper ancestors of its label, which are neither correct nor incorrect. If no type is an ancestor of another,
    this is :func:`coherence_loss`.

    Parameters
    ----------
    cells
        (B, d) unit vectors.
    prototypes
        (n_types, d) rows of ``learned_centroid`` in use; normalised here.
    correct
        (B, n_types) bool: the type is the label of the cell or a descendant of it; at least one per cell.
    ignored
        (B, n_types) bool: the type is a proper ancestor of the label.
    tau
        Temperature.

    Returns
    -------
    The loss, and the fraction of cells whose most similar type, ancestors aside, is correct.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.losses import ontology_coherence_loss
    >>> correct = torch.tensor([[True, True, False]])  # labelled with the parent of the second type
    >>> found = ontology_coherence_loss(
    ...     torch.eye(3)[1:2], torch.eye(3), correct, torch.zeros_like(correct), tau=1.0
    ... )
    >>> round(found.loss.item(), 3), found.accuracy.item()
    (0.238, 1.0)
    """
    if not len(cells):
        return LossAndAccuracy(cells.float().sum(), cells.new_zeros((), dtype=torch.float32))
    with torch.autocast(cells.device.type, enabled=False):  # see coherence_loss
        scores = cells.float() @ functional.normalize(prototypes.float(), dim=-1).T / tau
    scores = scores.masked_fill(ignored, -torch.inf)
    of_correct = scores.masked_fill(~correct, -torch.inf)
    accuracy = correct.gather(1, scores.argmax(1)[:, None]).float().mean()
    return LossAndAccuracy((scores.logsumexp(1) - of_correct.logsumexp(1)).mean(), accuracy)


def prototype_regularization(
    cells: Tensor,
    prototypes: Tensor,
    targets: Tensor,
    *,
    affine: Callable[[Tensor], Tensor],
    tau: float,
) -> Tensor:
    """Mean squared error between each cell and an affine map of the prototype of its type.

    Both are scaled to length 1 / sqrt(tau), as in the published code.

    Parameters
    ----------
    cells
        (B, d) unit vectors.
    prototypes
        (n_types, d) prototypes; normalised here.
    targets
        (B,) int64 index of each cell's type.
    affine
        The model's ``affine_projection``.
    tau
        Temperature.

    Returns
    -------
    Scalar float32, mean over cells and dimensions.

    Examples
    --------
    >>> import torch
    >>> from sccello_tools.nn.losses import prototype_regularization
    >>> types = torch.tensor([0, 1])
    >>> same = torch.nn.Identity()
    >>> prototype_regularization(torch.eye(2), torch.eye(2), types, affine=same, tau=0.01).item()
    0.0
    """
    if not len(targets):
        return cells.float().sum()
    scale = tau**-0.5
    mapped = affine(scale * functional.normalize(prototypes[targets].float(), dim=-1))
    return functional.mse_loss(mapped.float(), scale * cells.float())


class CrossEntropySum(NamedTuple):
    """Sums over rows, from :func:`chunked_cross_entropy`."""

    loss: Tensor
    """Scalar, differentiable."""
    n_correct: Tensor
    """Scalar, number of rows whose highest score is at the target."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass, while the scores of a chunk are in memory."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, table: Tensor, targets: Tensor, scale: float, chunk_rows: int
    ) -> tuple[Tensor, Tensor]:
        needs_grad = any(ctx.needs_input_grad[:2])
        queries_grad = torch.zeros_like(queries) if needs_grad else None
        table_grad = torch.zeros_like(table) if needs_grad else None
        loss, n_correct = queries.new_zeros(()), queries.new_zeros(())
        for start in range(0, len(queries), chunk_rows):
            rows = slice(start, start + chunk_rows)
            q, target = queries[rows], targets[rows, None]
            scores = (q @ table.T).mul_(scale)  # (chunk, table)
            highest = scores.max(dim=1, keepdim=True)
            n_correct += (highest.indices == target).sum()
            target_score = scores.gather(1, target)
            # `scores` is overwritten by the softmax and then by the gradient
            total = scores.sub_(highest.values).exp_().sum(dim=1, keepdim=True)
            loss += (total.log() + highest.values - target_score).sum()
            if queries_grad is None or table_grad is None:
                continue
            scores.div_(total)
            scores.scatter_add_(1, target, torch.full_like(target_score, -1))
            queries_grad[rows] = scale * (scores @ table)
            table_grad.addmm_(scores.T, q, alpha=scale)
        ctx.save_for_backward(queries_grad, table_grad)
        ctx.mark_non_differentiable(n_correct)
        return loss, n_correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        queries_grad, table_grad = ctx.saved_tensors
        return queries_grad * grads[0], table_grad * grads[0], None, None, None


def chunked_cross_entropy(
    queries: Tensor, table: Tensor, targets: Tensor, *, scale: float, max_logits: int
) -> CrossEntropySum:
    """Sum the cross-entropy of ``scale * queries @ table.T`` without a (M, V) matrix in memory.

    Parameters
    ----------
    queries
        (M, d).
    table
        (V, d).
    targets
        (M,) int64 row indices of the table.
    scale
        Factor of the products (1 / temperature).
    max_logits
        Maximum number of scores in memory at a time, backward pass included; at least one row of V.
    """
    chunk_rows = max(1, max_logits // len(table))
    # see coherence_loss
    with torch.autocast(queries.device.type, enabled=False):
        loss, n_correct = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            queries.float(), table.float(), targets, scale, chunk_rows
        )
    return CrossEntropySum(loss, n_correct)
