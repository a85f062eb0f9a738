"""Evaluation views kept from the pass that embeds the images: trials need them, and no stage runs twice for them."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from autotl.frozen.activations import stored_form, view_bytes
from autotl.frozen.views import evaluation_key
from autotl.models.backbone import Preprocessing
from autotl.storage.cache import DiskCache

KEPT_SHARE = 0.625
"""Of a backbone's stages: most trials freeze as many or more, and their views follow from these."""
KEPT_BYTES = 2**30
"""Nothing is kept of images whose views take more."""


@dataclass(frozen=True, slots=True)
class EvaluationViews:
    """What is to be kept while images are embedded.

    Attributes:
        cache: where trials look for views.
        folder: for files that are not complete yet.
        data_fingerprint: stands for the images.
        parts: the rows of each view, ascending; none twice.
    """

    cache: DiskCache
    folder: Path
    data_fingerprint: str
    parts: tuple[NDArray[np.int64], ...]


def kept_depth(n_stages: int) -> int:
    """The freeze depth whose views are kept."""
    return max(1, math.floor(KEPT_SHARE * n_stages))


class ViewKeeper:
    """Boundary tensors, batch by batch, to views in the cache; left with an exception, it keeps nothing.

    Args:
        views: what is to be kept.
        timm_name, weights_sha256: of the backbone.
        preprocessing: as trials prepare their images.
        depth: the freeze depth of the tensors.
    """

    def __init__(
        self, views: EvaluationViews, timm_name: str, weights_sha256: str, preprocessing: Preprocessing, depth: int
    ) -> None:
        self._views = views
        self._keys = [
            evaluation_key(timm_name, weights_sha256, depth, views.data_fingerprint, rows, preprocessing)
            for rows in views.parts
        ]
        self._files: list[IO[bytes]] = []
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> ViewKeeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for file in self._files:
            file.close()
        if kind is None:
            self._put_into_cache()
        for file in self._files:
            Path(file.name).unlink(missing_ok=True)

    def add(self, rows: NDArray[np.int64], tensor: torch.Tensor) -> None:
        """The tensors of some rows, in bfloat16; rows come in ascending order."""
        if self._shape is None:
            self._shape = tuple(tensor.shape[1:])
            if view_bytes(self._shape, sum(map(len, self._views.parts))) <= KEPT_BYTES:
                self._files = self._open_files()
        array = stored_form(tensor)
        for part, file in zip(self._views.parts, self._files, strict=False):  # no files where they would be too large
            inside = np.isin(rows, part)
            if inside.any():
                file.write(array[inside].tobytes())

    def _open_files(self) -> list[IO[bytes]]:
        self._views.folder.mkdir(parents=True, exist_ok=True)
        names = (self._views.folder / f"evaluation-{place}.part" for place in range(len(self._views.parts)))
        return [open(name, "wb") for name in names]  # closed in __exit__

    def _put_into_cache(self) -> None:
        for part, key, file in zip(self._views.parts, self._keys, self._files, strict=False):
            made, size = Path(file.name), view_bytes(self._shape or (), len(part))
            if made.stat().st_size == size:
                self._views.cache.get_or_build(key, size, partial(_move, made))


def _move(made: Path, path: Path) -> bool:
    shutil.move(made, path)  # the cache may be on another disk
    return True
