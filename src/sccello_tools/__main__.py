"""``python -m sccello_tools``: the same as the ``sccello`` command."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
