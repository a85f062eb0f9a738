"""Image files as if they were an array of pixels: decoded when they are asked for, or a little ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from autotl.data.decode import decode

Places = NDArray[np.int64]

AHEAD = 64
"""Images a thread that are decoded before they are asked for: two batches, and 12 MB at 256 pixels."""

Noted = Callable[[int, str, str, float], None]
"""Called with the place of an image, its unusual colour mode or "", why it could not be decoded or "", and the seconds
of the thread that decoded it."""


class FilePixels:
    """Pixels like those of an array of shape (images, size, size, 3), decoded when they are asked for.

    Args:
        root, paths: the files.
        size: side of the squares in pixels.
        workers: threads that decode; 1 decodes in the caller's.
        note: told what comes of every image; files that cannot be decoded are then zeros. None: they raise.

    Attributes:
        shape: of all the pixels.
    """

    def __init__(
        self, root: Path, paths: Sequence[str], size: int, workers: int = 1, note: Noted | None = None
    ) -> None:
        self.shape = (len(paths), size, size, 3)
        self._root, self._paths, self._size, self._note = root, paths, size, note
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="autotl-decode") if workers > 1 else None
        self._room = AHEAD * workers
        self._coming: Iterator[int] = iter(())
        self._lock = Lock()
        self._ahead: dict[int, Future[NDArray[np.uint8]]] = {}

    def __getitem__(self, places: Places) -> NDArray[np.uint8]:
        """The images in `places`, shape (len(places), size, size, 3).

        Raises:
            OSError: if a file cannot be decoded and nobody is to be told; it is named.
        """
        pixels = np.empty((len(places), *self.shape[1:]), dtype=np.uint8)
        if self._pool is None:
            for number, place in enumerate(places.tolist()):
                pixels[number] = self._decode(place)
            return pixels
        with self._lock:
            begun = [self._begun(self._pool, place) for place in places.tolist()]
            self._fill(self._pool)
        for number, decoded in enumerate(begun):
            pixels[number] = decoded.result()
        return pixels

    def expect(self, places: Places) -> None:
        """Decode ahead what is going to be asked for, in this order; what was expected before is forgotten."""
        if self._pool is None:
            return
        with self._lock:
            for decoded in self._ahead.values():
                decoded.cancel()
            self._ahead.clear()
            self._coming = iter(places.tolist())
            self._fill(self._pool)

    def close(self) -> None:
        """End the threads; nothing may be asked for afterwards."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _begun(self, pool: ThreadPoolExecutor, place: int) -> Future[NDArray[np.uint8]]:
        return self._ahead.pop(place, None) or pool.submit(self._decode, place)

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while len(self._ahead) < self._room and (place := next(self._coming, None)) is not None:
            if place not in self._ahead:
                self._ahead[place] = pool.submit(self._decode, place)

    def _decode(self, place: int) -> NDArray[np.uint8]:
        begun = time.thread_time()
        try:
            pixels, mode = decode(self._root / self._paths[place], self._size)
        except OSError as error:
            reason = str(error) or type(error).__name__
            if self._note is None:
                raise OSError(f"{self._root / self._paths[place]}: {reason}") from error
            self._note(place, "", reason, time.thread_time() - begun)
            return np.zeros(self.shape[1:], dtype=np.uint8)
        if self._note is not None:
            self._note(place, mode, "", time.thread_time() - begun)
        return pixels
