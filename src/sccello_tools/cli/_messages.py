"""Messages of the library, as someone at a shell reads them."""

from __future__ import annotations

import re

# parameters of the library that commands have as options of the same name
_OPTIONS = (
    "layer", "gene_ids", "label_key", "model", "device", "precision", "groupby", "tissue",
    "candidates", "alpha", "max_length", "overwrite",
)  # fmt: skip
_CALL = re.compile(rf"\b({'|'.join(_OPTIONS)})=(?:'([^']*)'|\"([^\"]*)\"|True\b)?")


def for_the_shell(message: str) -> str:
    """Write parameters as options.

    Examples
    --------
    >>> from sccello_tools.cli._messages import for_the_shell
    >>> for_the_shell("Pass layer='counts', or name the column in gene_ids=.")
    'Pass --layer counts, or name the column in --gene-ids.'
    """

    def option(found: re.Match[str]) -> str:
        name, *values = found.groups()
        value = next((v for v in values if v is not None), "")
        return " ".join(filter(None, ("--" + name.replace("_", "-"), value)))

    return _CALL.sub(option, message)
