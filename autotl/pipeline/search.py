"""The search of a call: what is searched, what it will cost, the trials as they end, and the average of the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from autotl.advice.advisor import Advice
from autotl.compute.memory import give_back_memory
from autotl.console import Console
from autotl.errors import SearchError
from autotl.pipeline.averaging import average_winner
from autotl.pipeline.budget import chosen_backbones, starts_with, without_twins
from autotl.pipeline.context import Call, Ground
from autotl.pipeline.finish import keep_back
from autotl.pipeline.probe import Probed
from autotl.pipeline.task import make_task
from autotl.records import TrialRecord
from autotl.space.files import load_space, to_toml
from autotl.space.search_space import SearchSpace
from autotl.storage.saved_model import load_card
from autotl.train.cost import START_SECONDS
from autotl.train.task import TrainingTask
from autotl.tune.pace import predictor
from autotl.tune.runner import Searched, SearchPlan, Slots, run_search


def search(
    call: Call,
    ground: Ground,
    probed: Sequence[Probed],
    advice: Advice,
    slots: Slots,
    before: Sequence[TrialRecord],
    on_record: Callable[[TrialRecord], None],
) -> Searched:
    """Run the trials until the time or their number is at an end, then average the best.

    Args:
        call, ground, probed, advice: what is known.
        slots: how many trials run at once.
        before: records of the linear probes.
        on_record: called with the record of every trial as it ends.

    Returns:
        The records of the trials, and whether the user ended the search early. A failure of Ray Tune itself is told,
        and ends it as if its time were up: there is a model.
    """
    kept = keep_back(call, ground, advice)
    plan = _plan(call, ground, probed, advice, slots, call.end - kept.total, len(before))
    left = plan.task.deadline - time.time()
    _tell_plan(call.console, plan, left)
    for record in before:
        call.console.note_score(record)
    call.console.trial_header(len(plan.n_stages))
    searched: list[TrialRecord] = []

    def on_trial(record: TrialRecord) -> None:
        searched.append(record)
        on_record(record)
        call.console.trial(record, plan.n_stages[record.config["backbone"]])

    interrupted = False
    give_back_memory()  # the driver only waits now
    with call.console.countdown(left):
        try:
            interrupted = run_search(plan, on_trial).interrupted
        except SearchError as error:
            call.console.line(f"  {error}", "red")
    if not interrupted and call.run.has_model:
        _average(call, replace(plan.task, deadline=plan.task.deadline + kept.average), before)
    return Searched(tuple(searched), interrupted)


def _plan(
    call: Call,
    ground: Ground,
    probed: Sequence[Probed],
    advice: Advice,
    slots: Slots,
    deadline: float,
    first_number: int,
) -> SearchPlan:
    space, n_stages, twins = _narrow(call, probed, advice)
    call.run.space.write_text(to_toml(space), "utf-8")
    starts = [space.clip(point, n_stages) for point in starts_with(advice, space.backbones, twins)]
    return SearchPlan(
        run=call.run,
        task=make_task(call, ground, probed, space, starts, slots, deadline),
        space=space,
        n_stages=n_stages,
        start_points=starts,
        n_trials=call.settings.budget.n_trials,
        slots=slots,
        first_number=first_number,
    )


def _narrow(call: Call, probed: Sequence[Probed], advice: Advice) -> tuple[SearchSpace, dict[str, int], dict[str, str]]:
    """The space with the best backbones only, the stages of each, and those left out for a twin."""
    weights = {one.evidence.name: one.prepared.weights_sha256 for one in probed}
    distinct, twins = without_twins(advice.backbones, weights)
    chosen, left_out = chosen_backbones(distinct)
    left_out |= {twin: f"its weights are those of {name}" for twin, name in twins.items()}
    for name, why in left_out.items():
        call.console.line(f"  {name}: not searched, {why}")
    space = call.checked.space or load_space(advice.scenario.space)
    return space.narrow(backbone=tuple(one.name for one in chosen)), {one.name: one.n_stages for one in chosen}, twins


def _tell_plan(console: Console, plan: SearchPlan, left: float) -> None:
    """The frame of the search, and what an epoch and a full trial of each backbone take at some freeze depths."""
    task = plan.task
    backbones = "1 backbone" if len(plan.n_stages) == 1 else f"{len(plan.n_stages)} backbones"
    console.heading("Search")
    console.line(
        f"  space {plan.space.name}, {backbones}, {task.max_t} epochs a full trial, "
        f"{plan.slots.count} trials at once, {max(0.0, left):.0f} s"
    )
    predict = predictor(task)
    for name, files in task.backbones.items():
        depths = sorted({files.n_stages - 1, *range(0, files.n_stages, 3)}, reverse=True)
        configs = [{"backbone": name, "freeze_depth": depth, "augmentation": "light"} for depth in depths]
        told = [
            f"{depth}: {predict(config, 1, depth) - START_SECONDS:.1f} / {predict(config, task.max_t, 0):.0f} s"
            for depth, config in zip(depths, configs, strict=True)
        ]
        console.line(f"  {name}, an epoch / a full trial at freeze depth {', '.join(told)}")


def _average(call: Call, task: TrainingTask, probes: Sequence[TrialRecord]) -> None:
    name = f"probe-{load_card(call.run.model).config['backbone']}"
    probe = next((one for one in probes if one.trial_id == name), None)
    call.console.line(f"  {average_winner(task, call.run, probe)}")
    give_back_memory()
