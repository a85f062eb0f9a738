"""One config, trained epoch by epoch. Below the freeze depth nothing is computed twice."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from filelock import Timeout
from numpy.typing import NDArray

from autotl.compute.device import compute, pick_device, to_device
from autotl.data.augment import recipe_named
from autotl.data.pixels import open_store
from autotl.frozen.activations import CachedView, ImageSource, batches, seed_of
from autotl.frozen.views import Views, ViewSettings
from autotl.models.backbone import Backbone, create
from autotl.models.partition import DoesNotDivide, Split, divide
from autotl.storage.cache import DiskCache
from autotl.storage.saved_model import ModelCard
from autotl.train.metrics import all_metrics, estimate, score_of
from autotl.train.microbatch import choose_part
from autotl.train.optim import make_optimizer, parameter_groups, schedule_factor, set_rates
from autotl.train.task import TrainingTask

MAX_GRADIENT_NORM = 1.0
EVALUATION_BATCH = 32
VIEW_SEED = 0
"""Of the augmented views: the same in every run, so that runs can share them."""


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


class OutOfTime(RuntimeError):
    """The time was up before there was anything to report."""


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch gave.

    Attributes:
        epoch: 0 is before training.
        score: validation score, larger is better.
        metrics: all validation metrics.
        train_loss: mean training loss, NaN at epoch 0.
        seconds: of training and validation.
        cut: the time was up before the epoch was whole.
    """

    epoch: int
    score: float
    metrics: dict[str, float]
    train_loss: float
    seconds: float
    cut: bool = False

    def better_than(self, other: EpochReport | None) -> bool:
        """Whether this epoch's model is to be preferred: a higher score, or the same with a lower log loss."""
        if not math.isfinite(self.score):
            return False
        return other is None or (self.score, -self.metrics["log_loss"]) > (other.score, -other.metrics["log_loss"])


