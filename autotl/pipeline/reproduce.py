"""The winner of a run, trained once more from its record: does it reach the same score?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autotl import clock
from autotl.compute.device import pick_device
from autotl.errors import Problem, RunFolderError
from autotl.pipeline.averaging import AVERAGE, average
from autotl.pipeline.context import PreparedData, RunContext
from autotl.pipeline.ingest import read_data
from autotl.pipeline.probe import ProbedBackbone, probe_backbones
from autotl.pipeline.resume import Earlier, entries_here
from autotl.pipeline.schedule import MOST_VIEWS
from autotl.pipeline.search import make_task
from autotl.pipeline.validate import ValidInput
from autotl.records import Estimate, TrialRecord
from autotl.result import Reproduction
from autotl.space.files import load_space
from autotl.storage.saved_model import ModelCard
from autotl.threads import local_cpus
from autotl.train.loop import TRAINING, FineTuning
from autotl.train.metrics import estimate
from autotl.train.task import TrainingTask
from autotl.tune.session import Slots

if TYPE_CHECKING:
    import torch

FOREVER = 1e9
"""Seconds: nothing here is cut short."""
PROBE = "probe-"
"""Beginning of the trial id of a linear probe."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what a winner was trained, see `autotl.train.loop.TRAINING`.

    Attributes:
        planned: epochs of its schedule; None where its card does not say.
        views: augmented ones that frozen stages see.
        threads: cores of its slot.
        precision: that it computed in; None where its card does not say.
    """

    planned: int | None
    views: int
    threads: int
    precision: Any


def terms_of(card: ModelCard) -> Terms:
    """What the card says; older ones say nothing, and those of a probe have nothing to say."""
    plain = card.provenance.get(TRAINING)
    plain = plain if isinstance(plain, dict) else {}
    views, threads = plain.get("views", MOST_VIEWS), plain.get("threads", local_cpus())
    return Terms(plain.get("planned"), int(views), int(threads), plain.get("precision"))


def with_its_backbone(inputs: ValidInput, card: ModelCard) -> ValidInput:
    """The input of a call with the winner's backbone alone.

    Raises:
        RunFolderError: if its weights are no longer here.
    """
    name, here = card.config.get("backbone"), entries_here(inputs)
    if name not in here:
        found = f"the weights of {name} are no longer here"
        raise RunFolderError([Problem("run folder", "reproduce", found, remedy="install them again")])
    return replace(inputs, entries=(here[name],))


def lineage(records: Sequence[TrialRecord], trial_id: str) -> list[TrialRecord]:
    """The trials that have to be trained for one: those from whose weights it began, the first of them first.

    Raises:
        RunFolderError: if there is no record of one of them.
    """
    by_id = {record.trial_id: record for record in records}
    chain: list[TrialRecord] = []
    while trial_id:
        record = by_id.pop(trial_id, None)
        if record is None:
            found = f"there is no record of trial {trial_id}, which the winner comes from"
            raise RunFolderError([Problem("run folder", "trials.jsonl", found)])
        chain.insert(0, record)
        trial_id = record.continues
    return chain


def reproduce(context: RunContext, card: ModelCard, earlier: Earlier, changed: Sequence[str]) -> Reproduction:
    """Train the winner of an earlier run again.

    Args:
        context: of this call, with a run folder of its own, the backbone of the winner alone, and what is known of the
            earlier run.
        card: of the winner.
        earlier: its run's trials.
        changed: what is not as it was then.

    Raises:
        RunFolderError: if the data has changed, or a record is missing.
        BackboneError: if the weights are missing.
    """
    terms = terms_of(card)
    data = read_data(context)
    if terms.precision is not None and terms.precision != data.precision:
        changed = (*changed, f"trained in {terms.precision}, here {data.precision} is faster")
        data = replace(data, precision=terms.precision)
    (probed,) = probe_backbones(context, data)
    members = card.provenance.get(AVERAGE, [card.trial_id])
    trials = [str(name) for name in members if not str(name).startswith(PROBE)]
    trained: list[str] = []
    if not trials:
        again = _probe_estimate(probed, data)
    else:
        task = _task(context, data, probed, earlier, terms)
        fitted = [_fitted(context, task, lineage(earlier.records, name), card, trained) for name in trials]
        again = fitted[0].estimate
        if AVERAGE in card.provenance:
            again = _average_estimate(task, fitted, with_start=len(trials) < len(members))
    return Reproduction(
        trial_id=card.trial_id,
        metric=card.metric,
        recorded=card.validation,
        again=again,
        trained=tuple(trained),
        changed=tuple(changed),
        seconds=clock.now() - context.begun,
    )


def _probe_estimate(probed: ProbedBackbone, data: PreparedData) -> Estimate:
    val = data.dataset.among(probed.prepared.rows, "val")
    probabilities = probed.probe.probabilities(probed.prepared.of(val))
    return estimate(data.metric, probabilities, data.dataset.labels[val])


def _task(
    context: RunContext, data: PreparedData, probed: ProbedBackbone, earlier: Earlier, terms: Terms
) -> TrainingTask:
    space = earlier.space or context.inputs.space or load_space("default")
    gpus = 1.0 if pick_device().type == "cuda" else 0.0
    slots, name = Slots(1, terms.threads, gpus), probed.evidence.name
    narrow = space.narrow(backbone=(name,))
    task = make_task(context, data, [probed], narrow, slots, clock.now() + FOREVER)
    return replace(task, n_views=terms.views, gpus=gpus)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trial that was trained again: its config, what it trained, and its score."""

    record: TrialRecord
    tensors: Mapping[str, torch.Tensor]
    estimate: Estimate


def _fitted(
    context: RunContext, task: TrainingTask, chain: Sequence[TrialRecord], card: ModelCard, trained: list[str]
) -> Fitted:
    """The last trial of a lineage, after all before it; `trained` gets their names."""
    start: Mapping[str, torch.Tensor] | None = None
    for record in chain:
        planned, epochs = record.epochs, record.epochs
        if record.trial_id == card.trial_id and not card.finished:  # the best epoch of one that was cut
            planned, epochs = terms_of(card).planned or record.epochs, card.epoch
        tuning = FineTuning(replace(task, max_t=planned), record.config, start)
        report = tuning.start()
        with context.console.progress(f"training {record.trial_id}", epochs) as show:
            while tuning.epoch < epochs:
                report = tuning.train_epoch()
                show(tuning.epoch)
        trained.append(record.trial_id)
        start = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tuning.trained().items()}
        validation = tuning.card(report, record.trial_id).validation
        context.console.line(f"  {record.trial_id}: {epochs} epochs, {task.metric} {validation.value:.4f}")
    assert start is not None
    return Fitted(chain[-1], start, validation)


def _average_estimate(task: TrainingTask, fitted: Sequence[Fitted], *, with_start: bool) -> Estimate:
    shallowest = min(fitted, key=lambda trial: trial.record.config["freeze_depth"])
    tuning = FineTuning(task, shallowest.record.config)
    start = {name: tensor.to("cpu", copy=True) for name, tensor in tuning.backbone.model.state_dict().items()}
    mean = average(start, [trial.tensors for trial in fitted], with_start=with_start)
    tuning.backbone.model.load_state_dict(mean)
    return tuning.card(tuning.start(), AVERAGE).validation
