"""What is costly to compute and the same for all trials and runs, kept on disk: activations, converted models.

One file a key, with the key beside it as JSON. An entry is built once a node, under a lock, by whoever comes first.
When room is needed the least recently used entries go that no process has mapped into memory.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from autotl.storage.room import FULL
from autotl.storage.rundir import fingerprint, write_json

if sys.platform != "win32":  # which removes no file that is open
    import fcntl

FOLDER_VARIABLE = "AUTOTL_CACHE_DIR"
DEFAULT_BYTES = 20 * 2**30
GENERATION = 1
"""Raised when decoding, views or stages compute other numbers than before: nothing older is read then."""
PARTIAL, CLAIM = ".part", ".claim"
"""Ends of the names of a file that is being built, and of one that says how large it will be."""
DISK_RESERVE = 2 * 2**30
"""So much of the disk is never filled."""


def default_folder() -> Path:
    """The folder in the environment variable `AUTOTL_CACHE_DIR`, else the user's own for caches.

    A user without a home, as in some containers, gets one for as long as the process lives.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    from platformdirs import user_cache_dir

    folder = Path(user_cache_dir("autotl", appauthor=False))
    return folder if folder.is_absolute() else _without_a_home()


def _without_a_home() -> Path:
    """A folder that this process and those it starts share by that variable."""
    folder = tempfile.mkdtemp(prefix="autotl-cache-")
    os.environ[FOLDER_VARIABLE] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


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
            partial = path.with_suffix(PARTIAL)
            try:
                if not self._claim(path, size) or not build(partial):
                    return None
                write_json(path.with_suffix(".json"), dict(key))
                with self._room():  # whoever makes room sees the claim or the entry, never neither
                    os.replace(partial, path)
                    path.with_suffix(CLAIM).unlink(missing_ok=True)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                return None  # others filled the disk meanwhile
            finally:
                partial.unlink(missing_ok=True)
                path.with_suffix(CLAIM).unlink(missing_ok=True)
        return path

    def _is_writable(self) -> bool:
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder.is_dir() and os.access(self.folder, os.W_OK)

    def entries(self) -> list[CacheEntry]:
        """Every complete entry, the least recently used first."""
        found = []
        for path in self.folder.glob("*.bin") if self.folder.is_dir() else ():
            with suppress(OSError, ValueError):  # removed or damaged meanwhile
                status = path.stat()
                key = json.loads(path.with_suffix(".json").read_text("utf-8"))
                found.append(CacheEntry(path, key, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def _room(self) -> FileLock:
        """Held while room is made or what takes it changes its name."""
        return FileLock(self.folder / "room.lock")

    def _claim(self, path: Path, size: int) -> bool:
        """Make room for an entry that is going to be built, and keep it until its claim is removed."""
        with self._room():
            if not self.make_room(size):
                return False
            path.with_suffix(CLAIM).write_text(str(size), "utf-8")
        return True

    def make_room(self, size: int) -> bool:
        """Remove the least recently used entries until `size` bytes fit; False, and none is removed, if they cannot.

        What others are building counts with the size it will have. Entries that are in use stay: a file that is mapped
        into memory takes its room until it is closed, whatever happens to its name.
        """
        self._drop_abandoned()
        entries = self.entries()
        claimed, written = self._being_built()
        used = sum(entry.size for entry in entries) + claimed
        free = shutil.disk_usage(self.folder).free - DISK_RESERVE - max(0, claimed - written)
        allowed = min(self.limit, used + free)
        idle = [entry for entry in entries if not is_in_use(entry.path)]
        if used + size - sum(entry.size for entry in idle) > allowed:
            return False
        for entry in idle:
            if used + size <= allowed:
                break
            remove(entry)
            used -= entry.size
        return True

    def _being_built(self) -> tuple[int, int]:
        """Bytes that entries being built will have, and that they have already."""
        claimed = written = 0
        for claim in self.folder.glob(f"*{CLAIM}"):
            with suppress(OSError, ValueError):  # ended meanwhile
                claimed += int(claim.read_text("utf-8"))
                written += claim.with_suffix(PARTIAL).stat().st_size
        return claimed, written

    def _drop_abandoned(self) -> None:
        """Remove what was being built by a process that is gone: it no longer holds the lock."""
        for left in (*self.folder.glob(f"*{PARTIAL}"), *self.folder.glob(f"*{CLAIM}")):
            with suppress(Timeout, OSError), FileLock(left.with_suffix(".lock"), timeout=0):
                left.unlink(missing_ok=True)

    def clear(self) -> int:
        """Remove every entry; the number of bytes that were freed."""
        self._drop_abandoned()
        entries = self.entries()
        for entry in entries:
            remove(entry)
        return sum(entry.size for entry in entries)


def hold(file: IO[Any]) -> None:
    """Mark an open entry as in use, until it is closed or the process ends."""
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH)


def is_in_use(path: Path) -> bool:
    """Whether a process holds it; see `hold`."""
    if sys.platform == "win32":
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def remove(entry: CacheEntry) -> None:
    """Remove an entry's files; one that is in use on a system that forbids it stays."""
    with suppress(OSError):
        entry.path.unlink(missing_ok=True)
        entry.path.with_suffix(".json").unlink(missing_ok=True)
