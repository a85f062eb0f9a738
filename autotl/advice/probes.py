"""Linear probes as measurements: noise of a score, how it grows with the data, and where in the backbone it is best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotl.data.splits import assign_folds, stratified_order
from autotl.train.metrics import score
from autotl.train.probe import Features, HeadSettings, Probe, fit_head, fit_probe, knn_probabilities

Draws = NDArray[np.float64]

N_DRAWS = 100
DRAWN_IMAGES = 1000
"""Resamples are of at most so many images, and their spread is scaled to all: metrics of areas are slow."""
CURVE_FRACTIONS = (0.25, 0.5)
FOLDS = 5
FOLDED_IMAGES = 700
"""Up to so many labelled images all of them are forecast in turn: the validation images alone are too few to rank by.

With 8 validation images every backbone is right on all; with 120 the standard error of an accuracy of 90% is 2.7
points, several times the difference between neighbours in the ranking.
"""
HELPS_FROM = 2.0
"""More data counts as helpful from so many standard errors on: about one false alarm in forty."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFeatures:
    """Features of training and validation images with their labels.

    Attributes:
        train, val: shape (images, dimensions).
        train_labels, val_labels: shape (images,).
        n_classes: number of classes.
        folds: of the training images, then of the validation images, if all are forecast in turn; see `folds_of`.
    """

    train: Features
    train_labels: NDArray[np.int64]
    val: Features
    val_labels: NDArray[np.int64]
    n_classes: int
    folds: NDArray[np.int64] | None = None

    def rounds(self) -> list[LabelledFeatures]:
        """What is fitted on, as `train`, and what is forecast, as `val`: a round for each fold, or the splits."""
        if self.folds is None:
            return [self]
        rows, labels = np.concatenate([self.train, self.val]), np.concatenate([self.train_labels, self.val_labels])
        return [
            LabelledFeatures(rows[~unseen], labels[~unseen], rows[unseen], labels[unseen], self.n_classes)
            for unseen in (self.folds == fold for fold in range(FOLDS))
        ]


