"""The end of a call: what is kept back of the time for it, and the winner loaded, measured and told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotl.advice.advisor import Advice
from autotl.advice.benefit import Benefit
from autotl.advice.hindsight import look_back
from autotl.compute.device import local_cpus
from autotl.compute.memory import give_back_memory
from autotl.data.pixels import PixelStore
from autotl.errors import SearchError
from autotl.pipeline.budget import chosen_backbones
from autotl.pipeline.context import Call, Ground
from autotl.pipeline.earlier_runs import YARDSTICK_IMAGES, leave_yardstick
from autotl.pipeline.scratch_baseline import benefit_seconds
from autotl.predictor import Predictor, load_predictor
from autotl.records import TrialRecord
from autotl.result import FitResult
from autotl.storage.rundir import write_json
from autotl.storage.saved_model import load_card
from autotl.train.metrics import all_metrics, estimate

CLOSING_FACTOR = 2.0
"""The winner predicts in plain torch, up to so many times as slow as the images were embedded."""
SOUP_SECONDS = 2.0
"""For averaging the best models; validating the averages comes on top."""
CLOSING_SECONDS = 5.0
"""For ending Ray and loading the winner; the test split and the yardstick come on top."""
YARDSTICK_SHARE = 0.05
"""Of the time, at most, for the yardstick: fewer images are embedded for it where that is short."""
BLOCK = 256
"""Images that are predicted at once."""


@dataclass(frozen=True, slots=True)
class KeptBack:
    """Seconds of the time given that the search must leave.

    Attributes:
        average: for averaging the best models and validating two averages.
        benefit: for measuring what pretraining is worth; 0 where that is not done.
        end: for loading the winner, predicting the test split and embedding images for the yardstick.
    """

    average: float
    benefit: float
    end: float

    @property
    def total(self) -> float:
        """All that comes after the search."""
        return self.average + self.benefit + self.end


def keep_back(call: Call, ground: Ground, advice: Advice) -> KeptBack:
    """What comes after the search, from how fast the slowest backbone embedded the images."""
    slowest = min(one.images_per_second for one in advice.backbones)
    searched, _ = chosen_backbones(advice.backbones)
    n_train, n_val, n_test = (len(ground.dataset.indices(split)) for split in ("train", "val", "test"))
    tested = CLOSING_FACTOR * n_test / slowest
    embedded = CLOSING_FACTOR * min(YARDSTICK_IMAGES, n_train) / slowest
    return KeptBack(
        average=SOUP_SECONDS + 2 * n_val / slowest,
        benefit=benefit_seconds(call.settings, advice, n_train, searched),
        end=CLOSING_SECONDS + tested + min(embedded, YARDSTICK_SHARE * call.settings.budget.timeout),
    )


def close(
    call: Call,
    ground: Ground,
    advice: Advice,
    records: Sequence[TrialRecord],
    *,
    interrupted: bool,
    benefit: Benefit | None = None,
) -> FitResult:
    """Load the winner from the run folder, measure it on the test split, write and tell the result.

    Raises:
        KeyboardInterrupt: if the user ended the call before there was a model.
        SearchError: if there is no model for another reason.
    """
    if not call.run.has_model:
        if interrupted:
            raise KeyboardInterrupt
        raise SearchError("no trial came to an end, and the classifier of these backbones takes no linear probe")
    predictor = load_predictor(call.run.model)
    card = load_card(call.run.model)
    test = ground.dataset.indices("test")
    tested, metrics = None, {}
    if len(test):
        probabilities = _predict_rows(predictor, ground.store, test)
        labels = ground.dataset.labels[test]
        metrics = all_metrics(probabilities, labels)
        tested = estimate(ground.metric, probabilities, labels)
        give_back_memory()
    _leave_yardstick(call, ground, interrupted)
    result = FitResult(
        predictor=predictor,
        advice=advice,
        trials=tuple(records),
        metric=ground.metric,
        validation=card.validation,
        test=tested,
        test_metrics=metrics,
        run_dir=call.run.path,
        seconds=time.time() - call.begun,
        interrupted=interrupted,
        benefit=benefit,
        hindsight=look_back(advice, records, card),
    )
    write_json(call.run.result, result.to_json())
    n_stages = next(one.n_stages for one in advice.backbones if one.name == card.config["backbone"])
    call.console.winner(result, n_stages)
    return result


def _leave_yardstick(call: Call, ground: Ground, interrupted: bool) -> None:
    """For a later run that reuses this one's model. Whatever goes wrong, the model and the result are there."""
    seconds = 0.0 if interrupted else min(call.end - time.time(), YARDSTICK_SHARE * call.settings.budget.timeout)
    try:
        leave_yardstick(call.run, ground.dataset, ground.store, seconds, local_cpus())
    except (Exception, KeyboardInterrupt) as error:
        why = f"{type(error).__name__}: {error}"
        call.console.line(f"  no yardstick, so this run cannot be a source of later ones ({why})", "yellow")


def _predict_rows(predictor: Predictor, store: PixelStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    pixels = store.open()
    starts = range(0, len(rows), BLOCK)
    return np.concatenate([predictor.probabilities_of_pixels(pixels[rows[start : start + BLOCK]]) for start in starts])
