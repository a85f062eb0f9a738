"""What pretrained weights are worth: two learning curves of one model to numbers and sentences.

The three benefits are those of Torrey & Shavlik ("Transfer Learning", Handbook of Research on Machine Learning
Applications, 2009, doi:10.4018/978-1-60566-766-9.ch011): a higher start, a higher slope, a higher asymptote. Where the
asymptote is lower, it is negative transfer. Training from scratch nearly always loses at first, so curves that end
before half of their schedule have no asymptote, and decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from autotl.advice.wording import difference_text, score_text
from autotl.records import Estimate
from autotl.train.intervals import wilson_interval

Verdict = Literal["positive transfer", "no measurable benefit", "negative transfer", "undecided"]
DECIDING_SHARE = 0.5
"""Of the planned epochs, for a verdict. A judgement: until then rates are high, and what began at chance climbs."""
LAST_EPOCHS = 3
"""At most so many epochs make the asymptote, and at most a third of all: one epoch alone is noisy."""


@dataclass(frozen=True, slots=True)
class Both:
    """One number of the pretrained and of the scratch curve."""

    pretrained: float
    scratch: float

    @property
    def difference(self) -> float:
        """How much higher the pretrained one is."""
        return self.pretrained - self.scratch


@dataclass(frozen=True, slots=True)
class Benefit:
    """Pretrained weights against random ones; `autotl.pipeline.scratch_baseline` says what is equal, and what is not.

    Attributes:
        metric: of the scores, which are larger when better (`log_loss` is negated).
        backbone: its name in configs.
        pretrained, scratch: validation score after every epoch, from epoch 0 (before training): the linear probe's,
            and chance.
        epochs: that both have; everything below is about these.
        planned: epochs for which the learning rates were scheduled, in both.
        start: scores after epoch 1.
        slope: mean gain an epoch over the first half of the epochs, from epoch 0 on.
        lead: area between the curves by the trapezoidal rule, divided by `epochs`: the mean distance in score.
        asymptote: means of the scores of the last epochs; of the last that both have, where the verdict is undecided.
        standard_error: of both asymptotes, as of a proportion of the validation images: the last epochs see the same
            images, so their mean is hardly more certain than one. NaN where the metric is not accuracy.
        difference: of the asymptotes, with its 95% interval.
        verdict: whether that interval lies above 0, holds it, or lies below; "undecided" where fewer than half of the
            planned epochs are common to both.
        tried: trials from which each curve was picked by the validation images, pretrained and scratch.
        images: training images of both curves, of how many; None for all.
        sentences: all of it in words.
    """

    metric: str
    backbone: str
    pretrained: tuple[float, ...]
    scratch: tuple[float, ...]
    epochs: int
    planned: int
    start: Both
    slope: Both
    lead: float
    asymptote: Both
    standard_error: Both
    difference: Estimate
    verdict: Verdict
    tried: tuple[int, int]
    images: tuple[int, int] | None
    sentences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; None for what is not a number."""
        plain = asdict(self) | {"pretrained": list(self.pretrained), "scratch": list(self.scratch)}
        if math.isnan(self.standard_error.pretrained):
            plain["standard_error"] = None
        images = None if self.images is None else list(self.images)
        return plain | {"tried": list(self.tried), "images": images, "sentences": list(self.sentences)}


def compare_curves(
    pretrained: Sequence[float],
    scratch: Sequence[float],
    metric: str,
    n_images: int,
    *,
    backbone: str,
    planned: int,
    half_width: float = math.nan,
    tried: tuple[int, int] = (1, 1),
    failure: str = "",
    images: tuple[int, int] | None = None,
) -> Benefit:
    """The three benefits, over the epochs that both curves have.

    Args:
        pretrained, scratch: validation scores from epoch 0 on, shapes (epochs + 1,); 2 values or more.
        metric: of the scores.
        n_images: validation images.
        backbone: its name in configs.
        planned: epochs for which the learning rates were scheduled.
        half_width: of the 95% interval of one score, where the metric is not accuracy (whose interval follows from
            `n_images`); it is taken for both curves.
        tried: trials from which each curve was picked, pretrained and scratch.
        failure: what ended a curve early, if it was not the time.
        images: training images of both curves, of how many; None for all.

    Raises:
        ValueError: if a curve has no epoch of training, or there are no images.
    """
    epochs = min(len(pretrained), len(scratch)) - 1
    if epochs < 1:
        raise ValueError("both curves need epoch 0 and one epoch of training or more")
    both = np.array([pretrained[: epochs + 1], scratch[: epochs + 1]], dtype=np.float64)
    half = _first_half(epochs)
    last = _last_epochs(epochs)
    gap = both[0] - both[1]
    ends = both[:, -last:].mean(axis=1)
    errors = np.sqrt(ends * (1 - ends) / n_images) if metric == "accuracy" else np.full(2, math.nan)
    difference = _difference(float(ends[0]), float(ends[1]), metric, n_images, half_width)
    measured = Benefit(
        metric=metric,
        backbone=backbone,
        pretrained=tuple(pretrained),
        scratch=tuple(scratch),
        epochs=epochs,
        planned=planned,
        start=_both(both[:, 1]),
        slope=_both((both[:, half] - both[:, 0]) / half),
        lead=float(((gap[1:] + gap[:-1]) / 2).mean()),
        asymptote=_both(ends),
        standard_error=_both(errors),
        difference=difference,
        verdict=_verdict(difference) if epochs >= DECIDING_SHARE * planned else "undecided",
        tried=tried,
        images=images,
        sentences=(),
    )
    return replace(measured, sentences=_sentences(measured, failure))


