"""`PixelStore`: every image decoded once, in parallel and in the background, into a memory-mapped array of bytes.

Images that a disk has no room for are decoded whenever they are asked for instead, see `on_demand.py`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autotl.data.decode import decode
from autotl.data.file_pixels import FilePixels, Places
from autotl.data.folder import Finding
from autotl.storage.room import reserve
from autotl.storage.rundir import read_json, write_json

PART = 8
"""Images that a thread takes at once; a batch that is waited for is as many."""


class Pixels(Protocol):
    """Square RGB images, an array or what gives its images when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, size, size, 3)."""

    def __getitem__(self, places: Places, /) -> NDArray[np.uint8]:
        """The images in `places`, shape (len(places), size, size, 3)."""


@dataclass(frozen=True, slots=True)
class PixelStore:
    """Square RGB images, uint8, in a file that processes share through the page cache, or as their own files.

    Attributes:
        path: the file of pixels, or the paths of the images' own files; `path` + ".json" holds the rest of this.
        n_images, size: it holds (n_images, size, size, 3) bytes.
        root: the folder of the images' own files; None where there is a file of pixels.
        decode_seconds: of one image on one core, where images are decoded whenever they are asked for; else 0.
    """

    path: Path
    n_images: int
    size: int
    root: Path | None = None
    decode_seconds: float = 0.0

    def open(self, workers: int = 1) -> Pixels:
        """The pixels, shape (n_images, size, size, 3), read-only and not loaded into memory.

        Args:
            workers: threads that decode where there is no file of pixels; 1 decodes in the caller's.
        """
        shape = (self.n_images, self.size, self.size, 3)
        if self.root is None:
            return np.memmap(self.path, dtype=np.uint8, mode="r", shape=shape)
        return FilePixels(self.root, read_json(self.path)["paths"], self.size, workers)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding found: reasons by path for files that could not be decoded, and findings on colour modes."""

    unreadable: dict[str, str]
    findings: tuple[Finding, ...]


class DecodingNotes:
    """What came of the images that were decoded so far; threads may write to it at once.

    Args:
        paths: of all images.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._modes: dict[int, str] = {}
        self._reasons: dict[int, str] = {}

    def add(self, place: int, mode: str, reason: str) -> None:
        """An image with its unusual colour mode or "", and why it could not be decoded or ""."""
        if reason:
            self._reasons[place] = reason
        elif mode:
            self._modes[place] = mode

    @property
    def is_damaged(self) -> bool:
        """Whether a file was found that cannot be decoded."""
        return bool(self._reasons)

    @property
    def found(self) -> Decoded:
        """What was found so far, in the order of the paths."""
        unreadable = {self._paths[place]: reason for place, reason in sorted(self._reasons.copy().items())}
        modes = Counter(mode for _, mode in sorted(self._modes.copy().items()))
        findings = (
            Finding("colour-mode", "info", f"{count} images of mode {mode} were converted to RGB")
            for mode, count in modes.items()
        )
        return Decoded(unreadable, tuple(findings))


class Decoding:
    """Images on their way into a store, while their caller does something else.

    As a context: threads decode from when it is entered (Pillow decodes outside Python's lock), and leaving it ends
    them, each after the few files at hand. Files that cannot be decoded leave zeros in their place and are named at the
    end: the caller must stop or leave them out.

    Args:
        root, paths: the files.
        size: side of the squares in pixels.
        target: the file of pixels.
        workers: threads.
        order: the places of all `paths` in the order in which they are decoded; None: as they stand.

    Attributes:
        store: what comes of it. Places that were waited for can be read before the end.

    Raises:
        RunFolderError: if the disk has no room for the squares.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        size: int,
        target: Path,
        workers: int,
        order: Places | None = None,
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.store = PixelStore(target, len(paths), size)
        self._root, self._paths, self._workers = root, paths, workers
        shape = (len(paths), size, size, 3)
        reserve(target, store_bytes(len(paths), size), f"{len(paths)} decoded images")
        self._pixels = np.memmap(target, dtype=np.uint8, mode="r+", shape=shape)
        self._order = np.arange(len(paths)) if order is None else order
        self._turns = np.argsort(self._order)
        self._notes = DecodingNotes(paths)
        self._begun = self._last = 0.0

    def __enter__(self) -> Decoding:
        self._begun = time.perf_counter()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="autotl-decode")
        starts = range(0, len(self._order), PART)
        self._parts = [self._pool.submit(self._decode, self._order[start : start + PART]) for start in starts]
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def pixels(self) -> Pixels:
        """What is in the store; places that were waited for can be read."""
        return self._pixels

    @property
    def is_over(self) -> bool:
        """Whether every image is decoded, or known not to be decodable."""
        return all(part.done() for part in reversed(self._parts))  # while it goes on, the first one looked at is not

    @property
    def seconds(self) -> float:
        """All of it took; 0 until it is over."""
        return self._last - self._begun if self.is_over else 0.0

    @property
    def is_damaged(self) -> bool:
        """Whether a file was found that cannot be decoded."""
        return self._notes.is_damaged

    @property
    def found(self) -> Decoded:
        """What was found so far."""
        return self._notes.found

    def wait(self, places: Places) -> None:
        """Return when the images in `places` are decoded, or known not to be decodable.

        Raises:
            BaseException: what ended the decoding of one of them: memory that ran out, but no damaged file.
            CancelledError: if the context was left before that.
        """
        for part in np.unique(self._turns[places] // PART):
            self._parts[part].result()

    def finish(self, on_progress: Callable[[int], None] = lambda done: None) -> tuple[PixelStore, Decoded]:
        """Wait for all images, and make the store one that can be opened by its path.

        Raises:
            BaseException: as `wait`.
        """
        for number, part in enumerate(self._parts, 1):
            part.result()
            on_progress(min(number * PART, len(self._paths)))
        self._pixels.flush()
        write_shape(self.store)
        return self.store, self.found

    def _decode(self, places: Places) -> None:
        for place in places.tolist():
            try:
                self._pixels[place], mode = decode(self._root / self._paths[place], self.store.size)
                self._notes.add(place, mode, "")
            except OSError as error:
                self._notes.add(place, "", str(error) or type(error).__name__)
        self._last = time.perf_counter()


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
        RunFolderError: if the file that holds its shape is missing.
    """
    kept = read_json(_shape_file(path))
    root = None if kept["root"] is None else Path(kept["root"])
    return PixelStore(path, int(kept["n_images"]), int(kept["size"]), root, float(kept["decode_seconds"]))


def write_shape(store: PixelStore) -> None:
    """Make a store one that `open_store` finds by its path."""
    plain = {name: value for name, value in asdict(store).items() if name != "path"}
    write_json(_shape_file(store.path), plain | {"root": None if store.root is None else str(store.root)})


def store_bytes(n_images: int, size: int) -> int:
    """What so many decoded squares take."""
    return math.prod((n_images, size, size, 3))


def _shape_file(path: Path) -> Path:
    return path.with_name(path.name + ".json")
