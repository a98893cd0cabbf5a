"""Labelled cells of a user's own, to look up the nearest of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools.errors import ConfigError, LabelError, OutputExistsError, WeightsError

from .backoff import Lineages
from .folds import deal_folds
from .head import LinearHead, softmax
from .reference_parts import ReferencePart, merge_nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sccello_tools.ontology import CellOntology

_FILE = "reference.json"
_FORMAT = 1
_N_JUDGED = 3_000  # cells that are left out in turn to calibrate: quantiles are good to a percent
_SMOOTHING = 0.5  # votes shared among all labels, so that no probability is 0


@dataclass(frozen=True, eq=False)
class Reference:
    """An index of labelled cells under one model, to annotate others by. Make it with :func:`sccello_tools.tl.build_reference`.

    Cells are kept in parts, one for each time the reference was extended; a saved reference loads a part only while it is
    searched, so it may be larger than memory.
    """

    labels: tuple[str, ...]
    """Names of the cell types, as the user gave them."""
    terms: tuple[str, ...]
    """Cell Ontology id of each label; "" where it has none."""
    parts: tuple[ReferencePart, ...]
    model: str
    """Name of the model that embedded the cells."""
    weights_sha256: str
    """Hash of its weights: only embeddings by the same weights can be compared."""
    n_neighbors: int = 15
    temperature: float = 1.0
    conformal_scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Ascending: how sure a wrong answer was, for cells that were left out in turn."""

    def __len__(self) -> int:
        """Cells in the reference."""
        return sum(len(part) for part in self.parts)

    def __repr__(self) -> str:
        return f"Reference({len(self):,} cells, {len(self.labels)} labels, {len(self.parts)} parts, model {self.model!r})"

    @classmethod
    def of(
        cls,
        points: NDArray[np.float32],
        labels: NDArray[np.str_],
        terms: dict[str, str],
        *,
        model: str,
        weights_sha256: str,
        ontology: CellOntology,
        groups: NDArray[np.str_] | None = None,
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> Reference:
        """Index embedded cells, and measure on cells left out in turn how sure to be.

        Parameters
        ----------
        points
            (n_cells, d) of ``representation="cls"``; rows with NaN are left out.
        labels
            (n_cells,) names; "" are left out.
        terms
            Cell Ontology id of each label that has one.
        model, weights_sha256
            What embedded the cells.
        ontology
            For what labels have in common.
        groups
            (n_cells,) donors: cells of one donor are left out together.
        n_neighbors
            Nearest cells that vote.
        seed
            Of what is left out.

        Raises
        ------
        LabelError
            If there are fewer than two labels.
        """
        usable = np.isfinite(points).all(axis=1) & (labels != "")
        points, labels = points[usable], labels[usable]
        names = tuple(np.unique(labels).tolist())
        if len(names) < 2:
            msg = f"A reference needs cells of at least two cell types, found {list(names)}. Pass more cells, or check label_key."
            raise LabelError(msg)
        codes = np.searchsorted(np.array(names), labels)
        made = cls(
            names,
            tuple(terms.get(name, "") for name in names),
            (ReferencePart.of(points, codes),),
            model,
            weights_sha256,
            min(n_neighbors, len(points) - 1),
        )
        kept_groups = None if groups is None else groups[usable]
        return made._calibrated(points, codes, kept_groups, ontology, seed)

    @property
    def types(self) -> tuple[str, ...]:
        """What each label is called where types are compared: its term if no other label has that, else the label."""
        return tuple(
            term if term and self.terms.count(term) == 1 else label
            for term, label in zip(self.terms, self.labels)
        )

    @property
    def parents(self) -> dict[str, str]:
        """Term of each of :attr:`types` that is not itself one."""
        return {kind: term for kind, term in zip(self.types, self.terms) if term and kind != term}

    def lineages(self, ontology: CellOntology) -> Lineages:
        """Return what the types have in common."""
        return Lineages.of(self.types, ontology, parents=self.parents)

    def probabilities(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Let the nearest reference cells vote.

        Parameters
        ----------
        points
            (n_cells, d); rows with NaN give NaN.

        Returns
        -------
        (n_cells, n_labels) float32, rows sum to 1.
        """
        return softmax(self._log_votes(points, self.parts) / np.float32(self.temperature))

    def extend(self, other: Reference) -> Reference:
        """Return a reference with the cells of both; labels of one name are one type.

        Raises
        ------
        ConfigError
            If the two were embedded by different weights.
        LabelError
            If both have a label of one name, but for different Cell Ontology terms.
        """
        if other.weights_sha256 != self.weights_sha256:
            msg = (
                f"This reference was embedded by {self.model!r} (weights {self.weights_sha256[:12]}…), the other by {other.model!r} "
                f"({other.weights_sha256[:12]}…). Build both with one model."
            )
            raise ConfigError(msg)
        mine = dict(zip(self.labels, self.terms))
        for label, term in zip(other.labels, other.terms):
            if mine.get(label, "") and term and mine[label] != term:
                msg = f"Label {label!r} is {mine[label]} in this reference and {term} in the other. Rename one of them."
                raise LabelError(msg)
            mine[label] = term or mine.get(label, "")
        names = tuple(sorted(mine))
        place = {name: code for code, name in enumerate(names)}
        parts = [
            part.recoded([place[label] for label in source.labels])
            for source in (self, other)
            for part in source.parts
        ]
        # both calibrations were made without the cells of the other: the less sure of the two is kept
        unsure = max(self, other, key=lambda r: r.temperature)
        return replace(
            unsure,
            labels=names,
            terms=tuple(mine[name] for name in names),
            parts=tuple(parts),
            n_neighbors=self.n_neighbors,
        )

    def save(self, folder: str | Path) -> Path:
        """Write the reference into a folder: a safetensors file a part, and one of JSON that says what they are.

        Raises
        ------
        FileExistsError
            If the folder holds something else.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()) and not (folder / _FILE).exists():
            msg = f"{folder} is not empty and holds no reference. Name a new folder."
            raise OutputExistsError(msg)
        folder.mkdir(parents=True, exist_ok=True)
        files = [part.save(folder) for part in self.parts]
        facts = {
            "format": _FORMAT,
            "labels": list(self.labels),
            "terms": list(self.terms),
            "parts": files,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "n_neighbors": self.n_neighbors,
            "temperature": self.temperature,
            "conformal_scores": [round(float(score), 6) for score in self.conformal_scores],
        }
        part = folder / f".{_FILE}.part"
        part.write_text(json.dumps(facts, indent=1))
        part.replace(folder / _FILE)  # last, so that what it names is there
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Reference:
        """Open a saved reference; cells are read when they are searched.

        Raises
        ------
        WeightsError
            If the folder holds no reference, or a damaged one.
        """
        folder = Path(folder)
        try:
            facts = json.loads((folder / _FILE).read_text())
            if facts["format"] != _FORMAT:
                msg = f"{folder} holds a reference of format {facts['format']}, this package reads {_FORMAT}. Build it anew with tl.build_reference."
                raise WeightsError(msg)
            return cls(
                tuple(facts["labels"]),
                tuple(facts["terms"]),
                tuple(ReferencePart.open(folder, name) for name in facts["parts"]),
                str(facts["model"]),
                str(facts["weights_sha256"]),
                int(facts["n_neighbors"]),
                float(facts["temperature"]),
                np.array(facts["conformal_scores"], dtype=np.float32),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, WeightsError):
                raise
            msg = f"{folder} holds no reference that can be read ({error}). Build one with tl.build_reference(...).save(folder)."
            raise WeightsError(msg) from error

    def _log_votes(
        self, points: NDArray[np.float32], parts: Sequence[ReferencePart]
    ) -> NDArray[np.float32]:
        usable = np.isfinite(points).all(axis=1)
        distances, codes = merge_nearest(parts, points[usable], self.n_neighbors)
        # a vote halves with every half of the way to the farthest neighbour, so that no scale has to be set
        scale = np.maximum(distances[:, -1:], 1e-6)
        votes = np.exp2(-2 * distances / scale)
        sums = np.zeros((len(codes), len(self.labels)))
        np.add.at(sums, (np.arange(len(codes))[:, None], codes), votes)
        found = np.full((len(points), len(self.labels)), np.nan, dtype=np.float32)
        found[usable] = np.log(sums + _SMOOTHING / len(self.labels))
        return found

    def _calibrated(
        self,
        points: NDArray[np.float32],
        codes: NDArray[np.intp],
        groups: NDArray[np.str_] | None,
        ontology: CellOntology,
        seed: int,
    ) -> Reference:
        rng = np.random.default_rng(seed)
        fold = deal_folds(np.full(len(codes), "") if groups is None else groups, rng)
        asked = np.sort(rng.permutation(len(codes))[:_N_JUDGED])
        votes, rows = [], []
        for number in range(fold.max() + 1):
            rest, out = np.flatnonzero(fold != number), asked[fold[asked] == number]
            out = out[
                np.isin(codes[out], codes[rest])
            ]  # a type that is nowhere else cannot be told
            if len(out) and len(rest) > self.n_neighbors:
                votes.append(
                    self._log_votes(points[out], [ReferencePart.of(points[rest], codes[rest])])
                )
                rows.append(out)
        if not rows:
            return (
                self  # nothing could be held out: votes stand as they are, and no promise is made
            )
        logits, judged = np.concatenate(votes), np.concatenate(rows)
        width = len(self.labels)
        identity = LinearHead(np.eye(width, dtype=np.float32), np.zeros(width, np.float32))
        right = np.arange(width) == codes[judged][:, None]
        temperature = identity.calibrated(logits, right).temperature
        truth = np.array(self.types)[codes[judged]]
        scores = self.lineages(ontology).least_sure(
            softmax(logits / np.float32(temperature)), truth
        )
        return replace(
            self, temperature=temperature, conformal_scores=np.sort(scores).astype(np.float32)
        )
