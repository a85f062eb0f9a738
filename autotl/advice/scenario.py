"""Size times similarity: which of the four scenarios, and the strategy that follows from it.

The four scenarios and their strategies are those of the CS231n notes (cs231n.github.io/transfer-learning).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LARGE_IMAGES = 4000
LARGE_PER_CLASS = 100
"""A set is large from this many images on, if its median class has so many. Both are assumptions: no set of the table
in benchmarks/table is large."""

HEADROOM = 0.1
HEADROOM_PER_CLASS = 40
"""Small and similar data: the last stages are trained where frozen features leave headroom for it.

That is where the linear probe of the best backbone misses at least the share `HEADROOM` of a class, on average over the
classes (a probe that names the largest class always is right on most images), and the median class has so many images.
The share has the lowest regret of those tried, see benchmarks/table; there 20 images a class
are too few, and 60 enough.
"""

Strategy = Literal["feature extraction", "freeze the first stages, train the rest", "fine-tune everything"]


@dataclass(frozen=True, slots=True)
class Size:
    """How much data there is, without the test split.

    Attributes:
        n_images, n_classes: in all.
        smallest, median, largest: images a class.
        imbalance: `largest` to `smallest`.
        large: at least `LARGE_IMAGES` images, and `LARGE_PER_CLASS` in the median class.
    """

    n_images: int
    n_classes: int
    smallest: int
    median: float
    largest: int
    imbalance: float
    large: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """One of the four.

    Attributes:
        number: 1 small and similar, 2 small and dissimilar, 3 large and dissimilar, 4 large and similar.
        name: the same in words.
        strategy: what the textbook advises; evidence can change it, see `choose_strategy`.
        space: the shipped search space for it.
        scratch: whether training from scratch is worth an arm of the search.
    """

    number: int
    name: str
    strategy: Strategy
    space: str
    scratch: bool


SCENARIOS = (
    Scenario(1, "small and similar", "feature extraction", "small_similar", False),
    Scenario(2, "small and dissimilar", "freeze the first stages, train the rest", "small_dissimilar", False),
    Scenario(3, "large and dissimilar", "fine-tune everything", "large_dissimilar", True),
    Scenario(4, "large and similar", "fine-tune everything", "large_similar", False),
)


def measure_size(counts: NDArray[np.int64]) -> Size:
    """Size from the images a class, shape (classes,)."""
    total, median = int(counts.sum()), float(np.median(counts))
    large = total >= LARGE_IMAGES and median >= LARGE_PER_CLASS
    smallest, largest = int(counts.min()), int(counts.max())
    return Size(total, len(counts), smallest, median, largest, largest / max(1, smallest), large)


def choose_scenario(large: bool, similar: bool) -> Scenario:
    """The scenario for a size and a similarity."""
    number = {(False, True): 1, (False, False): 2, (True, False): 3, (True, True): 4}[large, similar]
    return SCENARIOS[number - 1]


def choose_strategy(
    scenario: Scenario, images_per_class: float, recall: float, least_headroom: float = HEADROOM
) -> Strategy:
    """The scenario's strategy, or that of training the last stages where frozen features leave headroom for it.

    Args:
        scenario: from size and similarity.
        images_per_class: of the median class.
        recall: of the best backbone's linear probe, mean over the classes, on images that it was not fitted on.
        least_headroom: share of a class that is missed on average, from which frozen features do not serve well enough.
    """
    headroom = recall <= 1 - least_headroom and images_per_class >= HEADROOM_PER_CLASS
    return "freeze the first stages, train the rest" if scenario.number == 1 and headroom else scenario.strategy
