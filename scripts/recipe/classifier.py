"""Classifier on frozen embeddings, tissue prior and decisions, as evaluated by `leave_studies_out.py`. Arrays in, arrays out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from labels.label_space import Targets

    from sccello_tools.ontology import CellOntology

TEMPERATURE = 2.0
"""Divisor of the logits; cells of new studies are less certain than those that the classifier was fitted on."""
UTILITY_OF_F1 = 1.0
"""Weight of hierarchical F1 against recall in the expected utility of a prediction."""
_LEUKOCYTE, _PRECURSOR = "CL:0000738", "CL:0008001"


@dataclass(frozen=True, eq=False)
class Head:
    """Multinomial logistic regression on both representations of a cell."""

    weight: np.ndarray
    """(2 d, n_types)"""
    bias: np.ndarray
    """(n_types,)"""
    mean: np.ndarray
    """(d,) mean of the hidden states of the cells that it was fitted on."""
    std: np.ndarray
    """(d,)"""

    def logits(self, hidden: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Return (n_cells, n_types) logits."""
        return _features(hidden, cell, self.mean, self.std) @ self.weight + self.bias


def _features(hidden: np.ndarray, cell: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:  # fmt: skip
    scaled = (hidden.astype(np.float32) - mean) / std
    return np.hstack([scaled, cell.astype(np.float32) * np.sqrt(cell.shape[1])]).astype(np.float32)


def fit_head(hidden: np.ndarray, cell: np.ndarray, labels: np.ndarray, targets: Targets, *, penalty: float = 2e-4, max_iter: int = 120) -> Head:  # fmt: skip
    """Fit the classifier by L-BFGS with exclusive types.

    A label that is a type of the model counts as exactly this type, so that "fibroblast" does not become one of its subtypes; of a
    broad label any subtype is correct. (The coherence loss of training accepts subtypes of every label.)

    Parameters
    ----------
    hidden, cell
        (n_cells, d) representations.
    labels
        (n_cells,) index of each cell's label.
    targets
        What labels say about types.
    penalty
        Weight of the squared norm of the weights.
    max_iter
        Iterations of L-BFGS.
    """
    mean, std = hidden.mean(0, dtype=np.float32), np.maximum(hidden.std(0, dtype=np.float32), 1e-3)
    x = torch.from_numpy(_features(hidden, cell, mean, std))
    right = targets.exact()
    # a broad label's ancestors are neither correct nor incorrect; those of the other labels are incorrect
    special = targets.correct.sum(1) != 0
    special &= (right != _own(targets)).any(1) | np.array(
        ["|" in label for label in targets.labels]
    )
    wrong_or_right = ~(targets.ignored & special[:, None])
    not_right = torch.from_numpy(~right[labels])
    not_counted = torch.from_numpy(~(wrong_or_right | right)[labels])
    weight = torch.zeros(x.shape[1], right.shape[1], requires_grad=True)
    bias = torch.zeros(right.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iter, history_size=10, line_search_fn="strong_wolfe", tolerance_change=1e-6)  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        z = x @ weight + bias
        every = z.masked_fill(not_counted, -1e4).logsumexp(1)
        loss = (every - z.masked_fill(not_right, -1e4).logsumexp(1)).mean()
        loss = loss + penalty * (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return Head(weight.detach().numpy(), bias.detach().numpy(), mean, std)


def _own(targets: Targets) -> np.ndarray:
    return np.array([[t == label.split("|")[0] for t in targets.types] for label in targets.labels])


def probabilities(logits: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """Return the softmax of logits over a temperature."""
    z = logits.astype(float) / temperature
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def utilities(types: Sequence[str], ontology: CellOntology, *, weight_f1: float = UTILITY_OF_F1) -> np.ndarray:  # fmt: skip
    """Return (n_true, n_predicted): 1 if the prediction is the true type or a subtype, plus weighted hierarchical F1.

    The prediction with the highest expected utility is ``(probabilities @ utilities).argmax(1)``.
    """
    up = [ontology.ancestors(t, include_self=True) for t in types]
    recall = np.array([[t in above for above in up] for t in types], dtype=float)
    f1 = np.array([[2 * len(a & b) / (len(a) + len(b)) for b in up] for a in up])
    return recall + weight_f1 * f1


# Organ of a tissue's name; the first pattern that is found.
_ORGANS = (
    ("bone marrow", r"bone marrow|CD34|Haematopoietic Stem|Lympho Myeloid"),
    ("blood", r"blood|immunecensus|Monocyte_Villani"),
    ("brain", r"brain|cerebell|cerebrum|cortex|temporal lobe|telencephalon|hippocampus|visual"),
    ("pancreas", r"pancreas|islet"),
    ("kidney", r"kidney|ureter"),
    ("lung", r"lung|trachea|bronch|airway|pleura"),
    ("intestine", r"intestin|ileum|jejunum|duodenum|colon|rectum|epityphlon"),
    ("stomach", r"stomach"),
    ("esophagus", r"esophagus"),
    ("liver", r"liver"),
    ("gallbladder", r"gall bladder"),
    ("adrenal gland", r"adrenal"),
    ("heart", r"heart|artery|cardiomyocyte"),
    ("muscle", r"muscle|diaphragm"),
    ("skin", r"skin|keratinocyte"),
    ("bone", r"\brib\b|calvaria"),
    ("thymus", r"thymus"),
    ("spleen", r"spleen"),
    ("lymphoid tissue", r"lymphoid tissue|lymph node"),
    ("thyroid", r"thyroid"),
    ("placenta", r"placenta|chorionic|decidua|umbilical|^Cord$"),
    ("uterus", r"uterus|cervix|fallopian"),
    ("ovary", r"ovary|female gonad"),
    ("testis", r"testis|male gonad|spermatogon"),
    ("gonad", r"gonad"),
    ("prostate", r"prostate"),
    ("bladder", r"bladder"),
    ("breast", r"breast"),
    ("adipose tissue", r"adipose|omentum"),
    ("eye", r"eye|retina"),
)


def organ_of(tissue: str, author_label: str = "") -> str:
    """Return the organ of a tissue, "" if it is none of the table; clusters of unknown tissue name it in their label."""
    text = author_label if tissue == "unknown" else tissue
    return next(
        (organ for organ, pattern in _ORGANS if re.search(pattern, text, re.IGNORECASE)), ""
    )


def recorded_types(table: pd.DataFrame, types: Sequence[str], ontology: CellOntology) -> tuple[list[str], np.ndarray]:  # fmt: skip
    """Return organs, and whether a type or a subtype of it was recorded in each, (n_organs, n_types) bool.

    Leukocytes of blood count as recorded everywhere, because many sources label immune cells of tissues coarsely.

    Parameters
    ----------
    table
        Label map: of profiles, and of cells that may be known.
    types
        Types of the model.
    ontology
        Cell Ontology.
    """
    mapped = table[(table.decision == "map") & ((table.kind == "profile") | (table.n >= 5))]
    organs = [organ_of(t, a) for t, a in zip(mapped.tissue, mapped.author_label, strict=True)]
    pairs = {(organ, term) for organ, term in zip(organs, mapped.cl_id, strict=True) if organ}
    names = sorted({organ for organ, _ in pairs})
    found = np.zeros((len(names), len(types)), bool)
    up = {term: ontology.ancestors(term, include_self=True) for _, term in pairs}
    for organ, term in pairs:
        found[names.index(organ)] |= np.array([t in up[term] for t in types])
    above = [ontology.ancestors(t, include_self=True) for t in types]
    circulating = np.array([_LEUKOCYTE in a and _PRECURSOR not in a for a in above])
    return names, found | (found[names.index("blood")] & circulating)


def tissue_weights(recorded: np.ndarray, *, floor: float = 0.05, slope: float = 2.0) -> np.ndarray:
    """Return (n_organs, n_types) factors on the probabilities of types.

    1 for recorded types; otherwise the more organs have a type, the less its absence from one organ's records means.
    """
    return np.where(recorded, 1.0, np.minimum(1.0, floor + slope * recorded.mean(0)))


def adjust_to_tissue(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Multiply probabilities by factors of types, (n_types,), and normalise."""
    adjusted = probs * weights
    return adjusted / np.maximum(adjusted.sum(1, keepdims=True), 1e-30)
