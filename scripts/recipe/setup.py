"""Everything that a training run needs, from the data folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from labels.label_space import HELD_OUT, Targets, known_types, labels_of, with_subtypes
from recipe.sampling import Sampler
from recipe.sources import Styles, complete_genes, read_cells, read_profiles

if TYPE_CHECKING:
    from pathlib import Path

    from recipe.sampling import SamplingConfig
    from recipe.sources import Cells, Profiles

    from sccello_tools.ontology import CellOntology

FOLDERS = ("train", "train_more", "release_only")


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Cells and profiles with their labels."""

    cells: Cells
    profiles: Profiles
    """With completed genes."""
    cell_labels: np.ndarray
    """(n_cells,) index of the label."""
    profile_labels: np.ndarray
    targets: Targets
    styles: Styles

    def sampler(self, config: SamplingConfig, *, max_length: int, seed: int) -> Sampler:
        """Return batches of these cells and profiles."""
        return Sampler(self.cells, self.profiles, self.cell_labels, self.profile_labels, self.styles, config, max_length=max_length, seed=seed)  # fmt: skip

    @property
    def taught(self) -> np.ndarray:
        """(n_types,) bool: a label of the training data allows the type."""
        labels = np.unique(np.concatenate([self.cell_labels, self.profile_labels]))
        return self.targets.correct[labels].any(0)


def read_sources(data: Path, ontology: CellOntology, *, twin: bool) -> tuple[Cells, Profiles]:
    """Read what may train the shipped model or its evaluation twin, which lacks the held-out types."""
    cells, profiles = read_cells(data, FOLDERS[:2] if twin else FOLDERS), read_profiles(data)
    left_out = with_subtypes(HELD_OUT, ontology) if twin else set()
    return cells.take(~cells.obs.cl_id.isin(left_out).to_numpy()), profiles.take(~profiles.obs.cl_id.isin(left_out).to_numpy())  # fmt: skip


def prepare(cells: Cells, profiles: Profiles, ontology: CellOntology, *, twin: bool) -> TrainingData:  # fmt: skip
    """Complete genes, derive styles and index the labels; cells and profiles that no known type belongs to are left out."""
    types = known_types(ontology, folders=FOLDERS[:2] if twin else FOLDERS, left_out=HELD_OUT if twin else ())  # fmt: skip
    profiles = complete_genes(profiles, ontology)
    styles = Styles.of(cells, profiles)
    labels = sorted({*labels_of(cells.obs), *profiles.obs.cl_id})
    targets = Targets.of(labels, types, ontology)
    index = {label: i for i, label in enumerate(labels)}
    of_cell = np.array([index[label] for label in labels_of(cells.obs)])
    of_profile = np.array([index[label] for label in profiles.obs.cl_id])
    usable = targets.correct.any(1)
    return TrainingData(
        cells.take(usable[of_cell]), profiles.take(usable[of_profile]), of_cell[usable[of_cell]], of_profile[usable[of_profile]], targets, styles
    )  # fmt: skip
