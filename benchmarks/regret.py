"""What the oracle table says of advice: regret, rank correlation with similarity, and thresholds fitted to it.

The oracle is the best of several accuracies on a few hundred test images, and so partly the luckiest: every regret is
somewhat too high, for all rules alike. Compare rules with one another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracle import FEATURES, STRATEGIES
from scipy.stats import kendalltau, spearmanr

from autotl.advice.scenario import LARGE_IMAGES, ROOM, choose_scenario, choose_strategy
from autotl.advice.similarity import FAR

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
class Row:
    """A set at a cut.

    Attributes:
        set, cut: which.
        n_images: training and validation images.
        n_val: validation images.
        val, test: accuracy by strategy, at the learning rate that is best on the validation images.
        stages: validation accuracy of the stage probes by freeze depth.
        per_class: training and validation images of the median class; NaN, as what follows, before it is measured.
        distance: to ImageNet.
        accuracy: of the probe of the backbone that is ranked first, as the advice has it.
        probe: the strategy of keeping that backbone as it is.
    """

    set: str
    cut: str
    n_images: int
    n_val: int
    val: dict[str, float]
    test: dict[str, float]
    stages: dict[int, float]
    per_class: float = math.nan
    distance: float = math.nan
    accuracy: float = math.nan
    probe: str = FEATURES

    @property
    def best(self) -> str:
        """The strategy that is best on the test images."""
        return max(self.test, key=lambda name: self.test[name])


def to_rows(lines: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[str]]:
    """The rows whose cells are all there, and what others lack; second seeds and training from scratch may be missing.

    Seeds are averaged. The learning rate is the one with the highest validation accuracy, then the lowest log loss.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["set"], line["cut"]].append(line)
    rows, incomplete = [], []
    for (name, cut), own in sorted(groups.items()):
        there = {(line["strategy"], line["learning_rate"]) for line in own}
        wanted = {(one.name, rate) for one in STRATEGIES if not one.scratch for rate in one.factors}
        if wanted - there:
            incomplete.append(f"{name}, {cut}: {len(wanted - there)} of {len(wanted)} cells are missing")
            continue
        probe = next(line for line in own if line["strategy"] == FEATURES)
        best = _best_rates([line for line in own if "error" not in line])
        rows.append(
            Row(
                set=name,
                cut=cut,
                n_images=probe["n_train"] + probe["n_val"],
                n_val=probe["n_val"],
                val={strategy: val for strategy, (val, _) in best.items()},
                test={strategy: test for strategy, (_, test) in best.items()},
                stages={int(depth): score for depth, score in probe["stages"].items()},
            )
        )
    return rows, incomplete


