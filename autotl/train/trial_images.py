"""Where a trial's images come from: cached views behind the frozen stages, or the images themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from numpy.typing import NDArray

from autotl.compute.device import to_device
from autotl.compute.residence import Residence
from autotl.data.augment import recipe_named
from autotl.data.pixels import open_store
from autotl.frozen.activations import CachedView, ImageLoader
from autotl.frozen.held_views import HeldView, HeldViews
from autotl.frozen.views import Views, ViewSettings
from autotl.models.backbone import Backbone, Preprocessing
from autotl.models.partition import DoesNotDivide, Partition, divide
from autotl.storage.cache import DiskCache
from autotl.train.deadline import Deadline
from autotl.train.task import TrainingTask

VIEW_SEED = 0
"""Of the augmented views: the same in every run, so that runs can share them."""

Rows = NDArray[np.int64]
View = CachedView | HeldView


class TrialImages:
    """The images of a trial, its backbone divided at the freeze depth, and which view each epoch sees.

    Args:
        task: the run.
        config: a point of the search space.
        backbone: on the CPU, where it is divided; it has to be on the device before any view is asked for.
        device: where batches go.
        deadline: after which no view is computed.
        seed: of the trial; decides which views come first.

    Attributes:
        labels: of all images of the store.
        train_rows, val_rows: places in the store.
        preprocessing: of the backbone, for images as they are stored.
        note: why frozen stages could not be computed once, where that is so; else "".
    """

    def __init__(
        self,
        task: TrainingTask,
        config: dict[str, Any],
        backbone: Backbone,
        device: torch.device,
        deadline: Deadline,
        seed: int,
    ) -> None:
        self._task, self._config, self._backbone = task, config, backbone
        self._device, self._deadline, self._seed = device, deadline, seed
        self.note = ""
        self.labels, split = task.load_manifest()
        self.train_rows, self.val_rows = np.flatnonzero(split == "train"), np.flatnonzero(split == "val")
        store = open_store(Path(task.store))
        self.preprocessing: Preprocessing = replace(backbone.preprocessing, store_size=store.size)
        self._residence = Residence(device, task.gpus)
        loader = ImageLoader(store.open(task.threads), self.preprocessing, device, VIEW_SEED)
        self._loader = loader.staying(self._residence)
        self._partition = self._divide()
        self._views = None
        if self._partition is not None:
            self._views = self._make_views(self._partition)
        self._seen_validation: View | None = None
        self._seen: dict[int, View] = {}
        self._uses: Counter[int] = Counter()

    @property
    def is_divided(self) -> bool:
        """Whether the frozen stages are computed once, so that every batch comes from a view."""
        return self._partition is not None

    @property
    def views_to_make(self) -> int:
        """Training views that the next epochs would have to compute, unless another trial does."""
        views = self._views
        if views is None:
            return 0
        unseen = [number for number in range(self._n_views) if number not in self._seen]
        recipe = recipe_named(self._config["augmentation"])
        return sum(not views.is_cached(self.train_rows, recipe, number) for number in unseen)

    @property
    def uses(self) -> list[int]:
        """How often each training view was seen."""
        return [self._uses[number] for number in range(self._n_views)]

    def count_uses(self, uses: list[int]) -> None:
        """Training views were seen so often before, see `uses`."""
        self._uses = Counter(dict(enumerate(uses)))

    @property
    def _n_views(self) -> int:
        return 1 if self._config["augmentation"] == "none" else self._task.n_views

    def _divide(self) -> Partition | None:
        depth = self._config["freeze_depth"]
        if depth == 0:
            return None
        if not self._task.cache_activations:
            self.note = "the frozen stages run in every epoch: as asked"
            return None
        loader = ImageLoader(self._loader.pixels, self.preprocessing, torch.device("cpu"), VIEW_SEED)
        example = loader.batch(self.train_rows[:2], None, 0)
        try:
            return divide(self._backbone, depth, example)
        except DoesNotDivide as reason:
            self.note = f"the frozen stages run in every epoch: {reason}"
            return None

    def _make_views(self, partition: Partition) -> Views | HeldViews:
        task, is_late = self._task, self._deadline.is_past
        files = task.backbones[self._config["backbone"]]
        if self._device.type == "cuda":
            return HeldViews(partition, self._loader, files.engine, self._residence, is_late)
        settings = ViewSettings(
            cache=DiskCache(Path(task.cache_dir), task.cache_limit),
            data_fingerprint=task.data_fingerprint,
            weights_sha256=files.weights_sha256,
            base_depth=files.base_depth,
            converted=Path(files.converted) if files.converted else None,
            precision=task.precision,
            threads=task.threads,
        )
        return Views(settings, self._backbone, partition, self._loader, is_late)

    def validation_view(self) -> View | None:
        """The validation images behind the frozen stages; None without a partition or when the time is up."""
        if self._views is None:
            return None
        if self._seen_validation is None:
            try:
                self._seen_validation = self._views.get(self.val_rows, None, 0, self._deadline.seconds_left)
            except Timeout:  # another trial is still at it
                return None
            if self._seen_validation is None:
                self._give_up_caching(self._views.size(self.val_rows))
        return self._seen_validation

    def training_view(self) -> View | None:
        """The view of this epoch: of those seen least, one that need not be computed, or that no other trial computes.

        Two trials that begin together thus compute different views, and each finds the other's afterwards. None
        without a partition or when the time is up.
        """
        views, rows = self._views, self.train_rows
        if views is None:
            return None
        recipe = recipe_named(self._config["augmentation"])
        count = self._n_views
        order = sorted(
            range(count),
            key=lambda number: (
                self._uses[number],
                number not in self._seen and not views.is_cached(rows, recipe, number),
                (number - self._seed) % count,
            ),
        )
        for wait in (0.0, self._deadline.seconds_left):
            for number in order:
                if number not in self._seen:
                    try:
                        view = views.get(rows, recipe, number, wait)
                    except Timeout:
                        continue
                    if view is None:
                        self._give_up_caching(views.size(rows))
                        return None
                    self._seen[number] = view
                self._uses[number] += 1
                return self._seen[number]
        return None

    def _give_up_caching(self, size: int) -> None:
        if not self._deadline.is_past():
            self.note = f"the frozen stages run in every epoch: there is no room for a view of {size / 2**30:.1f} GiB"
            self._partition = self._views = self._seen_validation = None
            self._seen.clear()

    def expect(self, view: View | None, rows: Rows) -> None:
        """What `inputs` is going to be asked for, in this order; see `ImageLoader.expect`."""
        if view is None:
            self._loader.expect(rows)

    def inputs(self, view: View | None, places: Rows, rows: Rows, live: int | None) -> torch.Tensor:
        """What goes into the model for some images: normalised views, or what lies behind the frozen stages.

        Args:
            view: what lies behind the frozen stages; None sends the images themselves through the whole model.
            places: of the images in `view`.
            rows: of the images in the store.
            live: number of the random view without a cached one; None for the evaluation view.
        """
        if view is not None:
            tensor = view.rows(places)
            return tensor if self._task.precision == "bf16" else tensor.float()
        recipe = None if live is None else recipe_named(self._config["augmentation"])
        return self._loader.batch(rows, recipe, live or 0)

    def targets(self, rows: Rows) -> torch.Tensor:
        """Class numbers, on the device."""
        return to_device(torch.from_numpy(self.labels[rows]), self._device)

    def logits(self, inputs: torch.Tensor, *, cached: bool) -> torch.Tensor:
        """The model's output for what `inputs` gave, with a cached view or without."""
        if cached and self._partition is not None:
            return self._partition.suffix(inputs)
        output: torch.Tensor = self._backbone.model(inputs)
        return output
