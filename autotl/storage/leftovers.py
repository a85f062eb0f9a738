"""What a fit leaves behind that was killed: found and removed by the next one, and by `autotl cache clear`.

A fit that runs holds the lock of a file that lists what has to go when it ends. The kernel frees the lock with the
process, however that ends.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from autotl.storage.cache import default_folder
from autotl.storage.rundir import write_json

LISTS, SUFFIX = "running", ".json"


def lists_folder() -> Path:
    """Where the lists are: in the cache of the user, one a running fit."""
    return default_folder() / LISTS


class Leftovers:
    """What has to go when this fit ends. Where the list cannot be kept, the fit does without."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folders: list[str] = []

    def add(self, folder: Path) -> None:
        """A folder that nobody needs once this process has ended."""
        self._folders.append(str(folder))
        with suppress(OSError):
            write_json(self._path, {"host": platform.node(), "folders": self._folders})

    def remove(self) -> None:
        """All of them; and the list, if nothing is left of them."""
        _remove(self._path, self._folders)


@contextmanager
def listed() -> Iterator[Leftovers]:
    """Keep a list inside; what is on it in the end is removed."""
    path = lists_folder() / f"{uuid.uuid4().hex}{SUFFIX}"
    lock = FileLock(path.with_suffix(".lock"))
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    leftovers = Leftovers(path)
    try:
        yield leftovers
    finally:
        leftovers.remove()
        with suppress(OSError):
            lock.release()
            if not path.exists():
                Path(lock.lock_file).unlink()


def sweep() -> list[Path]:
    """Remove what fits of this machine left that no longer run; the folders that were there."""
    swept: list[Path] = []
    with suppress(OSError):
        for path in lists_folder().glob(f"*{SUFFIX}"):
            with suppress(OSError, Timeout, ValueError, KeyError, TypeError, AttributeError):
                swept += _sweep_one(path)
    return swept


def _sweep_one(path: Path) -> list[Path]:
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    with lock:  # raises Timeout as long as the fit runs
        plain = json.loads(path.read_text("utf-8"))
        if plain["host"] != platform.node():  # a cache that several machines share: not ours to look at
            return []
        folders = [str(folder) for folder in plain["folders"]]
        there = [Path(folder) for folder in folders if os.path.isdir(folder)]
        _remove(path, folders)
    if not path.exists():
        Path(lock.lock_file).unlink(missing_ok=True)
    return there


def _remove(path: Path, folders: list[str]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if not any(os.path.exists(folder) for folder in folders):
        with suppress(OSError):
            path.unlink()
