"""Human genes that CELLxGENE accepts."""

from __future__ import annotations

import gzip
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from numpy.typing import NDArray

RELEASE: Final = "GENCODE 48"
"""Annotation that the schema refers to."""

_ID: Final = re.compile(r"ENSG(\d{11})(?:\.\d+)?", re.IGNORECASE)


@cache
def _numbers() -> frozenset[int]:
    resource = files("sccello_tools.resources").joinpath("gencode_human_48.txt.gz")
    steps = np.array(gzip.decompress(resource.read_bytes()).split(), dtype=np.int64)
    return frozenset(np.cumsum(steps).tolist())


def accepted_ids(names: Sequence[str]) -> NDArray[np.str_]:
    """Return unversioned Ensembl IDs, "" for names that are not IDs of genes in :data:`RELEASE`.

    Parameters
    ----------
    names
        Ensembl IDs with or without version, or other names.

    Examples
    --------
    >>> from sccello_tools.export.gencode import accepted_ids
    >>> accepted_ids(["ENSG00000105374.10", "NKG7", "ENSG00000005955"]).tolist()  # the last one is retired
    ['ENSG00000105374', '', '']
    """
    known = _numbers()
    found = [_ID.fullmatch(name) for name in names]
    texts = [f"ENSG{m[1]}" if m is not None and int(m[1]) in known else "" for m in found]
    return np.array(texts, dtype=str)
