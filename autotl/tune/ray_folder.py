"""Where Ray keeps its logs and sockets: a folder of this call's own, with a path that sockets can have."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PREFIX = "autotl-ray-"
LONGEST_PARENT = 107 - len("/autotl-ray-12345678/session_2026-12-01_03-05-06_123456_1234567/sockets/plasma_store_0")
"""Bytes: the path of a socket may have 107 on Linux."""
USUAL = ("/tmp", "/var/tmp", "/dev/shm")
OWN = "RAY_TMPDIR"
"""Ray's own variable: who sets it has chosen."""


def make_ray_folder() -> Path | None:
    """A new folder; None where the user has named one, or none can be made: then Ray does as it will."""
    if OWN in os.environ or os.name == "nt":
        return None
    for parent in _parents():
        with suppress(OSError):
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    return None


def _parents() -> Iterator[str]:
    """The folder for temporary files, if its path is short and plain, and those that other programs use."""
    for parent in (tempfile.gettempdir(), *USUAL):
        if parent.isascii() and len(parent) <= LONGEST_PARENT:
            yield parent
