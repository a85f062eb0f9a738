"""The search of a call: what is searched and trained on, the trials as they end, and the average of the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autotl import clock
from autotl.advice.advisor import Advice
from autotl.advice.ranking import choose_searched, without_duplicates
from autotl.advice.start_points import start_points_of
from autotl.compute.device import pick_device
from autotl.compute.host_memory import available_bytes
from autotl.compute.memory import give_back_memory
from autotl.console import Console
from autotl.errors import SearchError
from autotl.frozen.evaluation_views import kept_depth
from autotl.frozen.prepare import PreparedBackbone
from autotl.frozen.views import evaluation_key
from autotl.models.backbone import Preprocessing
from autotl.pipeline.averaging import average_winner
from autotl.pipeline.budget import keep_back
from autotl.pipeline.context import PreparedData, RunContext
from autotl.pipeline.guard import guarded
from autotl.pipeline.probe import ProbedBackbone, labelled_features
from autotl.pipeline.schedule import MOST_VIEWS, Schedule, plan_schedule
from autotl.records import TrialRecord
from autotl.space.files import load_space, to_toml
from autotl.space.search_space import Config, SearchSpace
from autotl.storage.saved_model import load_card
from autotl.storage.unfinished import unfinished_trials
from autotl.threads import local_cpus
from autotl.train.cost import START_SECONDS, base_depth, measure_backbones, measure_speed, speed_of
from autotl.train.probe import START_FLOOR, Probe, fit_probe, save_head
from autotl.train.task import BackboneFiles, TrainingTask, save_manifest
from autotl.tune.node_speed import at_the_slowest, measure_nodes
from autotl.tune.pace import Predict, images_of, predictor
from autotl.tune.runner import SearchPlan, run_search
from autotl.tune.session import Slots, slots_in_memory, worker_bytes

BASE_BYTES = 4 * 2**30
"""Largest size of the views from which deeper ones are computed."""
MEMORY_SHARE = 0.8
"""Of the memory that is free, for trials."""
NODES_SHARE = 0.1
"""Of the time that is left, for the nodes of a cluster to measure themselves."""
FEW_TRIALS = 3
"""So many do not share enough views for a base depth to pay."""


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What came of a search.

    Attributes:
        records: of the trials, in the order in which they ended.
        interrupted: whether the user ended it early.
        schedule: what was planned.
    """

    records: tuple[TrialRecord, ...]
    interrupted: bool
    schedule: Schedule


def search(
    context: RunContext,
    data: PreparedData,
    probed: Sequence[ProbedBackbone],
    advice: Advice,
    choices: Sequence[Slots],
    probes: Sequence[TrialRecord],
    on_record: Callable[[TrialRecord], None],
) -> SearchOutcome:
    """Run the trials until the time or their number is at an end, then average the best.

    Args:
        context, data, probed, advice: what is known.
        choices: how the machine or cluster may be divided among trials.
        probes: records of the linear probes.
        on_record: called with the record of every trial as it ends.

    A failure of Ray Tune itself is shown, and ends the search as if its time were up: there is a model.
    """
    kept = keep_back(context.settings, advice, data.n_images)
    plan, schedule = _plan(context, data, probed, advice, choices, context.end - kept.total, len(probes))
    left = plan.task.deadline - clock.now()
    _show_plan(context.console, plan, schedule, left)
    trials: list[TrialRecord] = []

    def on_trial(record: TrialRecord) -> None:
        trials.append(record)
        on_record(record)

    interrupted = False
    give_back_memory()  # the driver only waits now
    with context.console.countdown(left):
        try:
            interrupted = run_search(plan, on_trial).interrupted
        except SearchError as error:
            context.console.line(f"  {error}", "red")
    if not interrupted and context.run.has_model:
        with guarded(context.console, "the best models were not averaged"):
            _average(context, replace(plan.task, deadline=plan.task.deadline + kept.average), probes)
    return SearchOutcome(tuple(trials), interrupted, schedule)


def _plan(
    context: RunContext,
    data: PreparedData,
    probed: Sequence[ProbedBackbone],
    advice: Advice,
    choices: Sequence[Slots],
    deadline: float,
    first_number: int,
) -> tuple[SearchPlan, Schedule]:
    space, n_stages, duplicates = _narrow(context, probed, advice)
    context.run.space.write_text(to_toml(space), "utf-8")
    points = start_points_of(advice.start_points, space.backbones, duplicates)
    starts = [space.clip(point, n_stages) for point in points]
    task = make_task(context, data, probed, space, choices[0], deadline)
    choices = _with_room_in_memory(context, task, choices)
    task, cores = _as_fast_as_the_nodes(context.console, task, choices[0])
    task, schedule = _schedule(context, task, cores, space, starts, choices)
    plan = SearchPlan(
        run=context.run,
        task=task,
        space=space,
        n_stages=n_stages,
        start_points=starts,
        n_trials=context.settings.budget.n_trials,
        slots=schedule.slots,
        first_number=first_number,
        earlier=() if context.earlier is None else context.earlier.records,
    )
    return plan, schedule


