"""One config, trained epoch by epoch. Below the freeze depth nothing is computed twice."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autotl import clock
from autotl.compute.ahead import ahead
from autotl.compute.device import compute, pick_device
from autotl.compute.memory import give_back_memory, halve_until_it_fits, is_out_of_memory
from autotl.compute.recording import Replayed, new_pool
from autotl.frozen.activations import batches, seed_of
from autotl.models.backbone import Backbone, create
from autotl.storage.saved_model import ModelCard
from autotl.train.checkpoint import Checkpoint, restore, tensors_of
from autotl.train.deadline import Deadline
from autotl.train.epoch import Diverged, EpochReport, OutOfTime
from autotl.train.loss import summed_loss
from autotl.train.metrics import all_metrics, estimate, score_of
from autotl.train.microbatch import choose_part
from autotl.train.optim import make_optimizer, parameter_groups, schedule_factor, set_rates
from autotl.train.task import TrainingTask
from autotl.train.trial_images import TrialImages, View

MAX_GRADIENT_NORM = 1.0
EVALUATION_BATCH = 32
"""On a CPU. On a GPU it is the batch of training: its kernels are there already."""
TRAINING = "training"
"""Where a card's provenance says how a trial was trained: epochs that were planned, views, threads, precision."""
STEPS_BETWEEN_CHECKS = 32
"""After which it is looked whether the loss is still a number: a GPU would have to be waited for at every look."""


_Batch = tuple[torch.Tensor, torch.Tensor]
"""Inputs and targets."""


