"""Measure what annotation needs to know of the bundled model: prototypes, head, reference cells, calibration.

    python scripts/calibrate_bundled_model.py --data ../shared/data

Reads `cells/train/` (and the synthetic cells that the model was trained on) only. The encoder has seen every donor of these
cells, so donors held out here are easier than new ones; the cells that calibration asks about are therefore thinned: each keeps
a random share of its counts, between a fifth and four fifths. Synthetic cells teach the head, but are neither asked about nor kept
as reference: novelty is the distance to measured cells.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
from ablation import SYNTHETIC, training_cells
from scipy import sparse

import sccello_tools as sccello
from sccello_tools._anndata.counts import CountsSource
from sccello_tools.annotation import KnownCells, calibrate
from sccello_tools.models.registry import update_entry
from sccello_tools.tl._hidden_states import hidden_states

RESOURCES = Path(sccello.__file__).parent / "resources"
LABEL = "cell_type_ontology_term_id"


def thinned(adata: ad.AnnData, *, seed: int) -> ad.AnnData:
    """Keep each count with a chance that is drawn once a cell."""
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(adata.X)
    kept = np.repeat(rng.uniform(0.2, 0.8, counts.shape[0]), np.diff(counts.indptr))
    counts.data = rng.binomial(counts.data.astype(np.int64), kept).astype(np.float32)
    counts.eliminate_zeros()
    return ad.AnnData(counts, obs=adata.obs.copy(), var=adata.var.copy())


def groups_of(adata: ad.AnnData, source: str) -> np.ndarray:
    """Donor of each cell; of synthetic cells, one of three made-up ones.

    The sorted fractions of the Zheng cells are recorded as donors, but are types: they stay together.
    """
    if source == SYNTHETIC:
        return np.array([f"{source} {row % 3}" for row in range(adata.n_obs)])
    if source == "zheng_facs":
        return np.full(adata.n_obs, source)
    return np.array([f"{source} {donor}" for donor in adata.obs["donor"].astype(str)])


def embedded(sources: dict[str, ad.AnnData], model: sccello.models.LoadedModel) -> KnownCells:
    """Embed all cells of all sources."""
    ontology = sccello.ontology.CellOntology.load()
    parts = []
    for source, adata in sources.items():
        states = hidden_states(adata, model, CountsSource(), use_rep=None)
        types = [ontology.current(term) for term in adata.obs[LABEL].astype(str)]
        parts.append(
            (states.hidden, states.cells(slice(None)), np.array(types), groups_of(adata, source))
        )
    return KnownCells(*(np.concatenate(columns) for columns in zip(*parts)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with cells/train")
    parser.add_argument("--model", type=Path, default=RESOURCES / "models" / "sccello-small")
    parser.add_argument("--synthetic-each", type=int, default=20)
    parser.add_argument(
        "--reference", type=int, default=120, help="most cells of a type that are kept as reference"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    sccello.settings.verbosity = "info"
    model = sccello.models.load(args.model, device="cpu")
    sources = training_cells(args.data, synthetic_each=args.synthetic_each, seed=args.seed)
    for adata in sources.values():
        adata.obs_names_make_unique()
    poorer = {name: thinned(adata, seed=args.seed) for name, adata in sources.items()}
    found = calibrate(
        embedded(sources, model),
        sccello.ontology.CellOntology.load(),
        weights_sha256=model.sha256,
        held_out=embedded(poorer, model),
        measured=np.concatenate(
            [np.full(adata.n_obs, name != SYNTHETIC) for name, adata in sources.items()]
        ),
        n_reference=args.reference,
        seed=args.seed,
    )
    path = found.save(args.model)
    if args.model.parent == RESOURCES / "models":
        update_entry(args.model.name, args.model)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(found.types)} types, temperature {found.head.temperature:.2f}, "
        f"zero-shot temperature {found.zero_shot_temperature:.2f}"
    )


if __name__ == "__main__":
    main()