def _with_room_in_memory(context: RunContext, task: TrainingTask, choices: Sequence[Slots]) -> Sequence[Slots]:
    """The ways to divide this machine for whose trials its memory, or that of the container, suffices."""
    if context.settings.resources.address is not None or choices[0].gpus:
        return choices
    each = worker_bytes(max(Path(files.state).stat().st_size for files in task.backbones.values()))
    free = available_bytes()
    most = max(1, int(min(MEMORY_SHARE * free / each, max(slots.count for slots in choices))))
    fitting = slots_in_memory(choices, most)
    if len(fitting) < len(choices) or fitting[0] != choices[0]:
        sizes = f"{free / 2**30:.1f} GiB are free, and a trial takes about {each / 2**30:.1f} GiB"
        context.console.line(f"  at most {most} at once: {sizes}", "yellow")
    return fitting


def _as_fast_as_the_nodes(console: Console, task: TrainingTask, slots: Slots) -> tuple[TrainingTask, int]:
    """The task with the costs of a cluster's slowest node, and the cores with which its speed was measured."""
    nodes = measure_nodes(task, slots, NODES_SHARE * (task.deadline - clock.now()))
    if not nodes:
        return task, local_cpus()
    task, slowest = at_the_slowest(task, nodes)
    console.line(f"  {len(nodes)} nodes measured; the time is planned for the slowest, {slowest.name}")
    return task, slots.cpus


def _schedule(
    context: RunContext,
    task: TrainingTask,
    cores: int,
    space: SearchSpace,
    starts: Sequence[Config],
    choices: Sequence[Slots],
) -> tuple[TrainingTask, Schedule]:
    """The task with the length of its trials and the cores of each, and how that was chosen.

    `cores` is how many the speed of the task was measured with.
    """
    measured, images = (cores, task.speed), images_of(task)

    def at(chosen: Slots, views: int) -> TrainingTask:
        speed = 1.0 if chosen.gpus else speed_of(chosen.cpus, measured)
        return replace(task, threads=chosen.cpus, gpus=chosen.gpus, speed=speed, n_views=views)

    def predict_with(chosen: Slots, views: int) -> Predict:
        return predictor(at(chosen, views), images)

    schedule = plan_schedule(
        space,
        starts,
        predict_with,
        images.n_train,
        len(task.classes),
        task.deadline - clock.now() - _first_seconds(task, starts),
        choices,
        context.settings.budget.n_trials,
    )
    task = replace(at(schedule.slots, schedule.views), max_t=schedule.epochs)
    return task if schedule.trials > FEW_TRIALS else _without_base_depths(task), schedule


def _first_seconds(task: TrainingTask, starts: Sequence[Config]) -> float:
    """What the first trials of the backbones that are tried first take longer."""
    return sum(task.backbones[name].stages.first for name in {start["backbone"] for start in starts})


def _without_base_depths(task: TrainingTask) -> TrainingTask:
    """Views of a few trials are computed from the images: a base for many depths would cost more than it saves."""
    files = {name: replace(backbone, base_depth=0) for name, backbone in task.backbones.items()}
    return replace(task, backbones=files)


def _narrow(
    context: RunContext, probed: Sequence[ProbedBackbone], advice: Advice
) -> tuple[SearchSpace, dict[str, int], dict[str, str]]:
    """The space with the best backbones only, the stages of each, and by name those with the weights of another."""
    weights = {backbone.evidence.name: backbone.prepared.weights_sha256 for backbone in probed}
    distinct, duplicates = without_duplicates(advice.backbones, weights)
    chosen, left_out = choose_searched(distinct)
    left_out |= {name: f"its weights are those of {same}" for name, same in duplicates.items()}
    for name, why in left_out.items():
        context.console.line(f"  {name}: not searched, {why}")
    space = context.inputs.space or load_space(advice.scenario.space)
    n_stages = {backbone.name: backbone.n_stages for backbone in chosen}
    return space.narrow(backbone=tuple(n_stages)), n_stages, duplicates


def _show_plan(console: Console, plan: SearchPlan, schedule: Schedule, left: float) -> None:
    """The frame of the search, and what an epoch and a full trial of each backbone take at some freeze depths."""
    task = plan.task
    backbones = "1 backbone" if len(plan.n_stages) == 1 else f"{len(plan.n_stages)} backbones"
    console.heading("Search")
    cut = len(unfinished_trials(plan.run.unfinished))
    if cut:
        console.line(f"  {cut} {'trial that was' if cut == 1 else 'trials that were'} cut: to go on first")
    console.line(f"  space {plan.space.name}, {backbones}, {max(0.0, left):.0f} s: {schedule.sentence}")
    predict = predictor(task)
    for name, files in task.backbones.items():
        depths = sorted({files.n_stages - 1, *range(0, files.n_stages, 3)}, reverse=True)
        configs = [{"backbone": name, "freeze_depth": depth, "augmentation": "light"} for depth in depths]
        times = [
            f"{depth}: {predict(config, 1, depth) - START_SECONDS:.1f} / {predict(config, task.max_t, 0):.0f} s"
            for depth, config in zip(depths, configs, strict=True)
        ]
        console.line(f"  {name}, an epoch / a full trial at freeze depth {', '.join(times)}")
    console.trial_header()


