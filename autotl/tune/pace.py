"""How long trials take: predicted from the cost of a backbone's stages, corrected by what trials took."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autotl.data.pixels import open_store
from autotl.space.search_space import Config
from autotl.train.cost import GPU_IMAGE_SECONDS, IMAGE_SECONDS, TrialSize, trial_seconds
from autotl.train.task import TrainingTask

Predict = Callable[[Config, int, int], float]
"""Seconds of a trial with a config, after so many epochs, with its views cached at so great a depth (0: not at all)."""


@dataclass(frozen=True, slots=True)
class RunImages:
    """What the time of a run's trials depends on, of its images.

    Attributes:
        n_train, n_val: images.
        decode_seconds: of one image, see `autotl.data.pixels.PixelStore`.
    """

    n_train: int
    n_val: int
    decode_seconds: float


def images_of(task: TrainingTask) -> RunImages:
    """Read from the run's files, in time that grows with the images."""
    _, split = task.load_manifest()
    decode_seconds = open_store(Path(task.store)).decode_seconds
    return RunImages(int((split == "train").sum()), int((split == "val").sum()), decode_seconds)


def predictor(task: TrainingTask, images: RunImages | None = None) -> Predict:
    """The prediction for the trials of a run, from the costs of the stages in its task.

    `images` are those of the run, where they are known; else they are read.
    """
    images = images or images_of(task)

    def predict(config: Config, epochs: int, views_from: int) -> float:
        files = task.backbones[config["backbone"]]
        views = 1 if config["augmentation"] == "none" else task.n_views
        image_seconds = GPU_IMAGE_SECONDS if task.gpus else IMAGE_SECONDS
        decode_seconds = images.decode_seconds / (task.threads if task.gpus else 1)  # cores decode for a GPU
        size = TrialSize(images.n_train, images.n_val, epochs, views, task.speed, decode_seconds, image_seconds)
        return trial_seconds(files.stages, config["freeze_depth"], size, files.seconds_per_image, views_from)

    return predict


class Pace:
    """Expected seconds of trials.

    The prediction knows the machine only from a single step of training. What it leaves out (other programs, memory
    bandwidth shared by the slots) is the same for all trials: every prediction is multiplied with the median ratio of
    the time trials took to what was predicted for them.

    Args:
        predict: the prediction.
        max_t: epochs of a full trial.
        base_depths: by backbone, from which the views of deeper depths are computed.
        evaluation_depths: by backbone, at which the evaluation views are there from the beginning; 0 if they are not.
        first_seconds: by backbone, what its first trial takes longer in every slot.
        slots: trials at once.
    """

    def __init__(
        self,
        predict: Predict,
        max_t: int,
        base_depths: Mapping[str, int] | None = None,
        evaluation_depths: Mapping[str, int] | None = None,
        first_seconds: Mapping[str, float] | None = None,
        slots: int = 1,
    ) -> None:
        self.max_t = max_t
        self._predict = predict
        self._base_depths = dict(base_depths or {})
        there = evaluation_depths or {}
        self._cached = {(name, "none"): {depth} for name, depth in there.items()}  # depths by backbone, augmentation
        self._first_seconds, self._slots = dict(first_seconds or {}), slots
        self._begun: Counter[str] = Counter()
        self._trials: dict[str, tuple[Config, int, float]] = {}
        self._ratios: dict[str, float] = {}

    @property
    def factor(self) -> float:
        """How many times as long as predicted trials take."""
        return statistics.median(self._ratios.values()) if self._ratios else 1.0

    def expect(self, config: Config, epochs: int | None = None) -> float:
        """Seconds that a trial with `config` would take now, for so many epochs (None: a full trial)."""
        epochs = self.max_t if epochs is None else epochs
        return self.factor * self._predict(config, epochs, self._views_from(config)) + self._first(config)

    def fitting_epochs(self, config: Config, seconds: float) -> int:
        """The most epochs, up to those of a full trial, that a trial with `config` has time for; 0 if for none."""
        fitting = (epochs for epochs in range(self.max_t, 0, -1) if self.expect(config, epochs) <= seconds)
        return next(fitting, 0)

    def begin(self, trial_id: str, config: Config) -> None:
        """A trial begins; from now on its views, and those they are computed from, count as cached."""
        self._trials[trial_id] = config, self._views_from(config), self._first(config)
        self._begun[config["backbone"]] += 1
        depths = self._cached.setdefault(_views(config), set())
        depths |= {config["freeze_depth"], min(config["freeze_depth"], self._base_depths.get(config["backbone"], 0))}

    def note(self, trial_id: str, epoch: int, elapsed: float) -> None:
        """A trial has taken `elapsed` seconds for `epoch` epochs."""
        if epoch < 1 or trial_id not in self._trials or not math.isfinite(elapsed):
            return
        config, views_from, first = self._trials[trial_id]
        predicted = self._predict(config, epoch, views_from)
        if predicted > 0 and elapsed > first:
            self._ratios[trial_id] = (elapsed - first) / predicted

    def _first(self, config: Config) -> float:
        """Seconds that a trial with `config` takes longer for being the first of its backbone in its slot."""
        backbone = config["backbone"]
        return self._first_seconds.get(backbone, 0.0) if self._begun[backbone] < self._slots else 0.0

    def _views_from(self, config: Config) -> int:
        """The deepest depth, up to that of `config`, at which its views are cached; 0 if at none."""
        depths = self._cached.get(_views(config), set())
        return max((depth for depth in depths if depth <= config["freeze_depth"]), default=0)


def _views(config: Config) -> tuple[str, str]:
    """What decides, besides the depth, which cached views a trial uses."""
    return str(config["backbone"]), str(config["augmentation"])
