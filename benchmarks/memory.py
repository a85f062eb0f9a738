"""Memory of a process and of all it starts, sampled from Linux's /proc; and the size of a folder.

What is counted is `RssAnon`: resident pages that belong to no file. Memory maps (decoded pixels, activations, weights,
shared libraries) are pages of files, which the kernel drops when memory is short; they are not counted. A forked
process (a DataLoader's worker, or any child until it runs another program) shares its pages with its parent: of it only
`Private_Dirty` is counted. That is not asked of every process, because the kernel holds it up while it looks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

PROC = Path("/proc")
INTERVAL = 0.2


def children() -> dict[int, list[int]]:
    """The child processes of every process."""
    found: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # gone meanwhile
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(parent, []).append(int(folder.name))
    return found


def anonymous_bytes(pid: int) -> int:
    """Resident bytes of a process that belong to no file; 0 if it is gone."""
    return _kilobytes(pid, "status", "RssAnon:")


def own_bytes(pid: int, parent: int | None) -> int:
    """The same, without what it shares with the parent it was forked from."""
    if parent is not None and _command(pid) == _command(parent):
        return _kilobytes(pid, "smaps_rollup", "Private_Dirty:")
    return anonymous_bytes(pid)


def _kilobytes(pid: int, file: str, field: str) -> int:
    with suppress(OSError):
        for line in (PROC / str(pid) / file).read_text().splitlines():
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    return 0


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes()
    return str(pid).encode()


class _Watch:
    """Samples something every `INTERVAL` seconds while it is entered."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.is_set():
            self.samples.append((time.time(), self._sample()))
            self._done.wait(INTERVAL)

    def _sample(self) -> int:
        raise NotImplementedError

    def peak(self, begin: float = 0.0, end: float = float("inf")) -> int:
        """Most bytes of all samples taken between two times (time.time()); 0 if there is none."""
        return _most(self.samples, begin, end)


def _most(samples: Iterable[tuple[float, int]], begin: float, end: float) -> int:
    return max((size for when, size in samples if begin <= when <= end), default=0)


class DiskWatch(_Watch):
    """The size of all files below a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _sample(self) -> int:
        size = 0
        for parent, _, names in os.walk(self._folder):
            for name in names:
                with suppress(OSError):  # gone meanwhile
                    size += 512 * os.lstat(os.path.join(parent, name)).st_blocks
        return size


class MemoryWatch(_Watch):
    """The memory of the process `pid` and of all below it; one stays counted when its parent ends before it does."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._first = pid
        self._of_first: list[tuple[float, int]] = []
        self._parents: dict[int, int | None] = {pid: None}

    def peak_of_first(self, begin: float = 0.0, end: float = float("inf")) -> int:
        """As `peak`, of the process itself."""
        return _most(self._of_first, begin, end)

    def _sample(self) -> int:
        below = children()
        new = list(self._parents)
        while new:
            found = {child: pid for pid in new for child in below.get(pid, ()) if child not in self._parents}
            self._parents.update(found)
            new = list(found)
        self._of_first.append((time.time(), anonymous_bytes(self._first)))
        return sum(own_bytes(pid, parent) for pid, parent in self._parents.items())
