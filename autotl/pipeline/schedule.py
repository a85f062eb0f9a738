"""How a search divides its time: how many trials, of how many epochs, on how many cores each; see docs/search.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import NormalDist, median
from typing import Any

from autotl.space.search_space import Config, SearchSpace
from autotl.tune.pace import Predict
from autotl.tune.session import Slots

GAIN = 0.5
"""What fine-tuning without end gains over the linear probe, as a share of what the probe misses."""
STEPS = 50.0
"""Of training, after which a trial whose rates fell to zero has reached half of that gain, for up to ten classes.

For more it grows with the square root of their number. Longer schedules go on gaining, ever less: a hyperbola.
A judgement from pairs of short and long trials on hand signs, scans, traffic signs and drawings.
"""
FEW_CLASSES = 10
SPREAD = 0.1
"""Standard deviation of what whole trials reach, as a share of what the probe misses.

The best is chosen, and averaged with others, which is why several trials gain over one.
"""
BLINDNESS = 0.5
"""Trials that a further slot costs: what runs at the same time cannot learn from one another."""
MOST_STEPS = 1200
"""Longer schedules gain nothing that could be measured."""
FEWEST_EPOCHS, MOST_EPOCHS = 2, 40
"""Epochs of a full trial, where the space does not say."""
FEWEST_VIEWS, MOST_VIEWS = 3, 8
"""Augmented views of the training images that are cached for a frozen prefix.

On hand signs, two cost half a point of accuracy against views that are new in every epoch; so did three at depth 4.
"""
VIEWS_SHARE = 0.25
"""More than the fewest views are computed as long as they take at most this share of a trial."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a search is going to do.

    Attributes:
        slots: trials at once, and the cores and GPUs of each.
        epochs: of a full trial.
        views: that are cached of the training images.
        trials: full trials that are expected to fit the time; 0 where not one does.
        seconds: of a full trial, expected.
    """

    slots: Slots
    epochs: int
    views: int
    trials: int
    seconds: float

    @property
    def sentence(self) -> str:
        """The plan in words."""
        each = "one GPU" if self.slots.gpus else "one core" if self.slots.cpus == 1 else f"{self.slots.cpus} cores"
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        seconds = f"{self.seconds:.0f} s"
        trials = f"about {self.trials} trials of {epochs} ({seconds} each)"
        if self.trials == 1:
            trials = f"about 1 trial of {epochs} ({seconds})"
        elif not self.trials:
            trials = f"too short for a full trial of {epochs} ({seconds}), so what fits is tried"
        return f"{trials}, {self.slots.count} at once with {each} each, {self.views} augmented views of the images"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"sentence": self.sentence}


def plan_schedule(
    space: SearchSpace,
    start_points: Sequence[Config],
    predict_with: Callable[[Slots, int], Predict],
    n_train: int,
    n_classes: int,
    seconds: float,
    choices: Sequence[Slots],
    n_trials: int | None,
) -> Schedule:
    """The schedule with the highest expected score; see `value`.

    Args:
        space: what is searched; if it says how long a trial is, only the slots are chosen.
        start_points: the first is tried first, and all stand for the trials to come. Without any, an epoch is taken to
            last a second.
        predict_with: the prediction of a trial's time for slots and a number of cached views.
        n_train, n_classes: training images and their classes.
        seconds: for the search.
        choices: slots to choose from.
        n_trials: at most so many trials; None for as many as fit.
    """

    def cost(slots: Slots, epochs: int, views: int) -> tuple[float, float]:
        """Seconds of the first trial, and of a typical one."""
        if not start_points:
            return float(epochs), float(epochs)
        predict = predict_with(slots, views)
        times = [predict(point, epochs, 0) for point in start_points]
        return times[0], median(times)

    per_epoch = math.ceil(n_train / (start_points[0]["batch_size"] if start_points else 32))
    most = max(FEWEST_EPOCHS, min(MOST_EPOCHS, MOST_STEPS // per_epoch))
    lengths = (space.max_t,) if isinstance(space.max_t, int) else range(FEWEST_EPOCHS, most + 1)
    best: tuple[float, Schedule] | None = None
    for slots, epochs in product(choices, lengths):
        views = _affordable_views([cost(slots, epochs, count)[1] for count in range(FEWEST_VIEWS, MOST_VIEWS + 1)])
        views = max(FEWEST_VIEWS, min(views, epochs))
        first, typical = cost(slots, epochs, views)
        trials = slots.count * int(seconds // max(typical, 1e-9)) if first <= seconds else 0
        trials = min(trials, n_trials or trials)
        worth = value(trials - (slots.count - 1) * BLINDNESS, epochs * per_epoch, n_classes)
        if trials and (best is None or worth > best[0]):
            best = worth, Schedule(slots, epochs, views, trials, typical)
    if best is not None:
        return best[1]
    # Not even the shortest fits: as fast as can be, and the trial plans for what there is.
    slots, epochs = max(choices, key=lambda choice: choice.cpus), min(lengths)
    return Schedule(slots, epochs, FEWEST_VIEWS, 0, cost(slots, epochs, FEWEST_VIEWS)[1])


def _affordable_views(seconds: Sequence[float]) -> int:
    """As many views as take at most `VIEWS_SHARE` of a trial beyond the fewest.

    Args:
        seconds: of a trial with `FEWEST_VIEWS`, one more, and so on to `MOST_VIEWS`.
    """
    extra = [with_more - seconds[0] for with_more in seconds]
    return FEWEST_VIEWS + sum(more <= VIEWS_SHARE * seconds[0] for more in extra[1:])


def value(trials: float, steps: int, n_classes: int = FEW_CLASSES) -> float:
    """What the best of so many trials is expected to gain over the linear probe, as a share of what the probe misses.

    Args:
        trials: 0 or more; fewer than one gain nothing.
        steps: of training in each, at the end of which its rates have fallen to zero.
        n_classes: classes to tell apart.
    """
    if trials < 1:
        return 0.0
    enough = STEPS * math.sqrt(max(1.0, n_classes / FEW_CLASSES))
    return GAIN * steps / (steps + enough) + SPREAD * expected_maximum(trials)


def expected_maximum(count: float) -> float:
    """Of so many standard normal variables, 1 or more, by Blom's formula (doi:10.2307/2333017): 0, 0.56, 0.84, …"""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
