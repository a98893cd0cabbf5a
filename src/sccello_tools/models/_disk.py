"""Disks that are full or may not be written."""

from __future__ import annotations

import errno
import shutil
from typing import TYPE_CHECKING

from sccello_tools.errors import DownloadError

if TYPE_CHECKING:
    from pathlib import Path


def check_space(folder: Path, needed: int) -> None:
    """Refuse a download that the disk cannot hold, before it begins."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        msg = f"No space in {folder}: {needed:,} bytes are needed, {free:,} are free. Make space, or set settings.cache_dir (environment: SCCELLO_CACHE) to another disk."
        raise DownloadError(msg)


def cannot_write(folder: Path, error: OSError) -> DownloadError:
    """Say what the system's error means for the cache."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        found = f"No space in {folder}"
    else:
        found = f"The cache folder {folder} cannot be written"
    return DownloadError(
        f"{found} ({error}). Set settings.cache_dir (environment: SCCELLO_CACHE) to another folder."
    )
