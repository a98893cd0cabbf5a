"""Write a model folder that :func:`~sccello_tools.models.load` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools._io import write_text
from sccello_tools.errors import WeightsError

from .labels import CELL_TYPE_COLUMN, ID_COLUMN, read_label_table
from .registry import LABELS_FILE, METADATA_FILE, check_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    import pandas as pd

    from sccello_tools.nn import ScCelloModel


def save(
    network: ScCelloModel,
    folder: str | Path,
    *,
    labels: pd.DataFrame | None = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "float16"] = "float32",
) -> Path:
    """Write a model folder: ``config.json``, ``model.safetensors``, ``labels.tsv``, ``metadata.json``.

    Parameters
    ----------
    network
        The network.
    folder
        Created if it does not exist.
    labels
        Cell types of the first prototypes, in their order: columns ``cell_type_ontology_term_id`` and ``cell_type``.
    metadata
        Description of the model: any of name, description, tissue, ontology_release, licence, licence_note, citation, paper,
        representation, vocabulary {name, sha256} (or vocabulary_sha256), training_data {description, n_cells} (or the number of cells
        by source), results {name: value}, limitations, pretrain_config (of any form).
    dtype
        Precision on disk; ``"float16"`` halves the file size and rounds the weights.

    Returns
    -------
    The folder.

    Raises
    ------
    WeightsError
        If weights are not finite, or labels are not Cell Ontology ids, not unique, or more than the prototypes.
    ManifestError
        If ``metadata`` has unknown or invalid fields.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> from sccello_tools.nn import EncoderConfig, ScCelloModel
    >>> network = ScCelloModel(EncoderConfig(hidden_size=8, n_layers=1, n_heads=1))
    >>> folder = sccello.models.save(network, tempfile.mkdtemp(), metadata={"name": "tiny"})
    >>> sccello.models.load(folder, device="cpu").name
    'tiny'
    """
    from sccello_tools.nn import save_checkpoint

    folder = Path(folder)
    n_labels = 0 if labels is None else len(labels)
    if n_labels > network.config.n_prototypes:
        msg = f"{n_labels} labels for {network.config.n_prototypes} prototypes; there must be a prototype for each label. Create the network with a larger n_prototypes."
        raise WeightsError(msg)
    described = _normalised(metadata or {})
    if labels is not None:
        described.setdefault("label_space", {"name": "own", "n_labels": n_labels})
    check_metadata(described, "metadata")
    table = None if labels is None else _label_table(labels)
    # everything is validated before anything is written
    save_checkpoint(network, folder, dtype=dtype)
    write_text(folder / METADATA_FILE, json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    if table is None:
        (folder / LABELS_FILE).unlink(missing_ok=True)
    else:
        write_text(folder / LABELS_FILE, table)
    return folder


def _normalised(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Expand the short forms that :func:`save` accepts."""
    described = dict(metadata)
    if sha256 := described.pop("vocabulary_sha256", None):
        described["vocabulary"] = {"name": "sccello-25424", "sha256": sha256}
    cells = described.get("training_data")
    if isinstance(cells, dict) and cells and "description" not in cells:
        sources = ", ".join(f"{source} ({n:,} cells)" for source, n in cells.items())
        described["training_data"] = {"description": sources, "n_cells": sum(cells.values())}
    return described


def _label_table(labels: pd.DataFrame) -> str:
    if missing := [c for c in (ID_COLUMN, CELL_TYPE_COLUMN) if c not in labels.columns]:
        msg = f"labels lacks the columns {missing}; found {list(labels.columns)}."
        raise WeightsError(msg)
    table = labels[[ID_COLUMN, CELL_TYPE_COLUMN]].reset_index(drop=True)
    text: str = table.to_csv(sep="\t", index_label="index", lineterminator="\n")
    read_label_table(text.splitlines(), where="labels")
    return text
