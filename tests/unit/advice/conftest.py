"""Functions that make what advice is made from: data sets, similarities, and the evidence of backbones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotl.advice.advisor import Advice, advise
from autotl.advice.evidence import BackboneEvidence
from autotl.advice.probes import LearningCurve
from autotl.advice.similarity import FAR, FAR_IS_OF, Similarity, to_similarity
from autotl.data.folder import Finding
from autotl.data.splits import Dataset

SCENARIOS = {1: (20, 0.02), 2: (20, 0.2), 3: (2500, 0.2), 4: (2500, 0.02)}
"""Images in each of two classes, and distance."""


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    """A function that makes two classes of `per_class` images, and as many test images as asked."""

    def make(per_class: int, findings: tuple[Finding, ...] = (), in_test: int = 0) -> Dataset:
        n = 2 * per_class + in_test
        labels = np.arange(n) % 2
        split = np.array(["test"] * in_test + ["val", "train", "train", "val"] * n, dtype="<U5")[:n]
        names = tuple(f"{i}.png" for i in range(n))
        return Dataset(Path("/data"), ("ant", "bee"), names, labels, split, np.arange(n), findings, False)

    return make


@pytest.fixture(scope="session")
def make_similarity() -> Callable[..., Similarity]:
    """A function that makes the similarity of a distance to ImageNet, with changes."""

    def make(distance: float, **changes: Any) -> Similarity:
        plain = Similarity(distance, to_similarity(distance), FAR, 1.23, 40, *FAR_IS_OF)
        return dataclasses.replace(plain, **changes)

    return make


@pytest.fixture(scope="session")
def make_evidence() -> Callable[..., BackboneEvidence]:
    """A function that makes the evidence of a backbone whose neighbours score 0.1 less than its probe, with changes."""

    def make(name: str, score: float, speed: float = 1.0, n_stages: int = 8, **changes: Any) -> BackboneEvidence:
        plain = BackboneEvidence(name, "accuracy", score, score - 0.1, {"accuracy": score}, 75.0, speed, n_stages)
        return dataclasses.replace(plain, **changes)

    return make


@pytest.fixture(scope="session")
def probed_closely(make_evidence: Callable[..., BackboneEvidence]) -> Callable[..., BackboneEvidence]:
    """A function that makes the evidence of best.model with scores of its stages and a learning curve, with changes."""

    def make(proposed: int | None, gain: float = 0.05, **changes: Any) -> BackboneEvidence:
        values: dict[str, Any] = {
            "n_scored": 50,
            "proposed_depth": proposed,
            "stage_scores": {5: 0.6, 6: 0.95, 8: 0.9},
            "stage_errors": {5: 0.03, 6: 0.02, 8: 0.02},
            "learning_curve": LearningCurve((10, 20, 40), (0.7, 0.9 - gain, 0.9), (0.03, 0.02, 0.02), gain, 0.02),
        }
        return make_evidence("best.model", 0.9, 100.0, **(values | changes))

    return make


@pytest.fixture(scope="session")
def advice_for(
    make_dataset: Callable[..., Dataset],
    make_similarity: Callable[..., Similarity],
    make_evidence: Callable[..., BackboneEvidence],
) -> Callable[..., Advice]:
    """A function that advises in the scenario of a number, where best.model is ahead of second.model."""

    def make(number: int, best: BackboneEvidence | None = None, **changes: Any) -> Advice:
        per_class, distance = SCENARIOS[number]
        backbones = [make_evidence("second.model", 0.7, 300.0), best or make_evidence("best.model", 0.9, 100.0)]
        data, similarity = make_dataset(per_class), make_similarity(distance)
        return advise(changes.get("data", data), changes.get("similarity", similarity), backbones)

    return make
