"""The cell types that the published model was trained on."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

LABEL_SPACE: Final = "sccello_zeroshot_labels.tsv"


@cache
def published_labels() -> tuple[str, ...]:
    """Cell Ontology ids by label index of the published checkpoint ``scCello-zeroshot`` (arXiv 2408.12373).

    The ids are as published; some are obsolete by now, and a few of those have the same successor: see :meth:`CellOntology.current`.

    Returns
    -------
    398 ids.

    Examples
    --------
    >>> from sccello_tools.ontology import published_labels
    >>> len(published_labels()), published_labels()[0]
    (398, 'CL:0002320')
    """
    text = files("sccello_tools.resources").joinpath(LABEL_SPACE).read_text(encoding="utf-8")
    return tuple(line.split("\t")[1] for line in text.splitlines()[1:])
