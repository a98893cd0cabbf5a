"""`pl.embedding_quality`: scores are those of `metrics`, and are drawn where they belong."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from sccello_tools import pl
from sccello_tools.errors import ArgumentError, GroupError, NotFoundError
from sccello_tools.metrics import clustering_score, integration_score


@pytest.fixture(scope="module")
def embedded():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(3), 40)
    adata = anndata.AnnData(np.zeros((120, 1), dtype=np.float32))
    adata.obs["type"] = pd.Categorical.from_codes(codes, ["a", "b", "c"])
    adata.obs["batch"] = pd.Categorical(np.tile(["x", "y"], 60))
    adata.obsm["X_good"] = (np.eye(3)[codes] * 6 + rng.normal(size=(120, 3))).astype(np.float32)
    adata.obsm["X_noise"] = rng.normal(size=(120, 3)).astype(np.float32)
    return adata


def written(figure):
    """Texts in the rows of the table, by row."""
    (ax,) = figure.axes
    rows: dict[int, list] = {}
    for text in ax.texts:
        y = text.get_position()[1]
        if y >= 0:
            rows.setdefault(round(y), []).append(text)
    return {i: [t.get_text() for t in texts] for i, texts in rows.items()}, ax


def test_scores_of_both_embeddings_are_those_of_metrics(embedded):
    figure = pl.embedding_quality(
        embedded,
        {"X_good": "Good", "X_noise": "X_noise"},
        label_key="type",
        batch_key="batch",
        show=False,
    )
    rows, ax = written(figure)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Good", "X_noise"]
    labels, batches = (
        np.array(embedded.obs[key].astype(str), dtype=str) for key in ("type", "batch")
    )
    for i, key in enumerate(("X_good", "X_noise")):
        bio = clustering_score(embedded.obsm[key], labels)
        mixed = integration_score(embedded.obsm[key], labels, batches)
        values = [*bio[:4], *mixed]
        assert rows[i] == [f"{v:.3f}".lstrip("0") if v < 1 else f"{v:.2f}" for v in values]


def test_the_best_of_a_column_is_bold_and_a_missing_score_a_dash():
    table = pd.DataFrame({"nmi": [0.7, 0.9], "avg_batch": [0.3, np.nan]}, index=["A", "B"])
    figure = pl.embedding_quality(table, show=False)
    rows, ax = written(figure)
    assert rows == {0: [".700", ".300"], 1: [".900", "–"]}
    bold = {t.get_text() for t in ax.texts if t.get_fontweight() == "bold"}
    assert bold == {".900", ".300"}


def test_numbers_are_inside_the_figure_and_do_not_overlap():
    table = pd.DataFrame({"nmi": [0.7] * 4, "avg_bio": [0.0, 0.3, 0.6, 1.0]}, index=list("ABCD"))
    figure = pl.embedding_quality(table, show=False)
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    boxes += [t.get_window_extent() for t in figure.axes[0].get_yticklabels()]
    for i, a in enumerate(boxes):
        assert figure.bbox.x0 <= a.x0 < a.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= a.y0 < a.y1 <= figure.bbox.y1
        assert not any(a.overlaps(b) for b in boxes[:i])


def test_cells_without_label_or_embedding_are_omitted_from_all_rows(embedded):
    adata = embedded.copy()
    adata.obsm["X_good"][:10] = np.nan
    adata.obs["type"] = adata.obs["type"].where(np.arange(120) < 110)
    rows, _ = written(
        pl.embedding_quality(adata, ["X_good", "X_noise"], label_key="type", show=False)
    )
    labels = np.array(embedded.obs["type"].astype(str), dtype=str)[10:110]
    nmi = clustering_score(embedded.obsm["X_noise"][10:110], labels).nmi
    assert rows[1][0] == f"{nmi:.3f}".lstrip("0")


def test_rows_of_a_table(scores):
    rows, ax = written(pl.embedding_quality(scores, {"PCA": "Principal components"}, show=False))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Principal components"]
    assert rows[0][0] == ".616"
    rows, ax = written(pl.embedding_quality(scores, ["scCello"], show=False))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["scCello"]


def test_what_cannot_be_scored(embedded):
    with pytest.raises(NotFoundError, match="'X_pca'"):
        pl.embedding_quality(embedded, ["X_pca"], label_key="type", show=False)
    with pytest.raises(GroupError, match="label_key"):
        pl.embedding_quality(embedded, ["X_good"], show=False)
    with pytest.raises(GroupError, match=r"'kind'.*label_key="):
        pl.embedding_quality(embedded, ["X_good"], label_key="kind", show=False)
    with pytest.raises(ArgumentError, match="at least one key"):
        pl.embedding_quality(embedded, label_key="type", show=False)
    with pytest.raises(ArgumentError, match=r"'speed'.*nmi"):
        pl.embedding_quality(pd.DataFrame({"speed": [1]}), show=False)
    assert plt.get_fignums() == []
