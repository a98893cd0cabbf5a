"""An index of labelled reference cells, for label transfer by nearest neighbours."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._io import check_output, write_json
from sccello_tools.errors import ConfigError, LabelError, OutputExistsError, WeightsError

from .backoff import Lineages
from .folds import assign_folds
from .head import fit_temperature, softmax
from .reference_parts import ReferencePart, annotation_of, search_parts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sccello_tools._random import RNGLike
    from sccello_tools.ontology import CellOntology

    from .reference_parts import Neighbors

_FILE = "reference.json"
_FORMAT = 2
# held-out cells used for calibration; enough for quantiles to within one per cent
_N_CALIBRATION = 3_000
_SMOOTHING = 0.5  # pseudo-votes distributed over all labels, so that no probability is 0


@dataclass(frozen=True, eq=False)
class Reference:
    """An index of embedded, labelled cells for label transfer; see :func:`sccello_tools.tl.build_reference`.

    Cells are stored in parts, one per extension. A saved reference loads each part only while it is searched, so it can be larger
    than memory.
    """

    labels: tuple[str, ...]
    """Cell type labels as given by the user."""
    terms: tuple[str, ...]
    """Cell Ontology id of each label; "" where it has none."""
    parts: tuple[ReferencePart, ...]
    model: str
    """Name of the model that embedded the cells."""
    weights_sha256: str
    """sha256 of its weights; only embeddings computed with the same weights are comparable."""
    n_neighbors: int = 15
    temperature: float = 1.0
    conformal_scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Conformal scores of held-out reference cells, ascending; see :meth:`Lineages.conformal_scores`."""

    def __len__(self) -> int:
        """Return the number of cells."""
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
        table: pd.DataFrame | None = None,
        n_neighbors: int = 15,
        rng: RNGLike = 0,
    ) -> Reference:
        """Index embedded cells and calibrate the votes on held-out cells.

        Parameters
        ----------
        points
            (n_cells, d), ``representation="cls"``; rows with NaN are ignored.
        labels
            (n_cells,) labels; cells with "" are ignored.
        terms
            Cell Ontology id of each label that has one.
        model, weights_sha256
            The model that embedded the cells.
        ontology
            Cell Ontology, for the common ancestors of labels.
        groups
            (n_cells,) donors; cells of one donor are held out together.
        table
            Name and columns of each cell, from :func:`~sccello_tools.annotation.reference_parts.cell_table`.
        n_neighbors
            Number of neighbours that vote.
        rng
            Seed or generator of the folds.

        Raises
        ------
        LabelError
            If there are fewer than two labels.
        """
        usable = np.isfinite(points).all(axis=1) & (labels != "")
        names = tuple(np.unique(labels[usable]).tolist())
        if len(names) < 2:
            msg = f"A reference needs at least two cell types, got {list(names)}. Pass more cells or check label_key."
            raise LabelError(msg)
        codes = np.where(usable, np.searchsorted(np.array(names), labels), -1)
        made = cls(
            names,
            tuple(terms.get(name, "") for name in names),
            (ReferencePart.of(points, codes, table=table),),
            model,
            weights_sha256,
            min(n_neighbors, int(usable.sum()) - 1),
        )
        groups = None if groups is None else groups[usable]
        rng = np.random.default_rng(rng)
        return made._calibrated(points[usable], codes[usable], groups, ontology, rng)

    @property
    def types(self) -> tuple[str, ...]:
        """Type of each label: its Cell Ontology id if no other label has the same id, else the label itself."""
        return tuple(
            term if term and self.terms.count(term) == 1 else label
            for term, label in zip(self.terms, self.labels)
        )

    @property
    def parents(self) -> dict[str, str]:
        """Cell Ontology id of each of :attr:`types` that is not an id itself."""
        return {name: term for name, term in zip(self.types, self.terms) if term and name != term}

    def lineages(self, ontology: CellOntology) -> Lineages:
        """Return the types with their ancestors."""
        return Lineages.of(self.types, ontology, parents=self.parents)

    def probabilities(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return label probabilities from a distance-weighted vote of the nearest reference cells.

        Parameters
        ----------
        points
            (n_cells, d); rows with NaN give NaN.

        Returns
        -------
        (n_cells, n_labels) float32, rows sum to 1.
        """
        return self.vote(self.search(points))

    def search(self, points: NDArray[np.float32], n_neighbors: int | None = None) -> Neighbors:
        """Return the nearest reference cells.

        Indices count the rows of the AnnData objects that the reference was built from, in order.

        Parameters
        ----------
        points
            (n_cells, d); rows with NaN have no neighbours.
        n_neighbors
            Number of neighbours; by default those that vote.
        """
        return search_parts(self.parts, points, n_neighbors or self.n_neighbors)

    def vote(self, neighbors: Neighbors) -> NDArray[np.float32]:
        """Return label probabilities from the votes of neighbours, see :meth:`probabilities`.

        Parameters
        ----------
        neighbors
            Result of :meth:`search` with the default number of neighbours.
        """
        return softmax(self._log_votes(neighbors) / np.float32(self.temperature))

    def annotation(self, indices: NDArray[np.int64]) -> pd.DataFrame:
        """Return name and stored columns of reference cells, one row per distinct index, which is the row's label.

        Parameters
        ----------
        indices
            Indices of :meth:`search`; -1 is ignored.
        """
        return annotation_of(self.parts, indices)

    def extend(self, other: Reference) -> Reference:
        """Return a reference with the cells of both; equal labels are merged.

        Raises
        ------
        ConfigError
            If the two were embedded by different weights.
        LabelError
            If a label has different Cell Ontology ids in the two references.
        """
        if other.weights_sha256 != self.weights_sha256:
            msg = (
                f"This reference was embedded with {self.model!r} (weights {self.weights_sha256[:12]}…), the other with {other.model!r} "
                f"({other.weights_sha256[:12]}…). Build both with the same model."
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
        # neither calibration covers the cells of the other reference: keep the more conservative one
        conservative = max(self, other, key=lambda r: r.temperature)
        return replace(
            conservative,
            labels=names,
            terms=tuple(mine[name] for name in names),
            parts=tuple(parts),
            n_neighbors=self.n_neighbors,
        )

    def save(self, folder: str | Path) -> Path:
        """Write the reference into a folder: one safetensors file per part and a JSON file that lists them.

        Raises
        ------
        OutputExistsError
            If ``folder`` is a file, or a folder with other content.
        OutputError
            If the folder cannot be written to.
        """
        folder = Path(folder)
        check_output(folder)
        if any(folder.iterdir()) and not (folder / _FILE).exists():
            msg = f"{folder} is not empty and does not contain a reference. Pass a new folder."
            raise OutputExistsError(msg)
        files = [part.save(folder) for part in self.parts]
        metadata = {
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
        write_json(folder / _FILE, metadata)  # last, so that the files it lists exist
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Reference:
        """Open a saved reference; cells are read when they are searched.

        Raises
        ------
        WeightsError
            If the folder does not contain a readable reference.
        """
        folder = Path(folder)
        try:
            metadata = json.loads((folder / _FILE).read_text())
            if metadata["format"] != _FORMAT:
                msg = f"{folder} holds a reference of format {metadata['format']}, this package reads {_FORMAT}. Re-run tl.build_reference."
                raise WeightsError(msg)
            return cls(
                tuple(metadata["labels"]),
                tuple(metadata["terms"]),
                tuple(ReferencePart.open(folder, name) for name in metadata["parts"]),
                str(metadata["model"]),
                str(metadata["weights_sha256"]),
                int(metadata["n_neighbors"]),
                float(metadata["temperature"]),
                np.array(metadata["conformal_scores"], dtype=np.float32),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, WeightsError):
                raise
            msg = f"{folder} does not contain a readable reference ({error}). Create one with tl.build_reference(...).save(folder)."
            raise WeightsError(msg) from error

    def _log_votes(self, neighbors: Neighbors) -> NDArray[np.float32]:
        usable = neighbors.codes[:, 0] >= 0
        distances, codes = neighbors.distances[usable], neighbors.codes[usable]
        # the weight halves with every half of the distance to the farthest neighbour, so no scale parameter is needed
        scale = np.maximum(distances[:, -1:], 1e-6)
        votes = np.exp2(-2 * distances / scale)
        sums = np.zeros((len(codes), len(self.labels)))
        np.add.at(sums, (np.arange(len(codes))[:, None], codes), votes)
        found = np.full((len(usable), len(self.labels)), np.nan, dtype=np.float32)
        found[usable] = np.log(sums + _SMOOTHING / len(self.labels))
        return found

    def _calibrated(
        self,
        points: NDArray[np.float32],
        codes: NDArray[np.intp],
        groups: NDArray[np.str_] | None,
        ontology: CellOntology,
        rng: np.random.Generator,
    ) -> Reference:
        fold = assign_folds(np.full(len(codes), "") if groups is None else groups, rng)
        sample = np.sort(rng.permutation(len(codes))[:_N_CALIBRATION])
        votes, rows = [], []
        for number in range(fold.max() + 1):
            rest, out = np.flatnonzero(fold != number), sample[fold[sample] == number]
            # a type without other cells cannot be predicted
            out = out[np.isin(codes[out], codes[rest])]
            if len(out) and len(rest) > self.n_neighbors:
                part = ReferencePart.of(points[rest], codes[rest])
                votes.append(self._log_votes(search_parts([part], points[out], self.n_neighbors)))
                rows.append(out)
        if not rows:
            return self  # no cells could be held out: votes remain uncalibrated
        logits, held_out = np.concatenate(votes), np.concatenate(rows)
        correct = np.arange(len(self.labels)) == codes[held_out][:, None]
        temperature = fit_temperature(logits, correct)
        truth = np.array(self.types)[codes[held_out]]
        scores = self.lineages(ontology).conformal_scores(
            softmax(logits / np.float32(temperature)), truth
        )
        return replace(
            self, temperature=temperature, conformal_scores=np.sort(scores).astype(np.float32)
        )
