"""What the demo draws, without a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd

from sccello_tools import pl
from sccello_tools.metrics import open_set_auroc
from sccello_tools.ontology import CellOntology

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from sccello_tools.metrics import ClusteringScore

_STUDY = "pancreas cells of Tritschler et al. (2022), a study that the model never saw"
_SEEN, _UNSEEN = "#8fb0cc", "#c2571a"
_FEWEST = 5  # cells of a type that a line is drawn of


def draw_embeddings(
    adata: AnnData, names: Mapping[str, str], scores: Mapping[str, ClusteringScore], out: Path
) -> list[Path]:
    """Draw the UMAP of each embedding and a table of their scores."""
    titles = {
        key: f"{name}\nNMI {scores[name].nmi:.2f}   ARI {scores[name].ari:.2f}   ASW {scores[name].asw:.2f}"
        for key, name in names.items()
    }
    paths = [out / "pancreas_umap.png", out / "pancreas_quality.png"]
    with mpl.rc_context({"backend": "agg"}):
        from matplotlib import pyplot as plt

        figure = pl.compare_embeddings(
            adata, list(names), color="cell_type", titles=titles, show=False, return_fig=True
        )
        if figure is not None:  # it is: return_fig asks for it
            figure.suptitle(f"{adata.n_obs} {_STUDY}", fontsize=11)
            figure.savefig(paths[0], dpi=150)
            plt.close(figure)
        table = pd.DataFrame.from_dict(
            {name: score._asdict() for name, score in scores.items()}, orient="index"
        )
        pl.embedding_quality(table, save=paths[1], show=False)
    return paths


def draw_annotation(adata: AnnData, out: Path, *, unseen: str) -> list[Path]:
    """Draw terms on the UMAP, true against predicted types, and how new the cells of a type are that no training cell had."""
    paths = [out / f"pancreas_{name}.png" for name in ("ontology_umap", "confusion", "novelty")]
    with mpl.rc_context({"backend": "agg"}):
        from matplotlib import pyplot as plt

        title = f"What sccello says of {adata.n_obs} pancreas cells"
        pl.ontology_umap(adata, label="tree", title=title, save=paths[0], show=False)
        pl.confusion(adata, "cell_type", save=paths[1], show=False)
        figure, ax = plt.subplots(figsize=(7.6, 3.6), layout="constrained")
        _novelty(ax, adata, unseen)
        figure.savefig(paths[2], dpi=200)
        plt.close(figure)
    return paths


def _novelty(ax: Axes, adata: AnnData, unseen: str) -> None:
    """Novelty by true type, the unseen one in a colour of its own."""
    novelty = np.asarray(adata.obs["sccello_novelty"], dtype=float)
    truth = np.array(adata.obs["cell_type_ontology_term_id"].astype(str), dtype=str)
    rng = np.random.default_rng(0)
    terms = [term for term in np.unique(truth) if (truth == term).sum() >= _FEWEST]
    terms.sort(key=lambda term: float(np.median(novelty[truth == term])))
    ontology = CellOntology.load()
    for row, term in enumerate(terms):
        own: NDArray[np.floating] = novelty[truth == term]
        colour = _UNSEEN if term == unseen else _SEEN
        # the same jitter for each type, within the height of its row
        ax.scatter(own, row + rng.uniform(-0.28, 0.28, len(own)), s=7, color=colour, linewidths=0)
        ax.plot([np.median(own)] * 2, [row - 0.38, row + 0.38], color="black", lw=2)
    names = [
        f"{ontology.name(term)} ({(truth == term).sum()})" + ("\nnever seen" * (term == unseen))
        for term in terms
    ]
    ax.set_yticks(range(len(terms)), names)
    auroc = open_set_auroc(novelty, truth == unseen)
    ax.set_xlabel("novelty (log2 of usual distance to known cells; bars: medians)")
    ax.set_title(
        f"Novelty by true type; AUROC of the unseen one {auroc:.2f}", loc="left", fontsize=10
    )
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
