"""The order of things: read, probe, advise, search, measure, finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotl import clock
from autotl.advice.advisor import Advice
from autotl.advice.benefit import Benefit
from autotl.compute.device import use_allowed_cores
from autotl.compute.memory import keep_freed_memory
from autotl.errors import SearchError
from autotl.interrupt import at_once, raise_if_pressed
from autotl.pipeline.budget import KeptBack, keep_back
from autotl.pipeline.context import RunContext
from autotl.pipeline.finish import finish
from autotl.pipeline.guard import guarded
from autotl.pipeline.ingest import read_data
from autotl.pipeline.probe import make_advice, probe_backbones
from autotl.pipeline.scratch_baseline import measure_benefit
from autotl.pipeline.search import search
from autotl.records import TrialRecord
from autotl.result import FitResult
from autotl.storage.finished import keep_best
from autotl.storage.rundir import write_json
from autotl.tune.session import RaySession, Slots


def fit(context: RunContext, ray: RaySession) -> FitResult:
    """Everything. The model in the run folder is usable from the first linear probe on.

    Raises:
        InputError: if images cannot be decoded, or weights cannot be loaded.
        SearchError: if Ray could not be started.
        KeyboardInterrupt: if the user ended the call before there was any advice, or pressed Ctrl-C twice.
    """
    keep_freed_memory()
    use_allowed_cores()
    earlier = context.earlier
    records: list[TrialRecord] = [] if earlier is None else list(earlier.records)
    context.console.go_on(records)

    def keep(record: TrialRecord) -> None:
        records.append(record)
        context.callbacks.on_trial(record)

    data = read_data(context)
    advice, benefit, schedule = None, None, None
    try:
        probed = probe_backbones(context, data, keep)
        advice = make_advice(context, data, probed)
        write_json(context.run.advice, advice.to_json())
        raise_if_pressed()
        choices = _choices(context, ray)
        interrupted = False
        if choices:
            searched = search(context, data, probed, advice, choices, tuple(records), keep)
            interrupted, schedule = searched.interrupted, searched.schedule
        if not interrupted:
            with guarded(context.console, "the benefit of pretraining was not measured"):
                kept = keep_back(context.settings, advice, data.n_images)
                benefit = _measure_benefit(context, advice, kept, records, keep)
    except KeyboardInterrupt:
        if advice is None or at_once():
            if context.run.has_model:
                context.console.line(f"  interrupted; the best model so far is in {context.run.path}")
            raise
        interrupted = True
    keep_best(context.run.finished)
    return finish(context, data, advice, records, interrupted=interrupted, benefit=benefit, schedule=schedule)


def _choices(context: RunContext, ray: RaySession) -> tuple[Slots, ...]:
    """The ways to divide the running Ray; none where it was not up before the time was.

    Raises:
        SearchError: if Ray could not be started.
    """
    try:
        return ray.choices()
    except SearchError as error:
        if clock.now() < ray.deadline:
            raise
        context.console.line(f"  {error}; the time is up without a search", "red")
        return ()


def advise(context: RunContext) -> Advice:
    """The advice alone.

    Raises:
        InputError: as `fit`.
    """
    keep_freed_memory()
    use_allowed_cores()
    data = read_data(context, passes=1)
    return make_advice(context, data, probe_backbones(context, data))


def _measure_benefit(
    context: RunContext,
    advice: Advice,
    kept: KeptBack,
    records: Sequence[TrialRecord],
    keep: Callable[[TrialRecord], None],
) -> Benefit | None:
    """What pretraining is worth, where time is kept back for that and there is a model; shown and returned."""
    console = context.console
    if not kept.benefit and advice.scenario.scratch:
        console.line("  benefit of pretraining not measured: training from scratch would not fit a fifth of the time")
    if not kept.benefit or not context.run.has_model:
        return None
    end = context.end - kept.end
    if not context.settings.measure_benefit:  # unasked, it has no more than was kept back
        end = min(end, clock.now() + kept.benefit)
    measured = measure_benefit(context.run, records, end)
    for trial in measured.trials:
        keep(trial)
    if measured.benefit is None:
        console.line(f"  benefit of pretraining not measured: {measured.why}")
    else:
        console.benefit(measured.benefit)
    return measured.benefit