def _first_half(epochs: int) -> int:
    return max(1, epochs // 2)


def _last_epochs(epochs: int) -> int:
    """How many epochs at the end of so many make the asymptote."""
    return max(1, min(LAST_EPOCHS, epochs // 3))


def _both(values: Any) -> Both:
    return Both(float(values[0]), float(values[1]))


def _difference(pretrained: float, scratch: float, metric: str, n_images: int, half_width: float) -> Estimate:
    """Difference of two scores with its 95% interval, from the intervals of both, squared and added.

    Newcombe's hybrid score interval (doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I). Both
    scores are of the same images and tend to rise and fall together, so the interval is rather too wide.
    """
    if metric == "accuracy":
        low_p, high_p = wilson_interval(round(pretrained * n_images), n_images)
        low_s, high_s = wilson_interval(round(scratch * n_images), n_images)
        below = math.hypot(max(0.0, pretrained - low_p), max(0.0, high_s - scratch))
        above = math.hypot(max(0.0, high_p - pretrained), max(0.0, scratch - low_s))
    else:
        below = above = math.hypot(half_width, half_width)
    value = pretrained - scratch
    return Estimate(value, value - below, value + above, n_images)


def _verdict(difference: Estimate) -> Verdict:
    if difference.low > 0:
        return "positive transfer"
    return "negative transfer" if difference.high < 0 else "no measurable benefit"


# -- in words ----------------------------------------------------------------------------------------------------


def _sentences(benefit: Benefit, failure: str) -> tuple[str, ...]:
    undecided = benefit.verdict == "undecided"
    verdict = _undecided_sentence(benefit, failure) if undecided else _verdict_sentence(benefit)
    choice = (_choice_sentence(benefit),) if benefit.tried[0] > 1 else ()
    early_end = (_early_end_sentence(benefit),) if benefit.epochs < benefit.planned and not undecided else ()
    part = () if benefit.images is None else (_part_sentence(*benefit.images),)
    return (
        *part,
        _start_sentence(benefit),
        _slope_sentence(benefit),
        _asymptote_sentence(benefit),
        verdict,
        *choice,
        *early_end,
    )


def _part_sentence(n_images: int, n_all: int) -> str:
    return (
        f"Both were trained on {n_images} of {n_all} training images, as many as the time allows for enough epochs; "
        "as a rule pretraining gains less with more."
    )


def _start_sentence(benefit: Benefit) -> str:
    pretrained, scratch = _texts(benefit.start, benefit.metric, score_text)
    probe = score_text(benefit.pretrained[0], benefit.metric)
    by = difference_text(benefit.start.difference, benefit.metric)
    return f"Start: {pretrained} after one epoch against {scratch} from scratch, {by} (linear probe {probe})."


def _slope_sentence(benefit: Benefit) -> str:
    pretrained, scratch = _texts(benefit.slope, benefit.metric, difference_text)
    lead = difference_text(benefit.lead, benefit.metric)
    half = _first_half(benefit.epochs)
    return (
        f"Slope: {pretrained} an epoch over the first {_epochs_text(half)} against {scratch} from scratch, which "
        f"begins at chance; mean distance of the curves {lead}."
    )


def _asymptote_sentence(benefit: Benefit) -> str:
    pretrained, scratch = _texts(benefit.asymptote, benefit.metric, score_text)
    if benefit.metric == "accuracy":
        pretrained += f" (standard error {100 * benefit.standard_error.pretrained:.1f})"
        scratch += f" (standard error {100 * benefit.standard_error.scratch:.1f})"
    limits = sorted((benefit.difference.low, benefit.difference.high), reverse=benefit.metric == "log_loss")
    low, high = (difference_text(limit, benefit.metric).split()[0] for limit in limits)
    by = difference_text(benefit.difference.value, benefit.metric)
    common = f"Last {_epochs_text(_last_epochs(benefit.epochs), 'common ')}"
    what = common if benefit.verdict == "undecided" else "Asymptote"
    return f"{what}: {pretrained} against {scratch} from scratch, {by} (95% interval {low} to {high})."


def _texts(pair: Both, metric: str, in_words: Callable[[float, str], str]) -> tuple[str, str]:
    return in_words(pair.pretrained, metric), in_words(pair.scratch, metric)


def _epochs_text(count: int, kind: str = "") -> str:
    return f"{kind}epoch" if count == 1 else f"{count} {kind}epochs"


def _verdict_sentence(benefit: Benefit) -> str:
    if benefit.verdict == "positive transfer":
        return "Positive transfer: pretrained weights end higher than random ones, beyond the interval."
    if benefit.verdict == "negative transfer":
        return "Negative transfer: pretrained weights end lower than random ones, beyond the interval: they do harm."
    sooner = ", though they get there sooner" if benefit.lead > 0 and benefit.start.difference > 0 else ""
    return f"No measurable benefit: where pretrained weights end differs from random ones within the interval{sooner}."


def _undecided_sentence(benefit: Benefit, failure: str) -> str:
    remedy = failure or "more time is needed (`timeout`)"
    return (
        f"Undecided: both curves have only {benefit.epochs} of {benefit.planned} epochs in common, too few for a "
        f"verdict, as training from scratch is slow at first; {remedy}."
    )


def _choice_sentence(benefit: Benefit) -> str:
    pretrained, scratch = benefit.tried
    rivals = "was one" if scratch == 1 else f"were {scratch}"
    return (
        "The terms favour pretrained weights: their settings were searched, and their curve was picked from "
        f"{pretrained} trials by these validation images; from scratch there {rivals} to pick from."
    )


def _early_end_sentence(benefit: Benefit) -> str:
    return (
        f"Compared after {benefit.epochs} of {benefit.planned} epochs, all that both have: the learning rates had not "
        "yet fallen to zero."
    )
