"""The outputs of a frozen prefix for views of the images on CPUs: computed once a node, for all trials and runs.

Views of every depth come from those at the backbone's *base depth*, the shallowest that the search tries: the stages
below it run once an image and view, whatever depths are tried above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autotl.compute.device import Precision
from autotl.compute.memory import give_back_memory
from autotl.data.augment import Recipe
from autotl.frozen.activations import CachedView, ImageLoader, batches, in_order, view_bytes, write_view
from autotl.frozen.engines import Measured, fastest_between, fastest_prefix
from autotl.models.backbone import Backbone, Preprocessing
from autotl.models.partition import DoesNotDivide, Partition, divide
from autotl.storage.cache import DiskCache, made_with
from autotl.storage.rundir import fingerprint

Rows = NDArray[np.int64]


def evaluation_key(
    timm_name: str, weights_sha256: str, depth: int, data_fingerprint: str, rows: Rows, preprocessing: Preprocessing
) -> dict[str, Any]:
    """The cache key of the evaluation view of some images at a freeze depth."""
    return {
        "kind": "activations",
        "backbone": timm_name,
        "weights": weights_sha256,
        "depth": depth,
        "recipe": "eval",
        "view": 0,
        "data": data_fingerprint,
        "rows": fingerprint(rows.tolist()),
        "preprocessing": preprocessing.to_json(),
        "made_with": made_with("pillow", "timm"),
    }


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """What views of a backbone are made with. Its name in configs plays no part: the same weights have the same views.

    Attributes:
        cache: where views are kept.
        data_fingerprint: stands for the images.
        weights_sha256: stands for the backbone's weights.
        base_depth: from which the views of all deeper depths are computed; 0 for none.
        converted: the backbone for OpenVINO, where there is one.
        precision: what trials compute in.
        threads: CPU threads to compute with.
    """

    cache: DiskCache
    data_fingerprint: str
    weights_sha256: str
    base_depth: int
    converted: Path | None
    precision: Precision
    threads: int


class Views:
    """Cached views of one backbone at one freeze depth. On a GPU there are `autotl.frozen.held_views` in their place.

    Args:
        settings: what they are made with.
        backbone: on the CPU.
        partition: the backbone, divided at the freeze depth.
        loader: of the images.
        is_late: says that the time is up; a view that is being computed is then given up.
    """

    def __init__(
        self,
        settings: ViewSettings,
        backbone: Backbone,
        partition: Partition,
        loader: ImageLoader,
        is_late: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._backbone = backbone
        self._partition = partition
        self._loader = loader
        self._is_late = is_late
        self._cache = settings.cache
        self._prefixes: dict[int, Measured] = {}

    def size(self, rows: Rows) -> int:
        """Bytes of a view of `rows`."""
        return view_bytes(self._partition.shape, len(rows))

    def is_cached(self, rows: Rows, recipe: Recipe | None, number: int) -> bool:
        """Whether a view need not be computed."""
        return self._cache.get(self._key(self._partition.depth, rows, recipe, number)) is not None

    def get(self, rows: Rows, recipe: Recipe | None, number: int, wait: float) -> CachedView | None:
        """A view, computed first if need be.

        Args:
            rows: images of the store.
            recipe: of random views; None for the evaluation view.
            number: of the random view.
            wait: seconds to wait for another trial that is computing it.

        Returns:
            None if there is no room for it, or the time was up.

        Raises:
            filelock.Timeout: if the other trial did not finish in time.
        """
        key = self._key(self._partition.depth, rows, recipe, number)

        def build(path: Path) -> bool:
            shallower = self._shallower(key) or self._base(key, rows, recipe, wait)
            if shallower is None:
                return self._write(path, self._from_images(self._partition, key, rows, recipe))
            return self._write(path, self._from_view(*shallower, rows))

        path = self._cache.get_or_build(key, self.size(rows), build, wait=wait)
        return None if path is None else CachedView(path, self._partition.shape)

    def _key(self, depth: int, rows: Rows, recipe: Recipe | None, number: int) -> dict[str, Any]:
        """All that a view depends on."""
        evaluation = evaluation_key(
            self._backbone.name,
            self._settings.weights_sha256,
            depth,
            self._settings.data_fingerprint,
            rows,
            self._loader.preprocessing,
        )
        if recipe is None or recipe.name == "none":
            return evaluation
        return evaluation | {"recipe": asdict(recipe), "view": number}

    def _shallower(self, key: dict[str, Any]) -> tuple[Partition, CachedView] | None:
        """The deepest cached view below `key`'s depth."""
        for depth in range(key["depth"] - 1, 0, -1):
            path = self._cache.get(key | {"depth": depth})
            partition = self._divided(depth) if path is not None else None
            if path is not None and partition is not None:
                return partition, CachedView(path, partition.shape)
        return None

    def _base(
        self, key: dict[str, Any], rows: Rows, recipe: Recipe | None, wait: float
    ) -> tuple[Partition, CachedView] | None:
        """The same view at the base depth, computed from the images; None where `key` is no deeper, or without room."""
        base = self._settings.base_depth
        partition = self._divided(base) if 0 < base < key["depth"] else None
        if partition is None:
            return None
        path = self._cache.get_or_build(
            key | {"depth": base},
            view_bytes(partition.shape, len(rows)),
            lambda to: self._write(to, self._from_images(partition, key, rows, recipe)),
            wait=wait,
        )
        return None if path is None else (partition, CachedView(path, partition.shape))

    def _divided(self, depth: int) -> Partition | None:
        try:
            return divide(self._backbone, depth, self._loader.batch(np.arange(2), None, 0))
        except DoesNotDivide:
            return None

    def _write(self, path: Path, tensors: Iterator[torch.Tensor]) -> bool:
        whole = write_view(path, tensors, self._is_late)
        give_back_memory()  # of large maps of the first stages, which training does not need
        return whole

    def _from_images(
        self, partition: Partition, key: dict[str, Any], rows: Rows, recipe: Recipe | None
    ) -> Iterator[torch.Tensor]:
        prefix = self._prefix(partition, rows)
        self._loader.expect(rows)

        def outputs_of(chosen: Rows) -> torch.Tensor:
            return prefix.forward(self._loader.batch(chosen, recipe, key["view"]))

        return in_order(outputs_of, batches(rows), prefix.workers)

    def _from_view(self, partition: Partition, view: CachedView, rows: Rows) -> Iterator[torch.Tensor]:
        sample = view.rows(np.arange(min(2, len(rows)))).float()
        between = fastest_between(partition, self._partition, sample, self._settings.precision)
        return (between.forward(view.rows(place).float()) for place in batches(np.arange(len(rows))))

    def _prefix(self, partition: Partition, rows: Rows) -> Measured:
        """The fastest exact way through the frozen stages, measured when it is first needed."""
        if partition.depth not in self._prefixes:
            example = self._loader.batch(rows[:8], None, 0)
            self._prefixes[partition.depth] = fastest_prefix(
                partition, example, self._settings.precision, self._settings.converted, self._settings.threads
            )
        return self._prefixes[partition.depth]
