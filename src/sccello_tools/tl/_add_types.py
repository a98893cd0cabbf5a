"""Known types of a user's own for a model, without training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sccello_tools._anndata.counts import CountsSource
from sccello_tools._anndata.terms import type_column
from sccello_tools._docs import shared_docs
from sccello_tools.errors import LabelError, OutputExistsError
from sccello_tools.models import LoadedModel, load
from sccello_tools.ontology import CellOntology

from ._hidden_states import hidden_states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.tokens.counts import CountsPolicy


@shared_docs
def add_types(
    adata: AnnData,
    label_key: str,
    *,
    out: str | Path,
    model: str | Path | LoadedModel = "sccello-small",
    parents: Mapping[str, str] | None = None,
    use_rep: str | None = None,
    layer: str | None = None,
    gene_ids: str | None = None,
    counts: CountsPolicy = "check",
    min_matched: int = 500,
    device: str = "auto",
    ontology: CellOntology | None = None,
    seed: int = 0,
) -> LoadedModel:
    """Teach a model new known types from a few cells of each; its network stays as it is, and takes seconds.

    The new model is written to a folder of its own, with the same weights; :func:`annotate_novel` then knows the new types like
    those that it was trained on.

    What the new cells share beside their type is learnt with it. If they are the model's only cells of their study or technique, other
    types of that study look like the new one, too: in tutorial 6 most D cells of a new study are called PP after PP cells of it were added.
    It may help to give cells of the neighbouring types of that study as well, under names of your own; with many labels, use :func:`annotate` with a reference.

    Parameters
    ----------
    adata
        Cells of the new types, five or more of each, with raw counts; their embedding is written to ``adata.obsm["X_sccello"]``
        if it is not there.
    label_key
        Column of ``adata.obs`` with the types: Cell Ontology ids, names that fit one, or any names. Cells without one are left aside.
    out
        Folder for the new model; it must be empty or not there.
    model
        %(model)s It needs annotation statistics.
    parents
        Term (id or name) that each name of your own belongs under, so that back-off can climb from it.
    use_rep
        Key of ``adata.obsm`` with an embedding that :func:`embed` made with this model.
    layer
        %(layer)s
    gene_ids
        %(gene_ids)s
    counts
        %(counts)s
    min_matched
        %(min_matched)s
    device
        %(device)s
    ontology
        The Cell Ontology; the shipped release if not given.
    seed
        Of the sample that is kept to tell novel cells by.

    Returns
    -------
    The new model. The thresholds of confidence and novelty are those of the old one: :func:`calibrate` measures them anew.

    Raises
    ------
    LabelError
        If a type is known already, has fewer than five cells, or its parent is no term.
    FileExistsError
        If ``out`` holds something.
    WeightsError
        If the model has no annotation statistics.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()
    >>> adata = adata[adata.obs["cell_type"] == "type B pancreatic cell"][:40].copy()
    >>> adata.obs["mine"] = "my beta cell"
    >>> model = sccello.tl.add_types(
    ...     adata, "mine", out=tempfile.mkdtemp(), parents={"my beta cell": "type B pancreatic cell"}
    ... )
    >>> sccello.tl.annotate_novel(adata, model=model)
    >>> adata.obs["sccello_cell_type"].value_counts().index[0]
    'my beta cell'
    """
    import torch

    from sccello_tools.annotation import KnownCells, resolve_candidates, statistics_of
    from sccello_tools.annotation import add_types as learn

    out = Path(out)
    if out.exists() and any(out.iterdir()):
        msg = f"{out} is not empty. Name a new folder for the new model."
        raise OutputExistsError(msg)
    ontology = ontology or CellOntology.load()
    column = type_column(adata, label_key, ontology, any_names=True)
    if strange := sorted(set(parents or {}) - set(column.names)):
        msg = f"parents names {strange[0]!r}, which is no label of adata.obs[{label_key!r}] ({', '.join(column.names[:8]) or 'none'}). Name labels of that column in parents=, or leave parents out."
        raise LabelError(msg)
    under = {
        name: resolve_candidates([term], ontology)[0] for name, term in (parents or {}).items()
    }
    # a name that is given a parent is a type of its own, even if it also fits a term
    types = [
        name if name in under or not term else term
        for name, term in zip(column.names, column.terms)
    ]
    loaded = model if isinstance(model, LoadedModel) else load(model, device=device)
    known = statistics_of(loaded)
    source = CountsSource(layer, gene_ids, counts, min_matched)
    states = hidden_states(adata, loaded, source, use_rep=use_rep, device=device)
    rows = np.flatnonzero((column.codes >= 0) & np.isfinite(states.hidden).all(axis=1))

    def cell_representation(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(hidden)).to(loaded.device)
            found: NDArray[np.float32] = loaded.network.cell_representation(given).cpu().numpy()
        return found

    learnt = learn(
        known,
        KnownCells(
            states.hidden[rows],
            cell_representation(states.hidden[rows]),
            np.array(types)[column.codes[rows]],
            np.full(len(rows), ""),
        ),
        parents=under,
        cell_representation=cell_representation,
        seed=seed,
    )
    shutil.copytree(loaded.folder, out, dirs_exist_ok=True)
    learnt.save(out)
    return load(out, device=device)