def _best_rates(lines: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    cells: dict[tuple[str, float], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        cells[line["strategy"], line["learning_rate"]].append(line)
    found: dict[str, tuple[float, float, float]] = {}
    for (strategy, _), seeds in cells.items():
        val, loss, test = (
            float(np.mean([seed[key] for seed in seeds])) for key in ("val_accuracy", "val_log_loss", "test_accuracy")
        )
        found[strategy] = max(found.get(strategy, (-math.inf, 0.0, 0.0)), (val, -loss, test))
    return {strategy: (val, test) for strategy, (val, _, test) in found.items()}


# -- regret ----------------------------------------------------------------------------------------------------------


def strategy_at(depth: int, n_stages: int = N_STAGES) -> str:
    """The strategy of the table nearest to a freeze depth; between two the one that trains fewer stages."""
    share = depth / n_stages * N_STAGES
    return DEPTHS[min(DEPTHS, key=lambda known: (abs(known - share), -known))]


def regret(row: Row, strategy: str) -> float:
    """Points of test accuracy by which a strategy is behind the row's best cell; one that diverged has 0 %."""
    return 100 * (row.test[row.best] - row.test.get(strategy, 0.0))


def on_validation(row: Row) -> str:
    """What a search of the whole table would choose: the best strategy on the validation images."""
    return max(row.val, key=lambda name: row.val[name])


def gain(row: Row) -> float:
    """Points of test accuracy of the best fine-tuning beyond feature extraction, both with lite0."""
    return 100 * (max(row.test.get(name, 0.0) for name in TUNED) - row.test[FEATURES])


# -- correlation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Correlation:
    """A coefficient with its 95 % interval."""

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
        margin: standard errors by which an earlier stage's probe must beat the last one's to be followed.
        room: share of wrong forecasts from which frozen features do not serve well enough.
    """

    far: float
    large: float
    margin: float
    room: float


SHIPPED = Thresholds(FAR, LARGE_IMAGES, math.inf, ROOM)
ROOMS = (0.02, 0.05, ROOM, 0.15, 0.2, 0.3, math.inf)
LARGE = (100.0, 250.0, 500.0, math.inf)
MARGINS = (0.5, 1.0, 1.5, 2.0, 3.0, math.inf)
_PARTIAL = "freeze the first stages, train the rest"
_BY_STRATEGY = {"feature extraction": N_STAGES, _PARTIAL: 5, "fine-tune everything": 0}
_WITH_ROOM = 6
"""First start points of the advice, of 8 stages."""


def follow(thresholds: Thresholds, row: Row) -> str:
    """The strategy: the scenario's, or a shallower freeze depth where that stage's probe clearly beats the last one's.

    Stages after the one whose features serve best are too specific to the source: they are trained.
    """
    scenario = choose_scenario(row.n_images >= thresholds.large, row.distance < thresholds.far)
    strategy = choose_strategy(scenario, row.per_class, row.accuracy, thresholds.room)
    depth = _BY_STRATEGY[strategy] if strategy == scenario.strategy else _WITH_ROOM
    best = max(row.stages, key=lambda stage: (row.stages[stage], stage))
    last = row.val[FEATURES]
    if row.stages[best] - last > 0 and row.stages[best] - last >= thresholds.margin * standard_error(last, row.n_val):
        depth = min(depth, best)
    return row.probe if depth == N_STAGES else strategy_at(depth)


def standard_error(accuracy: float, n: int) -> float:
    """Of an accuracy on `n` images; one hit and one miss more keep it above zero (Agresti and Coull 1998)."""
    share = (accuracy * n + 1) / (n + 2)
    return math.sqrt(share * (1 - share) / (n + 2))


def mean_regret(thresholds: Thresholds, rows: Sequence[Row]) -> float:
    """Over the rows."""
    return float(np.mean([regret(row, follow(thresholds, row)) for row in rows]))


def far_grid(rows: Sequence[Row]) -> tuple[float, ...]:
    """Between each two distances that occur, below them all and above them all, and the shipped threshold."""
    seen = np.unique([row.distance for row in rows])
    between: NDArray[np.float64] = (seen[1:] + seen[:-1]) / 2
    return (0.0, *(round(float(value), 4) for value in between), round(float(seen[-1]) * 1.5, 4), FAR)


def fit_thresholds(rows: Sequence[Row]) -> Thresholds:
    """The thresholds with the lowest mean regret; of equals, those nearest to what ships."""

    def badness(one: Thresholds) -> tuple[float, ...]:
        return round(mean_regret(one, rows), 9), -one.margin, -one.large, abs(one.room - ROOM), abs(one.far - FAR)

    return min((Thresholds(*values) for values in product(far_grid(rows), LARGE, MARGINS, ROOMS)), key=badness)


def leave_one_set_out(rows: Sequence[Row]) -> dict[str, tuple[Thresholds, float]]:
    """For each set, the thresholds fitted without it and their mean regret on it."""
    found = {}
    for name in sorted({row.set for row in rows}):
        fitted = fit_thresholds([row for row in rows if row.set != name])
        found[name] = fitted, mean_regret(fitted, [row for row in rows if row.set == name])
    return found