class FineTuning:
    """A trial's model and data. `start` evaluates it before training, `train_epoch` trains it on.

    `planned` is the number of epochs after which it is done; `note` says why frozen stages could not be computed once,
    where that is so.

    Args:
        task: the run.
        config: a point of the search space.

    Raises:
        BackboneError: if weights do not fit.
    """

    def __init__(self, task: TrainingTask, config: dict[str, Any]) -> None:
        self.task = task
        self.config = config
        self.epoch = 0
        self.planned = task.max_t
        self.note = ""
        self.device = pick_device()
        self._scratch = config["initial_weights"] == "scratch"
        self._seed = seed_of(task.seed, *(f"{key}={config[key]}" for key in sorted(config)))
        torch.manual_seed(self._seed)
        self._labels, split = task.load_manifest()
        self._train_rows = np.flatnonzero(split == "train")
        self._val_rows = np.flatnonzero(split == "val")
        self._files = task.backbones[config["backbone"]]
        self.backbone = self._make_backbone()
        store = open_store(Path(task.store))
        self._preprocessing = replace(self.backbone.preprocessing, store_size=store.size)
        self._source = ImageSource(store.open(), self._preprocessing, self.device, VIEW_SEED)
        self._split = self._divide()
        self._views = (
            Views(self._view_settings(), self.backbone, self._split, self._source, self._late)
            if self._split is not None
            else None
        )
        self._seen_validation: CachedView | None = None
        self._seen: dict[int, CachedView] = {}
        self._uses: Counter[int] = Counter()
        self._optimizer = self._make_optimizer()
        self._class_weights = self._weigh_classes()
        self._part = 0
        self._evaluation_seconds = 0.0
        self._epoch_seconds = 0.0
        self._probabilities = np.zeros((0, 0), dtype=np.float32)

    # -- setting up ----------------------------------------------------------------------------------------------

    def _make_backbone(self) -> Backbone:
        files = self._files
        state = None if self._scratch else Path(files.state)
        backbone = create(files.timm_name, len(self.task.classes), state)
        if files.head and not self._scratch:
            with np.load(files.head, allow_pickle=False) as head:  # LP-FT, arXiv 2202.10054
                backbone.set_classifier(torch.from_numpy(head["weight"]), torch.from_numpy(head["bias"]))
        backbone.model.to(self.device, memory_format=torch.channels_last)
        backbone.freeze(self.config["freeze_depth"])
        return backbone

    def _divide(self) -> Split | None:
        depth = self.config["freeze_depth"]
        if depth == 0:
            return None
        if not self.task.cache_activations:
            self.note = "the frozen stages run in every epoch: as asked"
            return None
        example = self._source.batch(self._train_rows[:2], None, 0)
        try:
            return divide(self.backbone, depth, example)
        except DoesNotDivide as reason:
            self.note = f"the frozen stages run in every epoch: {reason}"
            return None

    def _view_settings(self) -> ViewSettings:
        task, files = self.task, self._files
        return ViewSettings(
            cache=DiskCache(Path(task.cache_dir), task.cache_limit),
            data_fingerprint=task.data_fingerprint,
            weights_sha256=files.weights_sha256,
            base_depth=files.base_depth,
            converted=Path(files.converted) if files.converted else None,
            precision=task.precision,
            threads=task.threads,
        )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        # Adaptive optimisers: the rate grows with the square root of the batch (arXiv 2205.10287).
        source = self._files.source_learning_rate * math.sqrt(self.config["batch_size"] / 32)
        groups = parameter_groups(
            self.backbone,
            source * self.config["learning_rate_factor"],
            source * self.config["head_learning_rate_factor"],
            self.config["layer_decay"],
            self.config["weight_decay"],
        )
        return make_optimizer(groups)

    def _weigh_classes(self) -> torch.Tensor | None:
        if not self.task.balanced:
            return None
        counts = np.bincount(self._labels[self._train_rows], minlength=len(self.task.classes))
        weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
        return torch.tensor(weights, dtype=torch.float32, device=self.device)

    # -- batches -------------------------------------------------------------------------------------------------

    def _seconds_left(self) -> float:
        return max(0.0, self.task.deadline - 1.2 * self._evaluation_seconds - time.time())

    def _validation_view(self) -> CachedView | None:
        """The validation images behind the frozen stages; None without a division or when the time is up."""
        if self._views is None:
            return None
        if self._seen_validation is None:
            try:
                self._seen_validation = self._views.get(self._val_rows, None, 0, self._seconds_left())
            except Timeout:  # another trial is still at it
                return None
            if self._seen_validation is None:
                self._give_up_caching(self._views.size(self._val_rows))
        return self._seen_validation

    def _training_view(self) -> CachedView | None:
        """The view of this epoch: of those seen least, one that need not be computed, or that no other trial computes.

        Two trials that begin together thus compute different views, and each finds the other's afterwards.
        """
        views = self._views
        if views is None:
            return None
        recipe = recipe_named(self.config["augmentation"])
        count = 1 if recipe.name == "none" else self.task.n_views
        rows = self._train_rows
        order = sorted(
            range(count),
            key=lambda number: (
                self._uses[number],
                number not in self._seen and not views.is_cached(rows, recipe, number),
                (number - self._seed) % count,
            ),
        )
        for wait in (0.0, self._seconds_left()):
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
        if not self._late():
            self.note = f"the frozen stages run in every epoch: there is no room for a view of {size / 2**30:.1f} GiB"
            self._split = self._views = None

    def _to_precision(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = to_device(tensor, self.device)
        return tensor if self.task.precision == "bf16" else tensor.float()

    def _forward(
        self, view: CachedView | None, places: NDArray[np.int64], rows: NDArray[np.int64], live: int | None
    ) -> torch.Tensor:
        """Logits of the images `rows`, which stand in `places` of `view`; `live` is the view number without one."""
        if self._split is not None and view is not None:
            return self._split.suffix(self._to_precision(view.rows(places)))
        recipe = None if live is None else recipe_named(self.config["augmentation"])
        logits: torch.Tensor = self.backbone.model(self._source.batch(rows, recipe, live or 0))
        return logits

    def _late(self) -> bool:
        return time.time() + 1.2 * self._evaluation_seconds > self.task.deadline

    # -- training and evaluation ---------------------------------------------------------------------------------

    def start(self) -> EpochReport:
        """The validation score before training: for pretrained weights the linear probe's."""
        return self._report(time.perf_counter(), float("nan"), cut=False)

    def train_epoch(self) -> EpochReport:
        """Train for one epoch, or until the time is up, and evaluate.

        Raises:
            Diverged: if the loss is not finite.
        """
        begun = time.perf_counter()
        self.planned = self._plan_epochs()
        view = self._training_view()
        cut = self._split is not None and view is None
        loss = float("nan")
        if not cut:
            # A live view is new in every epoch: nothing is gained by repeating it.
            loss, cut = self._train_on(view, self.epoch)
        self.epoch += 1
        report = self._report(begun, loss, cut)
        self._epoch_seconds = report.seconds
        return report

    def _plan_epochs(self) -> int:
        """Epochs this trial will have had: `max_t`, or as many as fit the time, so that its rates fall to zero."""
        if self.epoch == 0 or self.task.whole_schedule:
            return self.task.max_t
        left = (self.task.deadline - time.time()) / self._epoch_seconds
        return min(self.task.max_t, self.epoch + max(1, math.floor(left)))

    def _train_on(self, view: CachedView | None, live: int) -> tuple[float, bool]:
        size = min(self.config["batch_size"], len(self._train_rows))
        order = np.random.default_rng(seed_of(self._seed, self.epoch)).permutation(len(self._train_rows))
        # The last batch is filled up: a batch of one image would have no batch statistics.
        order = np.concatenate([order, order[: -len(order) % size]])
        per_epoch = len(order) // size
        self.backbone.train_mode(keep_statistics=not self._scratch)
        if self._part == 0:
            self._part = self._choose_part(view, live)
        losses: list[float] = []
        for number, places in enumerate(batches(order, size)):
            if self._late():
                return _mean(losses), True
            factor = schedule_factor(self.epoch * per_epoch + number, self.planned * per_epoch)
            set_rates(self._optimizer, factor)
            losses.append(self._step(view, places, live))
        return _mean(losses), False

    def _step(self, view: CachedView | None, places: NDArray[np.int64], live: int) -> float:
        """One step on a batch, in parts whose gradients add up to those of the whole; its loss."""
        self._optimizer.zero_grad(set_to_none=True)
        weight = self._weight_of(self._train_rows[places])
        value = 0.0
        for part in batches(places, self._part):
            loss = self._loss(view, part, live) / weight
            loss.backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(f"the loss became {value} in epoch {self.epoch + 1}")
        torch.nn.utils.clip_grad_norm_(
            [p for group in self._optimizer.param_groups for p in group["params"]], MAX_GRADIENT_NORM
        )
        self._optimizer.step()
        return value

    def _choose_part(self, view: CachedView | None, live: int) -> int:
        """A whole batch where it has to pass at once: for its statistics from scratch, and for speed on a GPU."""
        if self._scratch or self.device.type != "cpu":
            return int(self.config["batch_size"])
        return choose_part(lambda n_images: self._loss(view, np.arange(n_images), live))

    def _loss(self, view: CachedView | None, places: NDArray[np.int64], live: int) -> torch.Tensor:
        """The sum of the (weighted) losses of some training images."""
        rows = self._train_rows[places]
        targets = to_device(torch.from_numpy(self._labels[rows]), self.device)
        smoothing = self.config["label_smoothing"]
        with compute(self.device, self.task.precision):
            logits = self._forward(view, places, rows, live).float()
            return F.cross_entropy(logits, targets, self._class_weights, reduction="sum", label_smoothing=smoothing)

    def _weight_of(self, rows: NDArray[np.int64]) -> float:
        """What a sum of losses is divided by for the (weighted) mean."""
        if self._class_weights is None:
            return float(len(rows))
        return float(self._class_weights[torch.from_numpy(self._labels[rows]).to(self.device)].sum())

    def validation_probabilities(self) -> NDArray[np.float32]:
        """Class probabilities of the validation images, shape (images, classes)."""
        view = self._validation_view()
        if self._split is not None and view is None:
            raise OutOfTime("the time was up before the validation images were through the frozen stages")
        self.backbone.model.eval()
        outputs = []
        with torch.inference_mode(), compute(self.device, self.task.precision):
            for places in batches(np.arange(len(self._val_rows)), EVALUATION_BATCH):
                logits = self._forward(view, places, self._val_rows[places], None)
                outputs.append(torch.softmax(logits.float(), dim=1).cpu().numpy())
        return np.concatenate(outputs)

    def _report(self, begun: float, loss: float, cut: bool) -> EpochReport:
        evaluated = time.perf_counter()
        self._probabilities = self.validation_probabilities()
        metrics = all_metrics(self._probabilities, self._labels[self._val_rows])
        now = time.perf_counter()
        self._evaluation_seconds = now - evaluated
        return EpochReport(self.epoch, score_of(metrics, self.task.metric), metrics, loss, now - begun, cut)

    def trained(self) -> dict[str, torch.Tensor]:
        """The tensors that are trained, by name."""
        return {name: tensor for name, tensor in self.backbone.model.named_parameters() if tensor.requires_grad}

    def card(self, report: EpochReport, trial_id: str) -> ModelCard:
        """The card of the model as it stands after `report`."""
        return ModelCard(
            backbone=self.backbone.name,
            classes=self.task.classes,
            preprocessing=self._preprocessing.to_json(),
            freeze_depth=None if self._scratch else self.config["freeze_depth"],
            metric=self.task.metric,
            score=report.score,
            log_loss=report.metrics["log_loss"],
            validation=estimate(self.task.metric, self._probabilities, self._labels[self._val_rows]),
            trial_id=trial_id,
            epoch=report.epoch,
            config=self.config,
            provenance=self.task.provenance,
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
