"""Room on a disk: reserved before it is written to, for a file that only looks large enough kills who writes to it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from autotl.errors import Problem, RunFolderError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where a disk or a quota is full."""


def reserve(path: Path, size: int, what: str) -> None:
    """Make `path` a file of so many zeros that really has its room on the disk.

    A sparse file that is mapped into memory takes its room only when it is written to, and where there is none left
    the process is killed by SIGBUS, without a word.

    Args:
        path: the file; one that is there is replaced.
        size: bytes.
        what: it is for, to say so.

    Raises:
        RunFolderError: if there is no room; no file is left.
    """
    try:
        with open(path, "wb") as file:
            _allocate(file.fileno(), path, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno not in FULL:
            raise
        raise RunFolderError([_no_room(path.parent, size, what)]) from error


def _allocate(descriptor: int, path: Path, size: int) -> None:
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    elif size > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        os.truncate(path, size)


def _no_room(folder: Path, size: int, what: str) -> Problem:
    free = shutil.disk_usage(folder).free
    return Problem(
        "run folder",
        str(folder),
        f"the disk is full: {what} take {_gib(size)}, and {_gib(free)} are free",
        remedy="free some, or have the run folder on another disk (output=DIR, --output DIR)",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