def _average(context: RunContext, task: TrainingTask, probes: Sequence[TrialRecord]) -> None:
    name = f"probe-{load_card(context.run.model).config['backbone']}"
    probe = next((record for record in probes if record.trial_id == name), None)
    context.console.line(f"  {average_winner(task, context.run, probe)}")
    give_back_memory()


def make_task(
    context: RunContext,
    data: PreparedData,
    probed: Sequence[ProbedBackbone],
    space: SearchSpace,
    slots: Slots,
    deadline: float,
) -> TrainingTask:
    """What the workers need to know; the length of a trial and its cores are still to be chosen.

    Args:
        context, data, probed: what was measured.
        space: what is searched.
        slots: how many trials run at once.
        deadline: clock.now() at which training stops.

    Returns:
        With `speed` as measured with all cores of this machine.
    """
    manifest = context.run.cache / "manifest.npz"
    save_manifest(manifest, data.dataset.labels, data.dataset.split)
    files = _backbone_files(context, data, probed, space)
    first = next(iter(files.values()))
    n_classes = len(data.dataset.classes)
    return TrainingTask(
        run_dir=str(context.run.path),
        store=str(data.store.path),
        manifest=str(manifest),
        classes=data.dataset.classes,
        metric=data.metric,
        balanced=data.balanced,
        backbones=files,
        precision=data.precision,
        max_t=1,
        n_views=MOST_VIEWS,
        cache_dir=str(context.cache.folder),
        cache_limit=context.cache.limit,
        data_fingerprint=data.dataset.image_fingerprint(),
        seed=context.settings.seed,
        deadline=deadline,
        threads=slots.cpus,
        speed=measure_speed(first.timm_name, Path(first.state), n_classes, data.precision, first.stages),
        provenance=data.provenance,
    )


def _backbone_files(
    context: RunContext, data: PreparedData, probed: Sequence[ProbedBackbone], space: SearchSpace
) -> dict[str, BackboneFiles]:
    searched = {backbone.evidence.name: backbone for backbone in probed if backbone.evidence.name in space.backbones}
    stages = measure_backbones(
        {name: (backbone.prepared.entry.timm_name, backbone.prepared.state) for name, backbone in searched.items()},
        len(data.dataset.classes),
        data.precision,
    )
    n_train, n_val, _ = data.n_images
    on_gpu = pick_device().type == "cuda"
    files = {}
    for name, backbone in searched.items():
        prepared = backbone.prepared
        head = context.run.cache / "heads" / f"{name}.npz"
        head.parent.mkdir(parents=True, exist_ok=True)
        save_head(_start_head(backbone, data), head)
        limit = min(BASE_BYTES, context.cache.limit // 2)
        lowest = space.lowest_depth(prepared.n_stages)
        files[name] = BackboneFiles(
            weights_sha256=prepared.weights_sha256,
            state=str(prepared.state),
            converted=str(prepared.converted or ""),
            head=str(head),
            source_learning_rate=prepared.entry.adamw_lr,
            n_stages=prepared.n_stages,
            seconds_per_image=_frozen_seconds(prepared, data.store.decode_seconds),
            timm_name=prepared.entry.timm_name,
            stages=stages[name],
            base_depth=0 if on_gpu else base_depth(stages[name], lowest, MOST_VIEWS * n_train + n_val, limit),
            evaluation_depth=_evaluation_depth(context, data, prepared),
            engine=prepared.engine if on_gpu else "",
        )
    return files


def _frozen_seconds(prepared: PreparedBackbone, decode_seconds: float) -> float:
    """Of one image on one core (or one GPU), without decoding it where that was done beside."""
    cores = 1 if pick_device().type == "cuda" else local_cpus()
    seconds = cores / prepared.images_per_second
    return max(seconds - decode_seconds, seconds / 10)


def _evaluation_depth(context: RunContext, data: PreparedData, prepared: PreparedBackbone) -> int:
    """The depth at which the embedding left the evaluation view of the training images; 0 if it did not."""
    depth = kept_depth(prepared.n_stages)
    key = evaluation_key(
        prepared.entry.timm_name,
        prepared.weights_sha256,
        depth,
        data.dataset.image_fingerprint(),
        data.dataset.indices("train"),
        Preprocessing.from_json(prepared.preprocessing),
    )
    return depth if context.cache.get(key) is not None else 0


def _start_head(probed: ProbedBackbone, data: PreparedData) -> Probe:
    """The head that trials start from (LP-FT, arXiv 2202.10054)."""
    features = labelled_features(probed.prepared, data.dataset)
    arguments = features.train, features.train_labels, features.val, features.val_labels, features.n_classes
    return fit_probe(*arguments, balanced=data.balanced, floor=START_FLOOR)