class FineTuning:
    """A trial's model and data. `start` evaluates it before training, `train_epoch` trains it on.

    Args:
        task: the run.
        config: a point of the search space.
        start: tensors to begin with in place of the pretrained ones and the linear probe, by name: what an earlier
            trial trained.
        checkpoint: of the same config, to go on from: `start` is not called then.

    Attributes:
        backbone: the model as it stands.
        epoch: epochs trained so far.
        planned: epochs after which it is done.

    Raises:
        BackboneError: if weights do not fit.
    """

    def __init__(
        self,
        task: TrainingTask,
        config: dict[str, Any],
        start: Mapping[str, torch.Tensor] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.task = task
        self.config = config
        self.epoch = 0
        self.planned = task.max_t
        self.device = pick_device()
        self._scratch = config["initial_weights"] == "scratch"
        self._seed = seed_of(task.seed, *(f"{key}={config[key]}" for key in sorted(config)))
        torch.manual_seed(self._seed)
        self.backbone = self._make_backbone(start or {})
        self._deadline = Deadline(task.deadline)
        self._images = TrialImages(task, config, self.backbone, self.device, self._deadline, self._seed)
        # Only now: for the check of a division a GPU's libraries would choose kernels that nothing needs again.
        self.backbone.model.to(self.device, memory_format=torch.channels_last)
        self._optimizer = self._make_optimizer()
        self._shares = self._make_class_weights()
        self._class_weights = None if self._shares is None else torch.from_numpy(self._shares).to(self.device)
        # Small gradients are zero in float16: they are scaled up, steps with infinite ones are left out.
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=task.precision == "fp16")
        self._part = 0
        self._record_anew()
        self._evaluation_batch = EVALUATION_BATCH if self.device.type == "cpu" else self.config["batch_size"]
        self._epoch_seconds = 0.0  # without making its view
        self._view_seconds = 0.0
        self._probabilities = np.zeros((0, 0), dtype=np.float32)
        if checkpoint is not None:
            self._go_on_from(checkpoint)

    @property
    def note(self) -> str:
        """Why frozen stages could not be computed once, where that is so; else ""."""
        return self._images.note

    # -- setting up ----------------------------------------------------------------------------------------------

    def _make_backbone(self, start: Mapping[str, torch.Tensor]) -> Backbone:
        files = self.task.backbones[self.config["backbone"]]
        state = None if self._scratch else Path(files.state)
        backbone = create(files.timm_name, len(self.task.classes), state)
        if files.head and not self._scratch:
            with np.load(files.head, allow_pickle=False) as head:  # LP-FT, arXiv 2202.10054
                backbone.set_classifier(torch.from_numpy(head["weight"]), torch.from_numpy(head["bias"]))
        parameters = dict(backbone.model.named_parameters())
        with torch.no_grad():
            for name, tensor in start.items():
                parameters[name].copy_(tensor)
        backbone.freeze(self.config["freeze_depth"])
        return backbone

    def _make_optimizer(self) -> torch.optim.Optimizer:
        files = self.task.backbones[self.config["backbone"]]
        # Adaptive optimisers: the rate grows with the square root of the batch (arXiv 2205.10287).
        rate = files.source_learning_rate * math.sqrt(self.config["batch_size"] / 32)
        groups = parameter_groups(
            self.backbone,
            rate * self.config["learning_rate_factor"],
            rate * self.config["head_learning_rate_factor"],
            self.config["layer_decay"],
            self.config["weight_decay"],
        )
        return make_optimizer(groups)

    def _make_class_weights(self) -> NDArray[np.float32] | None:
        if not self.task.balanced:
            return None
        counts = np.bincount(self._images.labels[self._images.train_rows], minlength=len(self.task.classes))
        weights: NDArray[np.float32] = (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
        return weights

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        training = checkpoint.training
        restore(checkpoint.tensors, self._changing(), self._optimizer)
        self._scaler.load_state_dict(training["scaler"])
        self.epoch, self._part = checkpoint.epoch, training["part"]
        self._epoch_seconds, self._view_seconds = training["epoch_seconds"], training["view_seconds"]
        self._images.count_uses(training["view_uses"])

    # -- training ------------------------------------------------------------------------------------------------

    def start(self) -> EpochReport:
        """The validation score before training: for pretrained weights the linear probe's."""
        return self._report(time.perf_counter(), float("nan"), timed_out=False)

    def train_epoch(self) -> EpochReport:
        """Train for one epoch, or until the time is up, and evaluate.

        Raises:
            Diverged: if the loss is not finite.
        """
        begun = time.perf_counter()
        self.planned = self._plan_epochs()
        view = self._images.training_view()
        made = time.perf_counter() - begun
        timed_out = self._images.is_divided and view is None
        loss = float("nan")
        if not timed_out:
            # A live view is new in every epoch: nothing is gained by repeating it.
            loss, timed_out = self._train_on(view, self.epoch)
        self.epoch += 1
        report = self._report(begun, loss, timed_out)
        self._view_seconds = max(self._view_seconds, made)
        self._epoch_seconds = report.seconds - made
        return report

    def _plan_epochs(self) -> int:
        """Epochs this trial will have had: `max_t`, or as many as fit the time, so that its rates fall to zero."""
        if self.epoch == 0 or self.task.whole_schedule:
            return self.task.max_t
        left, views = self.task.deadline - clock.now(), self._images.views_to_make
        epochs = 0
        while self.epoch + epochs < self.task.max_t:
            left -= self._epoch_seconds + (self._view_seconds if epochs < views else 0.0)
            if left < 0:
                break
            epochs += 1
        return self.epoch + max(1, epochs)

    def _train_on(self, view: View | None, live: int) -> tuple[float, bool]:
        """The mean loss, and whether the time was up before the end."""
        n_images = len(self._images.train_rows)
        size = min(self.config["batch_size"], n_images)
        order = np.random.default_rng(seed_of(self._seed, self.epoch)).permutation(n_images)
        # The last batch is filled up: a batch of one image would have no batch statistics.
        order = np.concatenate([order, order[: -len(order) % size]])
        per_epoch = len(order) // size
        self.backbone.train_mode(keep_statistics=not self._scratch)
        if self._part == 0:
            self._part = self._choose_part(view, live)
        self._images.expect(view, self._images.train_rows[order])
        losses: list[torch.Tensor] = []
        for number, batch in enumerate(self._loaded(view, list(batches(order, size)), live)):
            if self._deadline.is_past():
                return self._mean(losses), True
            factor = schedule_factor(self.epoch * per_epoch + number, self.planned * per_epoch)
            set_rates(self._optimizer, factor)
            losses.append(self._steps[view is not None](*batch))
            if (number + 1) % STEPS_BETWEEN_CHECKS == 0:
                self._mean(losses)
        return self._mean(losses), False

    def _loaded(self, view: View | None, parts: list[NDArray[np.int64]], live: int) -> Iterator[_Batch]:
        """The batches of an epoch. Where memory runs out for one, the steps are made to leave some, and it goes on."""
        done = 0
        while done < len(parts):
            try:
                for batch in ahead(lambda places: self._batch(view, places, live), parts[done:], self.device):
                    yield batch
                    done += 1
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._part <= self._least_part:
                    raise
            if done < len(parts):  # outside of the handler: the error holds on to all that was computed
                self._part = max(self._least_part, self._part // 2)
                self._record_anew()
                give_back_memory()

    def _record_anew(self) -> None:
        """Forget what was recorded, with the memory that it holds."""
        self._pool = new_pool(self.device)
        self._steps = {cached: self._make_step(cached) for cached in (True, False)}
        self._outputs = {cached: self._make_outputs(cached) for cached in (True, False)}

    @property
    def _least_part(self) -> int:
        """From scratch, batch norms need more than one image."""
        return 2 if self._scratch else 1

    def _batch(self, view: View | None, places: NDArray[np.int64], live: int) -> _Batch:
        """Inputs and targets of some training images, on the device."""
        rows = self._images.train_rows[places]
        return self._images.inputs(view, places, rows, live), self._images.targets(rows)

    def _make_step(self, cached: bool) -> Replayed:
        """One step on inputs and targets, which gives its loss, still on the device.

        The size of its parts is found before it is recorded.
        """

        def before(*batch: torch.Tensor) -> torch.Tensor:
            def gradients(part: int) -> torch.Tensor:
                return self._add_gradients(batch, cached, part)

            total, self._part = halve_until_it_fits(self._part, gradients, self._least_part)
            self._apply_gradients()
            return total

        def recorded(*batch: torch.Tensor) -> torch.Tensor:
            total = self._add_gradients(batch, cached, self._part)
            self._apply_gradients()
            return total

        return Replayed(recorded, self.device, before, self._pool)

    def _add_gradients(self, batch: tuple[torch.Tensor, ...], cached: bool, part: int) -> torch.Tensor:
        """The gradients of a batch, in parts whose gradients add up to those of the whole; its loss."""
        self._optimizer.zero_grad(set_to_none=True)
        inputs, targets = batch
        weight = self._weight_of(targets)
        total = torch.zeros((), device=self.device)
        for some, wanted in zip(torch.split(inputs, part), torch.split(targets, part), strict=True):
            loss = self._loss(some, wanted, cached) / weight
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _apply_gradients(self) -> None:
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(
            [p for group in self._optimizer.param_groups for p in group["params"]], MAX_GRADIENT_NORM
        )
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _mean(self, losses: list[torch.Tensor]) -> float:
        """The mean loss of an epoch so far, NaN before its first step.

        Raises:
            Diverged: if it is not finite.
        """
        if not losses:
            return float("nan")
        value = float(torch.stack(losses).mean())
        if not math.isfinite(value):
            raise Diverged(f"the loss became {value} in epoch {self.epoch + 1}")
        return value

    def _choose_part(self, view: View | None, live: int) -> int:
        """A whole batch where it has to pass at once: for its statistics from scratch, and for speed on a GPU."""
        if self._scratch or self.device.type != "cpu":
            return int(self.config["batch_size"])
        return choose_part(lambda n: self._loss(*self._batch(view, np.arange(n), live), view is not None))

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor, cached: bool) -> torch.Tensor:
        """The sum of the (weighted) losses of some training images."""
        with compute(self.device, self.task.precision):
            logits = self._images.logits(inputs, cached=cached).float()
            return summed_loss(logits, targets, self._class_weights, self.config["label_smoothing"])

    def _weight_of(self, targets: torch.Tensor) -> torch.Tensor | float:
        """What a sum of losses is divided by for the (weighted) mean."""
        return float(len(targets)) if self._class_weights is None else self._class_weights[targets].sum()

    # -- evaluation ----------------------------------------------------------------------------------------------

    def validation_probabilities(self) -> NDArray[np.float32]:
        """Class probabilities of the validation images, shape (images, classes).

        Raises:
            OutOfTime: if these images did not get through the frozen stages in time.
        """
        view, rows = self._images.validation_view(), self._images.val_rows
        if self._images.is_divided and view is None:
            raise OutOfTime("the time was up before the validation images were through the frozen stages")
        self.backbone.model.eval()

        outputs_of = self._outputs[view is not None]

        def load(places: NDArray[np.int64]) -> torch.Tensor:
            return self._images.inputs(view, places, rows[places], None)

        def probabilities(size: int) -> NDArray[np.float32]:
            self._images.expect(view, rows)
            places = self._filled_up(np.arange(len(rows)), size)
            outputs = [outputs_of(inputs).cpu() for inputs in ahead(load, batches(places, size), self.device)]
            return torch.cat(outputs).numpy()[: len(rows)]

        result, self._evaluation_batch = halve_until_it_fits(self._evaluation_batch, probabilities)
        return result

    def _make_outputs(self, cached: bool) -> Replayed:
        """Class probabilities of a batch, still on the device."""

        def probabilities(inputs: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), compute(self.device, self.task.precision):
                return torch.softmax(self._images.logits(inputs, cached=cached).float(), dim=1)

        return Replayed(probabilities, self.device, pool=self._pool)

    def _filled_up(self, places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """On a GPU the last batch is filled up: for another number of images its libraries choose kernels anew."""
        missing = -len(places) % size if self.device.type == "cuda" else 0
        return np.concatenate([places, np.repeat(places[-1:], missing)])

    def _report(self, begun: float, loss: float, timed_out: bool) -> EpochReport:
        self._images.validation_view()  # computed once: it must not count as the time of an evaluation
        evaluated = time.perf_counter()
        self._probabilities = self.validation_probabilities()
        metrics = all_metrics(self._probabilities, self._images.labels[self._images.val_rows])
        now = time.perf_counter()
        self._deadline.evaluation_seconds = now - evaluated
        return EpochReport(self.epoch, score_of(metrics, self.task.metric), metrics, loss, now - begun, timed_out)

    # -- what it hands out ---------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """The trial as it stands between two epochs."""
        training = {
            "scaler": self._scaler.state_dict(),
            "part": self._part,
            "epoch_seconds": self._epoch_seconds,
            "view_seconds": self._view_seconds,
            "view_uses": self._images.uses,
        }
        return Checkpoint(self.epoch, training, tensors_of(self._changing(), self._optimizer))

    def _changing(self) -> dict[str, torch.Tensor]:
        """The tensors that training changes: from scratch, the statistics of batch norms, too."""
        buffers = dict(self.backbone.model.named_buffers()) if self._scratch else {}
        return {**self.trained(), **buffers}

    def trained(self) -> dict[str, torch.Tensor]:
        """The tensors that are trained, by name."""
        return {name: tensor for name, tensor in self.backbone.model.named_parameters() if tensor.requires_grad}

    def card(self, report: EpochReport, trial_id: str) -> ModelCard:
        """The card of the model as it stands after `report`."""
        labels = self._images.labels[self._images.val_rows]
        return ModelCard(
            backbone=self.backbone.name,
            classes=self.task.classes,
            preprocessing=self._images.preprocessing.to_json(),
            freeze_depth=None if self._scratch else self.config["freeze_depth"],
            metric=self.task.metric,
            score=report.score,
            log_loss=report.metrics["log_loss"],
            validation=estimate(self.task.metric, self._probabilities, labels),
            trial_id=trial_id,
            epoch=report.epoch,
            config=self.config,
            provenance=self.task.provenance | {TRAINING: self._training_terms()},
        )

    def _training_terms(self) -> dict[str, Any]:
        """What else than the config decides what comes of it, as plain data."""
        task = self.task
        return {"planned": self.planned, "views": task.n_views, "threads": task.threads, "precision": task.precision}
