"""Images that a disk has no room for as pixels: their files are decoded whenever they are needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np

from autotl.data.file_pixels import FilePixels, Places
from autotl.data.pixels import Decoded, DecodingNotes, PixelStore, store_bytes, write_shape
from autotl.storage.rundir import write_json

DISK_SHARE = 0.5
"""Of what is free on the disk: decoded images may take so much; the rest is for views, and for what others write."""
PART = 256
"""Images that are looked at between two reports."""


def fits(n_images: int, size: int, folder: Path) -> bool:
    """Whether a disk has room for so many decoded squares beside everything else."""
    folder.mkdir(parents=True, exist_ok=True)
    return store_bytes(n_images, size) <= DISK_SHARE * shutil.disk_usage(folder).free


class OnDemand:
    """In place of `autotl.data.pixels.Decoding`: a store that holds only the names of its files.

    Images are decoded, and decoded again, by whoever asks for them. Those that were never asked for are looked at in
    the end, so that everything that cannot be decoded is named here as well, before a trial trips over it.

    Args:
        root, paths: the files.
        size: side of the squares in pixels.
        target: where their names are written, for those who open the store.
        workers: threads that decode.

    Attributes:
        store: what may be opened at once.
        pixels: the same, noting what cannot be decoded instead of raising it.
    """

    is_over = True
    """Whoever waits for images waits for nothing."""
    seconds = 0.0

    def __init__(self, root: Path, paths: Sequence[str], size: int, target: Path, workers: int) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.store = PixelStore(target, len(paths), size, root.resolve())
        write_json(target, {"paths": list(paths)})
        self._is_seen = np.zeros(len(paths), dtype=bool)
        self._notes = DecodingNotes(paths)
        self._seconds, self._n_decoded = 0.0, 0
        self._lock = Lock()
        self.pixels = FilePixels(root.resolve(), paths, size, workers, self._note)

    def __enter__(self) -> OnDemand:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pixels.close()

    @property
    def is_damaged(self) -> bool:
        """Whether a file was found that cannot be decoded."""
        return self._notes.is_damaged

    @property
    def found(self) -> Decoded:
        """What was found so far."""
        return self._notes.found

    def wait(self, places: Places) -> None:
        """Nothing is under way."""

    def finish(self, on_progress: Callable[[int], None] = lambda done: None) -> tuple[PixelStore, Decoded]:
        """Look at the images that nobody has asked for, and make the store one that can be opened by its path."""
        left = np.flatnonzero(~self._is_seen)
        self.pixels.expect(left)
        for start in range(0, len(left), PART):
            self.pixels[left[start : start + PART]]
            on_progress(int(self._is_seen.sum()))
        self.store = replace(self.store, decode_seconds=self._seconds / max(1, self._n_decoded))
        write_shape(self.store)
        return self.store, self.found

    def _note(self, place: int, mode: str, reason: str, seconds: float) -> None:
        with self._lock:
            self._seconds, self._n_decoded = self._seconds + seconds, self._n_decoded + 1
        self._notes.add(place, mode, reason)
        self._is_seen[place] = True
