"""`PixelStore`: every image decoded once, in parallel and in the background, into a memory-mapped array of bytes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autotl.data.decode import decode
from autotl.data.folder import Finding
from autotl.rundir import read_json, write_json


@dataclass(frozen=True, slots=True)
class PixelStore:
    """Square RGB images, uint8, in a file that processes share through the page cache.

    Attributes:
        path: the file of pixels; `path` + ".json" tells its shape.
        n_images, size: it holds (n_images, size, size, 3) bytes.
    """

    path: Path
    n_images: int
    size: int

    def open(self) -> NDArray[np.uint8]:
        """The pixels, shape (n_images, size, size, 3), read-only and not loaded into memory."""
        shape = (self.n_images, self.size, self.size, 3)
        return np.memmap(self.path, dtype=np.uint8, mode="r", shape=shape)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding found: reasons by path for files that could not be decoded, and findings on colour modes."""

    unreadable: dict[str, str]
    findings: tuple[Finding, ...]


class Decoding:
    """Images on their way into a store, while their caller does something else.

    As a context: threads decode from when it is entered, and leaving it ends them, each after the file at hand.
    Files that cannot be decoded leave zeros in their place and are named at the end: the caller must stop or leave
    them out.

    Args:
        root, paths: the files.
        size: side of the squares in pixels.
        target: the file of pixels.
        workers: threads (Pillow decodes outside Python's lock).
        order: the places of all `paths` in the order in which they are decoded; None: as they stand.

    Attributes:
        store: what comes of it. Places that were waited for can be read before the end.
        seconds: all of it took; 0 until it is over.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        size: int,
        target: Path,
        workers: int,
        order: NDArray[np.int64] | None = None,
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.store = PixelStore(target, len(paths), size)
        self.seconds = 0.0
        self._root, self._paths = root, paths
        self._pixels = np.memmap(target, dtype=np.uint8, mode="w+", shape=(len(paths), size, size, 3))
        self._order = np.arange(len(paths)) if order is None else order
        self._to_do = map(int, self._order)
        self._lock = threading.Lock()
        self._decoded = np.zeros(len(paths), dtype=np.bool_)
        self._n_decoded = 0
        self._modes = [""] * len(paths)
        self._reasons: dict[int, str] = {}
        self._awaited: dict[int, threading.Event] = {}
        self._ended = False
        self._error: BaseException | None = None
        # Daemons: Ctrl-C before the context is entered for good must not leave a process that decodes to the end.
        self._threads = [threading.Thread(target=self._work, name="autotl-decode", daemon=True) for _ in range(workers)]

    def __enter__(self) -> Decoding:
        self._begun = time.perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end(None)
        for thread in self._threads:
            thread.join()

    @property
    def is_over(self) -> bool:
        """Whether every image is decoded, or known not to be decodable."""
        return self._n_decoded == len(self._paths)

    @property
    def found(self) -> Decoded:
        """What was found so far."""
        with self._lock:
            unreadable = {self._paths[place]: self._reasons[place] for place in sorted(self._reasons)}
        return Decoded(unreadable, _mode_findings(Counter(mode for mode in self._modes if mode)))

    @property
    def is_damaged(self) -> bool:
        """Whether a file was found that cannot be decoded."""
        return bool(self._reasons)

    def wait(self, places: NDArray[np.int64]) -> None:
        """Return when the images in `places` are decoded, or known not to be decodable.

        Raises:
            BaseException: what ended a thread before that: memory that ran out, but no damaged file.
            CancelledError: if the context was left before that.
        """
        for place in places[~self._decoded[places]].tolist():
            with self._lock:  # an event an image that is waited for: decoding one wakes nobody else
                here = self._decoded[place] or self._ended
                event = None if here else self._awaited.setdefault(place, threading.Event())
            if event is not None:
                event.wait()
        if not self._decoded[places].all():
            raise self._error or CancelledError("the images are no longer decoded")

    def finish(self, on_progress: Callable[[int], None] = lambda done: None) -> tuple[PixelStore, Decoded]:
        """Wait for all images, and make the store one that can be opened by its path.

        Raises:
            BaseException: as `wait`.
        """
        for done in range(len(self._paths)):
            self.wait(self._order[done : done + 1])
            on_progress(done + 1)
        self._pixels.flush()
        write_json(_shape_file(self.store.path), {"n_images": self.store.n_images, "size": self.store.size})
        return self.store, self.found

    def _work(self) -> None:
        try:
            while (place := self._next()) is not None:
                self._decode(place)
        except BaseException as error:  # carried to the threads that wait
            self._end(error)

    def _next(self) -> int | None:
        with self._lock:
            return None if self._ended else next(self._to_do, None)

    def _decode(self, place: int) -> None:
        mode, reason = "", ""
        try:
            self._pixels[place], mode = decode(self._root / self._paths[place], self.store.size)
        except OSError as error:
            reason = str(error) or type(error).__name__
        with self._lock:
            self._modes[place] = mode
            if reason:
                self._reasons[place] = reason
            self._decoded[place] = True
            if self._n_decoded + 1 == len(self._paths):
                self.seconds = time.perf_counter() - self._begun
            self._n_decoded += 1
            event = self._awaited.pop(place, None)
        if event is not None:
            event.set()

    def _end(self, error: BaseException | None) -> None:
        """Begin no further image, and wake all who wait for one."""
        with self._lock:
            self._ended = True
            self._error = self._error or error
            events = list(self._awaited.values())
        for event in events:
            event.set()


def build_store(
    root: Path,
    paths: Sequence[str],
    size: int,
    target: Path,
    workers: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[PixelStore, Decoded]:
    """Decode `paths` below `root` into `target` and wait for it; arguments are those of `Decoding`."""
    with Decoding(root, paths, size, target, workers) as decoding:
        return decoding.finish(on_progress)


def open_store(path: Path) -> PixelStore:
    """The store written at `path`.

    Raises:
        RunFolderError: if the file that tells its shape is missing.
    """
    shape = read_json(_shape_file(path))
    return PixelStore(path, int(shape["n_images"]), int(shape["size"]))


def _shape_file(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _mode_findings(modes: Counter[str]) -> tuple[Finding, ...]:
    return tuple(
        Finding("colour-mode", "info", f"{count} images of mode {mode} were converted to RGB")
        for mode, count in modes.items()
    )
