"""What the oracle table says of advice: regret, rank correlation with similarity, and thresholds fitted to it.

The oracle is the best of several accuracies on a few hundred test images, and so partly the luckiest: every regret is
somewhat too high, for all rules alike. Compare rules with one another, or see `fair_regret`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracle import FEATURES, STRATEGIES
from scipy.stats import kendalltau, spearmanr

from autotl.advice.probes import propose_depth
from autotl.advice.scenario import HEADROOM, LARGE_IMAGES, choose_scenario, choose_strategy
from autotl.advice.similarity import FAR, to_similarity
from autotl.advice.start_points import depth_of

N_STAGES = 8
"""Of EfficientNet-Lite."""
DEPTHS = {N_STAGES: FEATURES} | {
    strategy.freeze_depth: strategy.name
    for strategy in STRATEGIES
    if strategy.freeze_depth is not None and not strategy.scratch
}
"""Strategies of the table by freeze depth."""
TUNED = tuple(name for depth, name in DEPTHS.items() if depth < N_STAGES)


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """A subset of a data set, its images drawn with a seed.

    Attributes:
        set, subset, seed: which.
        n_images: training and validation images.
        n_val: validation images.
        val, test: accuracy by strategy, at the learning rate that is best on the validation images; 0 where each
            diverged.
        stages, stage_errors: accuracy of lite0's stage probes by freeze depth, as the advice has it, with standard
            errors; empty, and what follows NaN, before it is measured.
        per_class: training and validation images of the median class.
        distance: to ImageNet.
        covered: share of images near a photograph.
        recall: of the probe of the backbone that is ranked first, mean over the classes, as the advice has it.
        probe: the strategy of keeping that backbone as it is.
    """

    set: str
    subset: str
    seed: int
    n_images: int
    n_val: int
    val: dict[str, float]
    test: dict[str, float]
    stages: dict[int, float] = field(default_factory=dict)
    stage_errors: dict[int, float] = field(default_factory=dict)
    per_class: float = math.nan
    distance: float = math.nan
    covered: float = 1.0
    recall: float = math.nan
    probe: str = FEATURES


Rule = Callable[[Draw], str]
"""Which strategy to follow."""


@dataclass(frozen=True, eq=False)
class Row:
    """A subset of a data set: what a strategy gives is the mean over the draws."""

    draws: tuple[Draw, ...]

    @property
    def set(self) -> str:
        """Which set."""
        return self.draws[0].set

    @property
    def subset(self) -> str:
        """Which subset."""
        return self.draws[0].subset

    @property
    def distance(self) -> float:
        """To ImageNet, mean of the draws."""
        return fmean(draw.distance for draw in self.draws)

    @cached_property
    def test(self) -> dict[str, float]:
        """Test accuracy by strategy; of those that every draw has."""
        names = [name for name in self.draws[0].test if all(name in draw.test for draw in self.draws)]
        return {name: fmean(draw.test[name] for draw in self.draws) for name in names}

    @cached_property
    def best(self) -> str:
        """The strategy that is best on the test images."""
        return max(self.test, key=lambda name: self.test[name])


def to_rows(lines: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[str]]:
    """Rows of the draws whose cells are all there, and what others lack; training from scratch may be missing.

    The learning rate is the one with the highest validation accuracy, then the lowest log loss.
    """
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["set"], line["subset"], line["seed"]].append(line)
    draws, incomplete = defaultdict(list), []
    wanted = {(strategy.name, rate) for strategy in STRATEGIES if not strategy.scratch for rate in strategy.factors}
    for (name, subset, seed), own in sorted(groups.items()):
        missing = wanted - {(line["strategy"], line["learning_rate"]) for line in own}
        if missing:
            incomplete.append(f"{name}, {subset}, seed {seed}: {len(missing)} of {len(wanted)} cells are missing")
        else:
            draws[name, subset].append(_draw(own))
    return [Row(tuple(found)) for found in draws.values()], incomplete


def _draw(lines: Sequence[Mapping[str, Any]]) -> Draw:
    best: dict[str, tuple[float, float, float]] = {}
    for line in lines:
        name, diverged = line["strategy"], (0.0, -math.inf, 0.0)
        found = diverged if "error" in line else (line["val_accuracy"], -line["val_log_loss"], line["test_accuracy"])
        best[name] = max(best.get(name, diverged), found)
    probe = next(line for line in lines if line["strategy"] == FEATURES)
    return Draw(
        set=probe["set"],
        subset=probe["subset"],
        seed=probe["seed"],
        n_images=probe["n_train"] + probe["n_val"],
        n_val=probe["n_val"],
        val={name: val for name, (val, _, _) in best.items()},
        test={name: test for name, (_, _, test) in best.items()},
    )


# -- regret ----------------------------------------------------------------------------------------------------------


def strategy_at(depth: int, n_stages: int = N_STAGES) -> str:
    """The strategy of the table nearest to a freeze depth; between two the one that trains fewer stages."""
    share = depth / n_stages * N_STAGES
    return DEPTHS[min(DEPTHS, key=lambda known: (abs(known - share), -known))]


def regret(row: Row, rule: Rule) -> float:
    """Points of test accuracy by which a rule is behind the row's best strategy."""
    return 100 * (row.test[row.best] - fmean(draw.test[rule(draw)] for draw in row.draws))


