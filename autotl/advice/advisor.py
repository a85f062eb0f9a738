"""All of the advice in one piece of data: each statement with its evidence, in JSON and in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from autotl.advice.evidence import BackboneEvidence, rank
from autotl.advice.scenario import Scenario, Size, choose_scenario, measure_size
from autotl.advice.similarity import Similarity
from autotl.data.splits import Dataset

Severity = Literal["info", "advice", "warning"]

# Start points in fractions of a backbone's stages, for each scenario: (share frozen, factor on the source rate).
_STARTS: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.875, 0.1), (0.75, 0.1), (0.625, 0.05)),
    2: ((0.625, 0.3), (0.75, 0.3), (0.5, 0.3)),
    3: ((0.625, 0.5), (0.5, 0.5), (0.0, 0.3)),
    4: ((0.75, 0.3), (0.5, 0.2), (0.0, 0.1)),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing the advice says.

    Attributes:
        code: a stable name.
        severity: "info", "advice" or "warning".
        text: in plain words.
        evidence: the numbers behind it.
    """

    code: str
    severity: Severity
    text: str
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Advice:
    """What autotl thinks of a data set before the search.

    Attributes:
        similarity: to the source data.
        size: of the data set.
        scenario: one of four.
        backbones: ranked, best first.
        statements: everything in words.
        start_points: configs the search tries first.
    """

    similarity: Similarity
    size: Size
    scenario: Scenario
    backbones: tuple[BackboneEvidence, ...]
    statements: tuple[Statement, ...]
    start_points: tuple[dict[str, Any], ...]

    @property
    def strategy(self) -> str:
        """What to do, in a few words."""
        return self.scenario.strategy

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"strategy": self.strategy}

    def __str__(self) -> str:
        return "\n".join(statement.text for statement in self.statements)


def advise(dataset: Dataset, similarity: Similarity, evidence: list[BackboneEvidence]) -> Advice:
    """Put measurements together.

    Args:
        dataset: the manifest; its test split plays no part.
        similarity: of its training and validation images to the source.
        evidence: of one backbone or more.

    Raises:
        ValueError: if there is no evidence.
    """
    if not evidence:
        raise ValueError("advice needs the evidence of at least one backbone")
    size = measure_size(dataset.counts("train", "val"))
    scenario = choose_scenario(size.large, similarity.similar)
    ranked = rank(evidence)
    statements = [
        _say_size(size),
        _say_similarity(similarity),
        _say_scenario(scenario),
        _say_backbones(ranked),
        *(
            Statement(finding.code, "warning", finding.message + ".", {"paths": list(finding.paths[:20])})
            for finding in dataset.findings
            if finding.severity == "warning"
        ),
    ]
    return Advice(similarity, size, scenario, ranked, tuple(statements), _start_points(scenario, ranked))


def _say_size(size: Size) -> Statement:
    word = "large" if size.large else "small"
    classes = f"{size.n_classes} classes of {size.smallest} to {size.largest} images (median {size.median:g})"
    return Statement("size", "info", f"The data set is {word}: {size.n_images} images in {classes}.", asdict(size))


def _say_similarity(similarity: Similarity) -> Statement:
    relation, than = ("similar", "below") if similarity.similar else ("dissimilar", "above")
    text = (
        f"It is {relation} to {similarity.source}: similarity {similarity.similarity:.2f} of 1, distance "
        f"{similarity.distance:.3f} ({than} the threshold {similarity.threshold:g}), Fréchet distance "
        f"{similarity.frechet:.2f}, on {similarity.n_images} images."
    )
    return Statement("similarity", "info", text, asdict(similarity))


def _say_scenario(scenario: Scenario) -> Statement:
    also = "; training from scratch gets a small share of the search" if scenario.scratch else ""
    text = f"Scenario {scenario.number}, {scenario.name}: {scenario.strategy}{also}."
    return Statement("scenario", "advice", text, asdict(scenario))


def _say_backbones(ranked: tuple[BackboneEvidence, ...]) -> Statement:
    best = ranked[0]
    rows = ", ".join(f"{one.name} {one.probe_score:.3f} / {one.knn_score:.3f}" for one in ranked)
    text = f"Best frozen features: {best.name} ({best.metric} of linear probe / nearest neighbours: {rows})."
    return Statement("backbones", "advice", text, {"ranked": [one.to_json() for one in ranked]})


def _start_points(scenario: Scenario, ranked: tuple[BackboneEvidence, ...]) -> tuple[dict[str, Any], ...]:
    """Configs to try first: the scenario's depths on the best backbone, the first of them on the second best too."""
    points = [_point(ranked[0], share, factor) for share, factor in _STARTS[scenario.number]]
    points += [_point(second, *_STARTS[scenario.number][0]) for second in ranked[1:2]]
    if scenario.scratch:
        cheapest = max(ranked, key=lambda one: one.images_per_second)
        points.append(_point(cheapest, 0.0, 1.0) | {"initial_weights": "scratch"})
    return tuple(points)


def _point(backbone: BackboneEvidence, share_frozen: float, factor: float) -> dict[str, Any]:
    return {
        "backbone": backbone.name,
        "initial_weights": "pretrained",
        "freeze_depth": int(np.floor(share_frozen * backbone.n_stages)),
        "learning_rate_factor": factor,
        "head_learning_rate_factor": factor,
        "layer_decay": 0.8,
        "weight_decay": 0.02,
        "augmentation": "light",
        "label_smoothing": 0.0,
        "batch_size": 32,
    }