def folds_of(
    labels: NDArray[np.int64], groups: NDArray[np.int64], n_classes: int, *, own_validation: bool
) -> NDArray[np.int64] | None:
    """A fold for every training and validation image where there are few of them.

    Args:
        labels, groups: of these images, as for `autotl.data.splits.assign_folds`.
        n_classes: number of classes.
        own_validation: whether the validation split is the user's: from another place, say, and not to be mixed.

    Returns:
        None if the validation images serve: if they are the user's, if there are more than `FOLDED_IMAGES` images, or
        if a class has fewer than `FOLDS` different ones.
    """
    if own_validation or len(labels) > FOLDED_IMAGES:
        return None
    return assign_folds(labels, groups, n_classes, FOLDS)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Scores of the linear probe on growing parts of the training images, each part inside the next.

    Attributes:
        n_images: training images of each part; the last is all of them, four fifths of all images where these are
            forecast in turn.
        scores, errors: with standard errors.
        gain: of the last part over the one before it.
        gain_error: its standard error, paired: of the images of the scores, not of which half it is.
    """

    n_images: tuple[int, ...]
    scores: tuple[float, ...]
    errors: tuple[float, ...]
    gain: float
    gain_error: float

    @property
    def more_data_helps(self) -> bool:
        """Whether the gain is larger than chance would have it."""
        return self.gain > HELPS_FROM * self.gain_error

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"more_data_helps": self.more_data_helps}


@dataclass(frozen=True, slots=True)
class StageProfile:
    """Scores of linear probes on what arrives at the stages' boundaries, by freeze depth.

    Attributes:
        scores, errors: with standard errors; the deepest is the embedding.
        proposed_depth: the freeze depth that follows, see `propose_depth`.
    """

    scores: dict[int, float]
    errors: dict[int, float]
    proposed_depth: int


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """What frozen features say of images that they were not fitted on.

    Attributes:
        probe, neighbours: class probabilities, shape (images, classes).
        labels: of the images.
    """

    probe: Features
    neighbours: Features
    labels: NDArray[np.int64]


def forecast(features: LabelledFeatures, probe: Probe, *, balanced: bool) -> Forecasts:
    """Forecasts of a linear probe and of the nearest neighbours: of all images in turn, or of the validation images.

    Args:
        features: embeddings.
        probe: fitted on the training images, its settings chosen on the validation images.
        balanced: as for `fit_probe`.
    """
    parts = features.rounds()
    neighbours = [knn_probabilities(part.train, part.train_labels, part.val, part.n_classes) for part in parts]
    heads = _heads(parts, probe, balanced=balanced)
    return Forecasts(_forecasts(parts, heads), np.concatenate(neighbours), _labels(parts))


def _heads(parts: list[LabelledFeatures], probe: Probe, *, balanced: bool) -> list[Probe]:
    """A probe for each round: `probe` itself, which is fitted on the training split, or one as strong."""
    if len(parts) == 1:
        return [probe]
    return [fit_head(part.train, part.train_labels, probe.settings, balanced=balanced) for part in parts]


def _forecasts(parts: list[LabelledFeatures], heads: list[Probe]) -> Features:
    return np.concatenate([head.probabilities(part.val) for part, head in zip(parts, heads, strict=True)])


def _labels(parts: list[LabelledFeatures]) -> NDArray[np.int64]:
    return np.concatenate([part.val_labels for part in parts])


def score_draws(probabilities: Features, labels: NDArray[np.int64], metric: str) -> Draws:
    """A score with its noise: bootstrap draws around the score on all images, shape (`N_DRAWS`,).

    Their standard deviation is the score's standard error. The resamples depend on nothing but the number of images,
    so draws of two forecasts of the same images are paired: the deviation of their difference is that of the
    difference of the scores.
    """
    generator = np.random.default_rng(0)
    n_drawn = min(len(labels), DRAWN_IMAGES)
    draws = np.empty(N_DRAWS)
    for place in range(N_DRAWS):
        chosen = generator.integers(0, len(labels), n_drawn)
        draws[place] = score(metric, probabilities[chosen], labels[chosen])
    centred: Draws = (draws - np.nanmean(draws)) * np.sqrt(n_drawn / len(labels))
    return score(metric, probabilities, labels) + centred


def standard_error(draws: Draws) -> float:
    """Standard deviation of draws, without those that have no value."""
    return float(np.nanstd(draws, ddof=1))


def learning_curve(
    features: LabelledFeatures, settings: HeadSettings, metric: str, *, balanced: bool
) -> LearningCurve | None:
    """Probe scores with a quarter, half and all of the training images; None if there are no smaller parts.

    Every part has an image of each class, so that a quarter of very little data is more than a quarter.

    The strength chosen on all images serves for every part: it is the variance of a prior on the weights, which does
    not depend on how many images there are.

    Args:
        features: embeddings.
        settings: of the probe.
        metric: of the scores.
        balanced: as for `fit_probe`.
    """
    parts = features.rounds()
    labels, orders = _labels(parts), [stratified_order(part.train_labels, 0) for part in parts]
    whole = min(map(len, orders))
    sizes = sorted({max(features.n_classes, round(fraction * whole)) for fraction in CURVE_FRACTIONS} | {whole})
    if len(sizes) < 2:
        return None
    draws, scores = [], []
    for size in sizes:
        heads = [
            fit_head(part.train[order[:size]], part.train_labels[order[:size]], settings, balanced=balanced)
            for part, order in zip(parts, orders, strict=True)
        ]
        probabilities = _forecasts(parts, heads)
        draws.append(score_draws(probabilities, labels, metric))
        scores.append(score(metric, probabilities, labels))
    return LearningCurve(
        n_images=tuple(sizes),
        scores=tuple(scores),
        errors=tuple(standard_error(of_size) for of_size in draws),
        gain=scores[-1] - scores[-2],
        gain_error=standard_error(draws[-1] - draws[-2]),
    )


def stage_profile(
    stages: Mapping[int, LabelledFeatures], settings: HeadSettings, metric: str, *, balanced: bool
) -> StageProfile:
    """A linear probe on the features of every stage.

    Each stage's strength is chosen as that of the embeddings was: they have so few channels that it takes a tenth of a
    second, and no one strength serves 16 channels as well as 1,280.

    Args:
        stages: features by freeze depth, of the same images; the deepest are the embeddings.
        settings: that were chosen for the embeddings.
        metric: of the scores.
        balanced: as for `fit_probe`.
    """
    scores, errors = {}, {}
    for depth, stage in sorted(stages.items()):
        if depth == max(stages):
            probe = fit_head(stage.train, stage.train_labels, settings, balanced=balanced)
        else:
            probe = fit_probe(
                stage.train, stage.train_labels, stage.val, stage.val_labels, stage.n_classes, balanced=balanced
            )
        parts = stage.rounds()
        probabilities, labels = _forecasts(parts, _heads(parts, probe, balanced=balanced)), _labels(parts)
        scores[depth] = score(metric, probabilities, labels)
        # Where all images are recognised the draws have no spread: one image is the least that counts.
        errors[depth] = max(standard_error(score_draws(probabilities, labels, metric)), 1 / len(labels))
    return StageProfile(scores, errors, propose_depth(scores, errors))


def propose_depth(scores: Mapping[int, float], errors: Mapping[int, float]) -> int:
    """The freeze depth that a profile of probe scores proposes.

    Up to the stage where a probe is best, pretrained features grow more useful for this data: they are worth keeping.
    After it they grow more specific to the data they were pretrained on: those stages are worth training. Scores are
    noisy and neighbouring stages close, so of all stages within one standard error of the best the deepest is taken
    (the one-standard-error rule of Breiman et al., 1984, with the most frozen as the simplest model). Where that is the
    last, no stage is too specific; whether training some gains anything, probes of frozen features cannot tell.

    Args:
        scores: larger is better, by freeze depth; at least one. NaN is no score; if all are, nothing is proposed.
        errors: their standard errors.
    """
    known = {depth: value for depth, value in scores.items() if not math.isnan(value)}
    if not known:
        return max(scores)
    best = max(known, key=lambda depth: known[depth])
    return max(depth for depth, value in known.items() if value >= known[best] - errors[best])
