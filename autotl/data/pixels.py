"""`PixelStore`: every image decoded once, in parallel, into a memory-mapped array of bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autotl.data.decode import decode
from autotl.data.folder import Finding
from autotl.rundir import read_json, write_json

QUEUE = 4096
"""Images handed to the threads at once: each that waits takes a kilobyte, a million would take a gigabyte."""


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


def build_store(
    root: Path,
    paths: Sequence[str],
    size: int,
    target: Path,
    workers: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[PixelStore, Decoded]:
    """Decode `paths` below `root` into `target`, with `workers` threads (Pillow decodes outside Python's lock).

    Files that cannot be decoded leave zeros in their place and are named in the result: the caller must stop or
    leave them out.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.memmap(target, dtype=np.uint8, mode="w+", shape=(len(paths), size, size, 3))

    def decode_into(place: int) -> tuple[str, str]:
        try:
            pixels[place], mode = decode(root / paths[place], size)
        except OSError as error:
            return "", str(error) or type(error).__name__
        return mode, ""

    unreadable: dict[str, str] = {}
    modes: Counter[str] = Counter()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start in range(0, len(paths), QUEUE):
            places = range(start, min(start + QUEUE, len(paths)))
            for place, (mode, reason) in zip(places, pool.map(decode_into, places), strict=True):
                if reason:
                    unreadable[paths[place]] = reason
                elif mode:
                    modes[mode] += 1
                on_progress(place + 1)
    pixels.flush()
    write_json(_shape_file(target), {"n_images": len(paths), "size": size})
    return PixelStore(target, len(paths), size), Decoded(unreadable, _mode_findings(modes))


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
