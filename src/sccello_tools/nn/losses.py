"""The training losses (METHOD "Losses", arXiv 2408.12373), as pure functions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from ._cross_entropy import chunked_cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_LOGITS = 2**24
"""Scores that the masked-gene loss holds at a time: 64 MiB in float32."""


class LossAndAccuracy(NamedTuple):
    """A classification loss and how often the highest score was right."""

    loss: torch.Tensor
    """Scalar float32, mean over the rows, differentiable; 0 without rows."""
    accuracy: torch.Tensor
    """Scalar float32, share in [0, 1]; 0 without rows."""


class LossTerms(NamedTuple):
    """A loss before its mean is taken."""

    total: torch.Tensor
    """Scalar float32, sum over the terms, differentiable."""
    n_terms: torch.Tensor
    """Scalar float32, number of terms."""


class MaskedTokens(NamedTuple):
    """Tokens with some of them hidden."""

    inputs: torch.Tensor
    """(T,) int64: what the encoder gets to see."""
    positions: torch.Tensor
    """(M,) int64: the tokens that were chosen, ascending."""
    targets: torch.Tensor
    """(M,) int64: what stood there."""


def mask_tokens(
    ids: torch.Tensor,
    *,
    generator: torch.Generator,
    mask_id: int,
    protected_ids: Sequence[int],
    random_range: tuple[int, int],
    probability: float = 0.15,
) -> MaskedTokens:
    """Choose tokens to be guessed: of them 80 % become ``<mask>``, 10 % another token, 10 % stay.

    Parameters
    ----------
    ids
        (T,) int64 packed tokens.
    generator
        Source of randomness; on the CPU it gives the same choice on every device.
    mask_id
        Token id of ``<mask>``.
    protected_ids
        Token ids that are never chosen: ``<cls>`` and ``<pad>``.
    random_range
        First and one past the last token id that a random replacement is drawn from.
    probability
        Share of the other tokens that is chosen.

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
    hidden: torch.Tensor,
    targets: torch.Tensor,
    *,
    head: Callable[[torch.Tensor], torch.Tensor],
    word_embeddings: torch.Tensor,
    tau: float,
    max_logits: int = MAX_LOGITS,
    negatives: int | None = None,
    generator: torch.Generator | None = None,
) -> LossAndAccuracy:
    """Cross-entropy of the hidden gene among all tokens, by cosine over a temperature.

    Parameters
    ----------
    hidden
        (M, d) last hidden states at the masked positions only.
    targets
        (M,) int64 token ids that stood there.
    head
        The model's ``cls``: maps hidden states and word embeddings to the space of the cosine.
    word_embeddings
        (V, d) of every token.
    tau
        Temperature.
    max_logits
        Largest number of scores held at a time, backward pass included (but at least one row).
    negatives
        If given, score against this many tokens drawn evenly (with replacement) and the targets of
        the batch, rather than against all: a cheaper loss with fewer competitors, so lower in value.
    generator
        Source of randomness for ``negatives``; None is torch's global one.

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
    cells: torch.Tensor,
    second_pass: torch.Tensor,
    levels: torch.Tensor,
    ancestor_mask: torch.Tensor,
    *,
    tau: float,
) -> torch.Tensor:
    """Rank cells by how near their types are in the ontology.

    For each cell i and each level l that occurs between i and the batch: positives are the cells
    whose level to i is at least l (i itself among them), negatives those below l that are not
    ancestors of i's type; each positive is set against all negatives by cross-entropy. The mean is
    over all (i, l, positive). Where a level leaves no negative (always so at i's lowest) there is
    nothing to set against and the level is left out.

    Parameters
    ----------
    cells
        (B, d) unit vectors (``ScCelloModel.cell_representation``).
    second_pass
        (B, d) of the same cells under another draw of dropout: a cell's score with itself is
        between the two.
    levels
        (B, B) int: similarity level between the types of cells i and j.
    ancestor_mask
        (B, B) bool: j's type is an ancestor of i's, or the same.
    tau
        Temperature.

    Returns
    -------
    Scalar float32; 0 if no cell has both positives and negatives. Memory grows as B² times the
    number of distinct levels.

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
    cells: torch.Tensor,
    others: torch.Tensor,
    second_pass: torch.Tensor,
    levels: torch.Tensor,
    ancestor_mask: torch.Tensor,
    *,
    tau: float,
    first: int = 0,
) -> LossTerms:
    """Sum :func:`ontology_alignment_loss` over some of the cells, each set against all of them.

    Sums and counts of parts add up to those of the whole, so that each of several processes can take its own cells.

    Parameters
    ----------
    cells
        (b, d) unit vectors of the part.
    others
        (B, d) unit vectors of all cells; those from ``first`` on are ``cells`` again.
    second_pass
        (b, d) of the part under another draw of dropout.
    levels
        (b, B) int: similarity level of the type of cell j to that of cell i.
    ancestor_mask
        (b, B) bool: j's type is an ancestor of i's, or the same.
    tau
        Temperature.
    first
        Place of the part's first cell among all.

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
    # A finite stand-in for minus infinity: a row without negatives must give no NaN, even unused.
    lowest = torch.finfo(scores.dtype).min / 4
    against = scores[:, :, None].masked_fill(~negative, lowest).logsumexp(1)  # (b, n_levels)
    terms = functional.softplus(against[:, None] - scores[:, :, None])  # (b, B, n_levels)
    return LossTerms(terms.masked_fill(~counted, 0).sum(), counted.sum().float())


def coherence_loss(
    cells: torch.Tensor, prototypes: torch.Tensor, targets: torch.Tensor, *, tau: float
) -> LossAndAccuracy:
    """Cross-entropy of each cell's type among all types, by cosine to their prototypes.

    Parameters
    ----------
    cells
        (B, d) unit vectors.
    prototypes
        (n_types, d): the used rows of ``learned_centroid``, of any length.
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
    # rounded to bfloat16, a cosine over a low temperature would be off by a tenth of a nat and more
    with torch.autocast(cells.device.type, enabled=False):
        scores = cells.float() @ functional.normalize(prototypes.float(), dim=-1).T / tau
    accuracy = (scores.argmax(1) == targets).float().mean()
    return LossAndAccuracy(functional.cross_entropy(scores, targets), accuracy)


def prototype_regularization(
    cells: torch.Tensor,
    prototypes: torch.Tensor,
    targets: torch.Tensor,
    *,
    affine: Callable[[torch.Tensor], torch.Tensor],
    tau: float,
) -> torch.Tensor:
    """Mean squared error between each cell and the affine map of its type's prototype.

    Both are taken at length 1 / sqrt(tau), as the published code keeps them.

    Parameters
    ----------
    cells
        (B, d) unit vectors.
    prototypes
        (n_types, d), of any length.
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
