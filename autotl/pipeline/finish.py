"""The end of a call: the winner loaded and measured, a reference set left for later runs, the result written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotl import clock
from autotl.advice.advisor import Advice
from autotl.advice.benefit import Benefit
from autotl.advice.hindsight import compare_with_winner
from autotl.compute.memory import give_back_memory
from autotl.data.pixels import PixelStore
from autotl.errors import SearchError
from autotl.interrupt import at_once, told_to_end
from autotl.pipeline.budget import PREDICTION_FACTOR, reference_seconds
from autotl.pipeline.context import PreparedData, RunContext
from autotl.pipeline.earlier_runs import leave_reference_set
from autotl.pipeline.guard import guarded
from autotl.pipeline.schedule import Schedule
from autotl.predictor import Predictor, load_predictor
from autotl.records import Estimate, TrialRecord
from autotl.result import FitResult
from autotl.storage.rundir import write_json
from autotl.storage.saved_model import load_card
from autotl.threads import local_cpus
from autotl.train.metrics import all_metrics, estimate

BLOCK = 256
"""Images that are predicted at once."""
PATIENCE = 4.0
"""Seconds that testing may take where something else than the user ended the fit."""


def finish(
    context: RunContext,
    data: PreparedData,
    advice: Advice,
    records: Sequence[TrialRecord],
    *,
    interrupted: bool,
    benefit: Benefit | None = None,
    schedule: Schedule | None = None,
) -> FitResult:
    """Load the winner from the run folder, measure it on the test split, write the result and hand it to callbacks.

    Raises:
        KeyboardInterrupt: if the user ended the call before there was a model, or pressed Ctrl-C twice.
        SearchError: if there is no model for another reason.
    """
    if not context.run.has_model:
        if interrupted:
            raise KeyboardInterrupt
        raise SearchError("no trial came to an end, and the classifier of these backbones takes no linear probe")
    predictor, card = load_predictor(context.run.model), load_card(context.run.model)
    tested: Estimate | None = None
    metrics: dict[str, float] = {}
    try:
        with guarded(context.console, "the model was not tested on the test images"):
            tested, metrics = _measure_in_time(context, predictor, data, advice)
        _leave_reference_set(context, data, interrupted)
    except KeyboardInterrupt:
        if at_once():
            raise
        interrupted = True
    result = FitResult(
        predictor=predictor,
        advice=advice,
        trials=tuple(records),
        metric=data.metric,
        validation=card.validation,
        test=tested,
        test_metrics=metrics,
        run_dir=context.run.path,
        seconds=clock.now() - context.begun,
        interrupted=interrupted,
        benefit=benefit,
        schedule=None if schedule is None else schedule.to_json(),
        hindsight=compare_with_winner(advice, records, card),
    )
    write_json(context.run.result, result.to_json())
    context.callbacks.on_end(result)
    return result


def _measure_in_time(
    context: RunContext, predictor: Predictor, data: PreparedData, advice: Advice
) -> tuple[Estimate | None, dict[str, float]]:
    """As `_measure`, but not where whoever told the fit to end (a batch system, say) would kill it meanwhile."""
    slowest = min(backbone.images_per_second for backbone in advice.backbones)
    seconds = PREDICTION_FACTOR * len(data.dataset.indices("test")) / slowest
    if told_to_end() is None or seconds <= PATIENCE:
        return _measure(predictor, data)
    where = f"`autotl evaluate {context.run.path} {data.dataset.root}`"
    context.console.line(f"  told to end, so not tested on the test images (about {seconds:.0f} s); {where} does that")
    return None, {}


def _measure(predictor: Predictor, data: PreparedData) -> tuple[Estimate | None, dict[str, float]]:
    """The metric with its interval and all metrics on the test split; None and nothing without one."""
    test = data.dataset.indices("test")
    if not len(test):
        return None, {}
    probabilities = _predict_rows(predictor, data.store, test)
    labels = data.dataset.labels[test]
    measured = estimate(data.metric, probabilities, labels), all_metrics(probabilities, labels)
    give_back_memory()
    return measured


def _predict_rows(predictor: Predictor, store: PixelStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    pixels = store.open(local_cpus())
    starts = range(0, len(rows), BLOCK)
    return np.concatenate([predictor.probabilities_of_pixels(pixels[rows[start : start + BLOCK]]) for start in starts])


def _leave_reference_set(context: RunContext, data: PreparedData, interrupted: bool) -> None:
    """For a later run that reuses this one's model. Whatever goes wrong, the model and the result are there."""
    seconds = min(context.end - clock.now(), reference_seconds(context.settings.budget.timeout))
    with guarded(context.console, "later runs cannot reuse this one's model"):
        leave_reference_set(context.run, data.dataset, data.store, 0.0 if interrupted else seconds, local_cpus())