def fair_regret(row: Row, rule: Rule) -> float:
    """The same against the strategy that is best on the other draws, and not the luckiest on this one.

    Where a set has a test split of its own, the draws share its images, and the strategy is still a little lucky.
    NaN where there is one draw; below zero where the rule is better than that strategy.
    """
    behind = []
    for draw in row.draws:
        others = Row(tuple(other for other in row.draws if other is not draw))
        best = max(row.test, key=lambda name: others.test[name]) if others.draws else None
        behind.append(draw.test[best] - draw.test[rule(draw)] if best else math.nan)
    return 100 * fmean(behind)


def on_validation(draw: Draw) -> str:
    """What a search of the whole table would choose: the best strategy on the validation images."""
    return max(draw.val, key=lambda name: draw.val[name])


def gain(row: Row) -> float:
    """Points of test accuracy of the best fine-tuning beyond feature extraction, both with lite0."""
    return 100 * (max(row.test[name] for name in TUNED) - row.test[FEATURES])


# -- correlation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Correlation:
    """A coefficient with its 95% interval."""

    name: str
    value: float
    low: float
    high: float


def rank_correlations(
    x: Sequence[float], y: Sequence[float], groups: Sequence[str], draws: int = 2000, seed: int = 0
) -> tuple[Correlation, Correlation]:
    """Kendall's tau-b and Spearman's rho, with percentile bootstrap intervals over the groups: whole sets are drawn."""
    first, second, names = np.asarray(x, dtype=float), np.asarray(y, dtype=float), np.asarray(groups)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    generator = np.random.default_rng(seed)
    drawn = [
        np.concatenate([members[place] for place in generator.integers(0, len(members), len(members))])
        for _ in range(draws)
    ]

    def with_interval(name: str, function: Callable[..., Any]) -> Correlation:
        # A draw of one set over and over has no ranks.
        varied = [chosen for chosen in drawn if np.ptp(first[chosen]) > 0 and np.ptp(second[chosen]) > 0]
        values = [function(first[chosen], second[chosen]).statistic for chosen in varied]
        low, high = np.percentile(values, [2.5, 97.5]) if values else (math.nan, math.nan)
        return Correlation(name, float(function(first, second).statistic), float(low), float(high))

    return with_interval("Kendall's tau", kendalltau), with_interval("Spearman's rho", spearmanr)


# -- thresholds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What turns measurements into a strategy.

    Attributes:
        far: distance from which data is dissimilar.
        large: images from which a set is large.
        margin: standard errors within which the deepest stage is taken, see `propose_depth`.
        headroom: share of a class that the probe misses on average, from which frozen features are not good enough.
    """

    far: float
    large: float
    margin: float
    headroom: float


SHIPPED = Thresholds(FAR, LARGE_IMAGES, math.inf, HEADROOM)
HEADROOMS = (0.02, 0.05, HEADROOM, 0.15, 0.2, 0.3, math.inf)
LARGE = (100.0, 250.0, 500.0, math.inf)
MARGINS = (0.5, 1.0, 1.5, 2.0, 3.0, math.inf)


def follow(thresholds: Thresholds, draw: Draw) -> str:
    """The strategy: that of the advice, or a shallower freeze depth where stage probes clearly propose it."""
    similar = to_similarity(draw.distance, draw.covered, thresholds.far) > 0.5
    scenario = choose_scenario(draw.n_images >= thresholds.large, similar)
    strategy = choose_strategy(scenario, draw.per_class, draw.recall, thresholds.headroom)
    depth = depth_of(scenario, strategy, N_STAGES)
    errors = {stage: thresholds.margin * error for stage, error in draw.stage_errors.items()}
    depth = min(depth, propose_depth(draw.stages, errors))
    return draw.probe if depth == N_STAGES else strategy_at(depth)


def mean_regret(thresholds: Thresholds, rows: Sequence[Row]) -> float:
    """Over the rows."""
    return fmean(regret(row, partial(follow, thresholds)) for row in rows)


def far_grid(rows: Sequence[Row]) -> tuple[float, ...]:
    """Between each two distances that occur, below them all and above them all, and the shipped threshold."""
    seen = np.unique([draw.distance for row in rows for draw in row.draws])
    between: NDArray[np.float64] = (seen[1:] + seen[:-1]) / 2
    return (1e-6, *(round(float(value), 4) for value in between), round(float(seen[-1]) * 1.5, 4), FAR)


def fit_thresholds(rows: Sequence[Row]) -> Thresholds:
    """The thresholds with the lowest mean regret; among ties, those nearest to what ships."""

    def badness(thresholds: Thresholds) -> tuple[float, ...]:
        return (
            round(mean_regret(thresholds, rows), 9),
            -thresholds.margin,
            -thresholds.large,
            abs(thresholds.headroom - HEADROOM),
            abs(thresholds.far - FAR),
        )

    return min((Thresholds(*values) for values in product(far_grid(rows), LARGE, MARGINS, HEADROOMS)), key=badness)


def leave_one_set_out(rows: Sequence[Row]) -> dict[str, tuple[Thresholds, float]]:
    """For each set, the thresholds fitted without it and their mean regret on it."""
    found = {}
    for name in sorted({row.set for row in rows}):
        fitted = fit_thresholds([row for row in rows if row.set != name])
        found[name] = fitted, mean_regret(fitted, [row for row in rows if row.set == name])
    return found
