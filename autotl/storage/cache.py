"""What is costly to compute and the same for all trials and runs, kept on disk: activations, converted models.

One file a key, with the key beside it as JSON. An entry is built once a node, under a lock, by whoever comes first.
When room is needed the least recently used entries go; a process that has one mapped into memory keeps it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from autotl.storage.rundir import fingerprint, write_json

FOLDER_VARIABLE = "AUTOTL_CACHE_DIR"
DEFAULT_BYTES = 20 * 2**30
GENERATION = 1
"""Raised when decoding, views or stages compute other numbers than before: nothing older is read then."""
DISK_RESERVE = 2 * 2**30
"""So much of the disk is never filled."""


def default_folder() -> Path:
    """The folder in the environment variable `AUTOTL_CACHE_DIR`, else the user's own for caches."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path(user_cache_dir("autotl", appauthor=False))


def made_with(*packages: str) -> dict[str, str | int]:
    """For a key: what the content of an entry depends on besides its inputs.

    Args:
        packages: installed ones, by their names on PyPI.
    """
    return {"autotl": GENERATION} | {package: version(package) for package in packages}


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One file of the cache: `path`, the key it was made for, its size in bytes, and when it was last used (s)."""

    path: Path
    key: dict[str, Any]
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class DiskCache:
    """The cache below `folder`, at most `limit` bytes and never more than the disk has room for."""

    folder: Path
    limit: int = DEFAULT_BYTES

    def path(self, key: Mapping[str, Any]) -> Path:
        """Where the entry of `key` is, or would be."""
        return self.folder / f"{key.get('kind', 'entry')}-{fingerprint(key)}.bin"

    def get(self, key: Mapping[str, Any]) -> Path | None:
        """The entry's file, marked as used now; None if there is none."""
        path = self.path(key)
        if not path.exists():
            return None
        with suppress(OSError):  # another user's cache, read-only: still good to read
            os.utime(path)
        return path

    def get_or_build(
        self, key: Mapping[str, Any], size: int, build: Callable[[Path], bool], *, wait: float = -1
    ) -> Path | None:
        """The entry's file, built if need be.

        Args:
            key: plain JSON types, among them "kind"; the whole of what the content depends on.
            size: bytes the entry will take.
            build: writes the file it is given; False if it gave up.
            wait: seconds to wait for another process that builds it; negative for as long as it takes.

        Returns:
            The file, or None if there is no room for it or `build` gave up.

        Raises:
            filelock.Timeout: if another process did not finish in `wait` seconds.
        """
        found = self.get(key)
        if found is not None:
            return found
        if not self._is_writable():
            return None
        path = self.path(key)
        with FileLock(path.with_suffix(".lock"), timeout=wait):
            found = self.get(key)  # another process was faster
            if found is not None:
                return found
            if not self.make_room(size):
                return None
            partial = path.with_suffix(".part")
            try:
                if not build(partial):
                    return None
                write_json(path.with_suffix(".json"), dict(key))
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        return path

    def _is_writable(self) -> bool:
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        return os.access(self.folder, os.W_OK)

    def entries(self) -> list[CacheEntry]:
        """Every complete entry, the least recently used first."""
        found = []
        for path in self.folder.glob("*.bin") if self.folder.is_dir() else ():
            with suppress(OSError, ValueError):  # removed or damaged meanwhile
                status = path.stat()
                key = json.loads(path.with_suffix(".json").read_text("utf-8"))
                found.append(CacheEntry(path, key, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def make_room(self, size: int) -> bool:
        """Remove the least recently used entries until `size` bytes fit; False, and none is removed, if they cannot."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "room.lock"):
            self._drop_abandoned()
            entries = self.entries()
            used = sum(entry.size for entry in entries)
            free = shutil.disk_usage(self.folder).free - DISK_RESERVE
            allowed = min(self.limit, used + free)
            if size > allowed:
                return False
            for entry in entries:
                if used + size <= allowed:
                    break
                remove(entry)
                used -= entry.size
        return True

    def _drop_abandoned(self) -> None:
        """Remove files that were being built by a process that is gone: it no longer holds their lock."""
        for partial in self.folder.glob("*.part"):
            with suppress(Timeout, OSError), FileLock(partial.with_suffix(".lock"), timeout=0):
                partial.unlink(missing_ok=True)

    def clear(self) -> int:
        """Remove every entry; the number of bytes that were freed."""
        self._drop_abandoned()
        entries = self.entries()
        for entry in entries:
            remove(entry)
        return sum(entry.size for entry in entries)


def remove(entry: CacheEntry) -> None:
    """Remove an entry's files; one that is in use on a system that forbids it stays."""
    with suppress(OSError):
        entry.path.unlink(missing_ok=True)
        entry.path.with_suffix(".json").unlink(missing_ok=True)
