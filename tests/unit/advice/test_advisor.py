"""The advice: statements with evidence, plain data, and start points inside the space it names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotl.advice.advisor import Advice, advise
from autotl.advice.evidence import BackboneEvidence
from autotl.advice.similarity import FAR, Similarity, to_similarity
from autotl.data.folder import Finding
from autotl.data.splits import Dataset
from autotl.models.catalog import load_catalog
from autotl.space.files import load_space

SCENARIOS = {1: (20, 0.02), 2: (20, 0.2), 3: (2500, 0.2), 4: (2500, 0.02)}
"""Images in each of two classes, and distance."""
STAGES = sorted({entry.stages for entry in load_catalog()} | {1, 2, 3})


def dataset(per_class: int, findings: tuple[Finding, ...] = (), in_test: int = 0) -> Dataset:
    """Two classes of `per_class` images, and as many test images as asked."""
    n = 2 * per_class + in_test
    labels = np.arange(n) % 2
    split = np.array(["test"] * in_test + ["val", "train", "train", "val"] * n, dtype="<U5")[:n]
    return Dataset(Path("/data"), ("ant", "bee"), tuple(f"{i}.png" for i in range(n)), labels, split, findings, False)


def similarity(distance: float) -> Similarity:
    return Similarity(distance, to_similarity(distance), FAR, 1.23, 40, "ImageNet-1k", "best.model")


def evidence(name: str, score: float, speed: float, n_stages: int = 8) -> BackboneEvidence:
    return BackboneEvidence(name, "accuracy", score, score - 0.1, {"accuracy": score}, 75.0, speed, n_stages)


def advice(number: int, n_stages: tuple[int, int] = (8, 8), **changes: Any) -> Advice:
    per_class, distance = SCENARIOS[number]
    both = [evidence("second.model", 0.7, 300.0, n_stages[1]), evidence("best.model", 0.9, 100.0, n_stages[0])]
    return advise(changes.pop("data", dataset(per_class)), similarity(distance), both)


@pytest.mark.parametrize("number", SCENARIOS)
def test_measurements_choose_the_scenario(number: int) -> None:
    found = advice(number)
    assert found.scenario.number == number
    assert found.strategy == found.scenario.strategy
    assert [one.name for one in found.backbones] == ["best.model", "second.model"]


def test_data_at_the_threshold_counts_as_dissimilar() -> None:
    one = [evidence("best.model", 0.9, 1.0)]
    assert advise(dataset(20), similarity(FAR), one).scenario.number == 2
    assert advise(dataset(20), similarity(FAR - 1e-9), one).scenario.number == 1


def test_test_images_do_not_make_a_set_large() -> None:
    found = advice(4, data=dataset(1999, in_test=4000))
    assert found.size.n_images == 3998
    assert not found.size.large


@pytest.mark.parametrize("number", SCENARIOS)
def test_every_statement_carries_evidence(number: int) -> None:
    statements = advice(number).statements
    assert [one.code for one in statements] == ["size", "similarity", "scenario", "backbones"]
    for one in statements:
        assert one.evidence
        assert one.text.endswith(".")
        assert not one.text.endswith("..")
        assert one.severity in ("info", "advice", "warning")


def test_statements_say_the_numbers_of_their_evidence() -> None:
    size, alike, scenario, backbones = advice(2).statements
    assert size.evidence["n_images"] == 40
    assert "small: 40 images in 2 classes of 20 to 20" in size.text
    assert alike.evidence["distance"] == 0.2
    assert "dissimilar to ImageNet-1k" in alike.text
    assert "distance 0.200 (above the threshold 0.075)" in alike.text
    assert scenario.evidence["number"] == 2
    assert "Scenario 2, small and dissimilar: freeze the first stages" in scenario.text
    assert [one["name"] for one in backbones.evidence["ranked"]] == ["best.model", "second.model"]
    assert "best.model 0.900 / 0.800" in backbones.text


def test_only_scenario_3_speaks_of_training_from_scratch() -> None:
    assert ["from scratch" in str(advice(number)) for number in (1, 2, 3, 4)] == [False, False, True, False]


def test_text_is_one_line_a_statement() -> None:
    found = advice(1)
    assert str(found).splitlines() == [one.text for one in found.statements]


def test_warnings_about_the_data_become_statements_with_their_files() -> None:
    findings = (
        Finding("duplicates", "warning", "30 files have copies", tuple(f"{i}.png" for i in range(30))),
        Finding("layout", "info", "no test split"),
    )
    extra = advice(1, data=dataset(20, findings)).statements[4:]
    assert [(one.code, one.severity, one.text) for one in extra] == [("duplicates", "warning", "30 files have copies.")]
    assert extra[0].evidence["paths"][0] == "0.png"


@pytest.mark.parametrize("number", SCENARIOS)
def test_advice_is_json(number: int) -> None:
    found = advice(number)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["strategy"] == found.strategy
    assert plain["scenario"] == dataclasses.asdict(found.scenario)
    assert plain["start_points"] == list(found.start_points)
    assert len(plain["statements"]) == len(found.statements)


@pytest.mark.parametrize("number", SCENARIOS)
@pytest.mark.parametrize("n_stages", STAGES)
def test_clipped_start_points_lie_in_the_space(number: int, n_stages: int) -> None:
    found = advice(number, (n_stages, 5))
    stages = {one.name: one.n_stages for one in found.backbones}
    space = load_space(found.scenario.space).narrow(backbone=tuple(stages))
    clipped = [space.clip(point, stages) for point in found.start_points]
    assert all(space.contains(point, stages) for point in clipped)
    # Nothing is lost by clipping: backbones, weights, rates and augmentation were on offer.
    for point, original in zip(clipped, found.start_points, strict=True):
        kept = [name for name in point if name not in ("freeze_depth", "layer_decay")]
        assert {name: point[name] for name in kept} == {name: original[name] for name in kept}


@pytest.mark.parametrize("number", SCENARIOS)
def test_start_points_differ_and_need_no_clipping_with_eight_stages(number: int) -> None:
    found = advice(number)
    stages = {one.name: one.n_stages for one in found.backbones}
    space = load_space(found.scenario.space).narrow(backbone=tuple(stages))
    assert all(space.contains(point, stages) for point in found.start_points)
    clipped = [space.clip(point, stages) for point in found.start_points]
    assert all(point not in clipped[:place] for place, point in enumerate(clipped))


def test_start_points_begin_with_the_best_backbone_and_try_the_second() -> None:
    assert [point["backbone"] for point in advice(1).start_points] == ["best.model"] * 3 + ["second.model"]


def test_small_similar_data_starts_more_frozen_than_large_dissimilar_data() -> None:
    assert [advice(number).start_points[0]["freeze_depth"] for number in (1, 2, 3, 4)] == [7, 5, 5, 6]
    assert min(point["freeze_depth"] for point in advice(1).start_points) == 5
    assert min(point["freeze_depth"] for point in advice(4).start_points) == 0


def test_training_from_scratch_starts_on_the_fastest_backbone_in_scenario_3_only() -> None:
    scratch = {
        number: [point for point in advice(number).start_points if point["initial_weights"] == "scratch"]
        for number in SCENARIOS
    }
    assert [len(scratch[number]) for number in (1, 2, 3, 4)] == [0, 0, 1, 0]
    assert scratch[3][0]["backbone"] == "second.model"
    assert scratch[3][0]["freeze_depth"] == 0


def test_one_backbone_is_enough_and_none_is_refused() -> None:
    found = advise(dataset(20), similarity(0.2), [evidence("only.model", 0.5, 1.0)])
    assert {point["backbone"] for point in found.start_points} == {"only.model"}
    with pytest.raises(ValueError, match="at least one backbone"):
        advise(dataset(20), similarity(0.2), [])
