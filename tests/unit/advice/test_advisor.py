"""The advice: statements with evidence, plain data, and start points inside the space it names."""

from __future__ import annotations

import dataclasses
import json
import math
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
    return Dataset(
        Path("/data"), ("ant", "bee"), tuple(f"{i}.png" for i in range(n)), labels, split, np.arange(n), findings, False
    )


def similarity(distance: float) -> Similarity:
    return Similarity(distance, to_similarity(distance), FAR, 1.23, 40, *FAR_IS_OF)


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


def test_a_probe_that_leaves_room_changes_strategy_and_start_points_and_says_why() -> None:
    shy = dataclasses.replace(evidence("best.model", 0.8, 100.0), recall=0.8, n_scored=120)
    found = advise(dataset(50), similarity(0.02), [shy])
    assert (found.scenario.number, found.scenario.strategy) == (1, "feature extraction")
    assert found.strategy == found.to_json()["strategy"] == "freeze the first stages, train the rest"
    (said,) = (one for one in found.statements if one.code == "room")
    assert said.text == (
        "But the linear probe of best.model misses 20% of a class on average (120 validation images), and 50 images in "
        "the median class are enough to train on: freeze the first stages, train the rest (6 of the 8 stages of "
        "best.model frozen)."
    )
    assert (found.start_points[0]["freeze_depth"], found.start_reasons[0]) == (6, "the strategy")


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
    assert [one.code for one in statements] == ["size", "similarity", "scenario", "space", "backbones", "start_points"]
    for one in statements:
        assert one.evidence
        assert one.text.endswith(".")
        assert not one.text.endswith("..")
        assert one.severity in ("info", "advice", "warning")


def test_statements_say_the_numbers_of_their_evidence() -> None:
    size, alike, scenario, space, backbones, starts = advice(2).statements
    assert size.evidence["n_images"] == 40
    assert "small: 40 images in 2 classes of 20 to 20" in size.text
    assert alike.evidence["distance"] == 0.2
    assert "dissimilar to ImageNet-1k" in alike.text
    assert "from the distance. Distance 0.200, above the threshold 0.075;" in alike.text
    assert scenario.evidence["number"] == 2
    assert scenario.text == (
        "Scenario 2, small and dissimilar: freeze the first stages, train the rest (5 of the 8 stages of best.model "
        "frozen)."
    )
    assert space.text.startswith(
        "The scenario's search space is small_dissimilar: freeze depth 1 to 7 of 8, and 0.03 to 1 times"
    )
    assert space.evidence["freeze_depth"] == [1, 7]
    assert [one["name"] for one in backbones.evidence["ranked"]] == ["best.model", "second.model"]
    assert "best.model 0.900 / 0.800" in backbones.text
    assert starts.text.startswith(
        "First tries: freeze 5 of best.model (the strategy), freeze 6 of best.model (trains 1 stage fewer)"
    )


@pytest.mark.parametrize(
    ("first", "counted", "number"),
    [("run0/best.model", "run0", 2), ("run1/best.model", "run1", 1), ("best.model", "ImageNet-1k", 2)],
)
def test_the_source_of_the_weights_ranked_first_counts_and_is_named(first: str, counted: str, number: int) -> None:
    others = tuple(
        dataclasses.replace(
            similarity(distance),
            source=f"run{place}",
            backbone=f"run{place}/best.model",
            nearest={"a": (f"class of run{place}",)},
        )
        for place, distance in enumerate((0.3, 0.02))
    )
    names = ("best.model", "run0/best.model", "run1/best.model")
    to_imagenet = 0.2
    ranked = [evidence(name, 0.9 if name == first else 0.8, 1.0) for name in names]
    found = advise(dataset(20), similarity(to_imagenet), ranked, others)
    assert found.source_similarities == others
    assert found.similarity.distance == to_imagenet
    assert found.decisive_similarity.source == counted
    assert found.scenario.number == number
    codes = ("source_similarity", "source_nearest_classes", "scenario")
    by_code = {code: [one for one in found.statements if one.code == code] for code in codes}
    assert [one.evidence["source"] for one in by_code["source_similarity"]] == [one.source for one in others]
    assert f"similar to {others[0].source}" in by_code["source_similarity"][0].text
    nearest = [f"Nearest classes of {one.source}: a: class of {one.source}." for one in others]
    assert [one.text for one in by_code["source_nearest_classes"]] == nearest
    (scenario,) = by_code["scenario"]
    assert scenario.evidence["source"] == counted
    assert f"(what counts is the similarity to {counted}: {first} is ranked first)" in scenario.text


def test_without_own_sources_nothing_is_said_of_them() -> None:
    found = advice(1)
    assert found.decisive_similarity == found.similarity
    assert "sources" not in str(found)
    assert "source" not in next(one for one in found.statements if one.code == "scenario").evidence


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
    extra = advice(1, data=dataset(20, findings)).statements[6:]
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


def closer(proposed: int | None, gain: float = 0.05, **changes: Any) -> BackboneEvidence:
    """The best backbone, looked at closely."""
    changes = {"n_scored": 50} | changes
    curve = LearningCurve((10, 20, 40), (0.7, 0.9 - gain, 0.9), (0.03, 0.02, 0.02), gain, 0.02)
    seen = {"stage_scores": {5: 0.6, 6: 0.95, 8: 0.9}, "stage_errors": {5: 0.03, 6: 0.02, 8: 0.02}}
    return dataclasses.replace(
        evidence("best.model", 0.9, 100.0), proposed_depth=proposed, learning_curve=curve, **seen, **changes
    )


def advice_of(number: int, best: BackboneEvidence) -> Advice:
    per_class, distance = SCENARIOS[number]
    return advise(dataset(per_class), similarity(distance), [best, evidence("second.model", 0.7, 300.0)])


def test_a_depth_of_the_stage_probes_is_tried_after_the_scenarios() -> None:
    found = advice_of(3, closer(6))
    assert [point["freeze_depth"] for point in found.start_points[:4]] == [5, 0, 4, 6]
    assert found.start_reasons[:4] == (
        "trains 5 stages fewer",
        "the strategy",
        "trains 4 stages fewer",
        "proposed by the stage probes",
    )
    assert len(found.start_reasons) == len(found.start_points)
    assert "freeze 6 of best.model (proposed by the stage probes)" in str(found)


def test_a_depth_that_the_scenario_names_as_well_is_tried_once() -> None:
    found = advice_of(2, closer(6))
    assert [point["freeze_depth"] for point in found.start_points[:3]] == [5, 6, 4]
    assert found.start_reasons[1] == "trains 1 stage fewer, proposed by the stage probes"


def test_freezing_everything_is_no_trial_since_the_probe_is_there() -> None:
    assert advice_of(2, closer(8)).start_points == advice_of(2, closer(None)).start_points
    (statement,) = (one for one in advice_of(2, closer(8)).statements if one.code == "stages")
    assert "no stage is too specific" in statement.text


def test_stages_are_told_with_their_scores() -> None:
    (statement,) = (one for one in advice_of(2, closer(6)).statements if one.code == "stages")
    assert "Probes after so many of the 8 stages of best.model (accuracy): 5 0.600, 6 0.950, 8 0.900." in statement.text
    assert "(0.020) of the best (6) is 6: freeze 6 is tried, too." in statement.text
    assert statement.evidence["stage_scores"] == {"5": 0.6, "6": 0.95, "8": 0.9}
    assert statement.evidence["proposed_depth"] == 6


@pytest.mark.parametrize(("gain", "helps"), [(0.05, True), (0.03, False), (-0.05, False)])
def test_more_data_helps_if_the_last_half_did(gain: float, helps: bool) -> None:
    (statement,) = (one for one in advice_of(2, closer(6, gain)).statements if one.code == "learning_curve")
    assert statement.text.startswith("More data would help") == helps
    assert f"40 gain {gain:+.3f} ± 0.020 over 20." in statement.text
    assert "0.900 ± 0.020 with 40 training images" in statement.text
    assert statement.evidence["more_data_helps"] is helps


def test_of_very_few_images_it_is_not_said_that_more_would_not_help() -> None:
    for gain, begins in ((0.03, "20 images are too few to tell whether more data would help: "), (0.05, "More data")):
        (said,) = (one for one in advice_of(2, closer(6, gain, n_scored=20)).statements if one.code == "learning_curve")
        assert said.text.startswith(begins)


def test_backbones_are_told_beside_the_baselines_and_why_one_is_first() -> None:
    noisy = np.random.default_rng(0).normal(0, 0.05, 100)
    first = load_catalog()[0].name
    ranked = [
        dataclasses.replace(evidence(first, 0.90, 9.0), top1=74.0, draws=noisy),
        dataclasses.replace(evidence("heavy.model", 0.89, 1.0), top1=80.0, draws=noisy[::-1]),
    ]
    found = advise(dataset(20), similarity(0.2), ranked)
    (statement,) = (one for one in found.statements if one.code == "backbones")
    assert statement.text.startswith("Best frozen features: heavy.model")
    assert f"{first} is ahead by 0.010, which is within the noise" in statement.text
    assert "(80.0 against 74.0 %)" in statement.text
    assert statement.evidence["baselines"] == {"the best on ImageNet": "heavy.model", "always the same": first}
    assert statement.evidence["within_noise_of_the_highest_score"] == ["heavy.model", first]
    assert json.dumps(found.to_json(), allow_nan=False)


def test_imbalance_is_part_of_the_size() -> None:
    data = dataset(20)
    data.labels[:30] = 0
    size = advice(1, data=data).size
    assert (size.largest, size.smallest) == (35, 5)
    assert size.imbalance == 7.0
    assert "largest to smallest 7.0" in str(advice(1, data=data))


def test_advice_with_all_evidence_is_json() -> None:
    plain = json.loads(json.dumps(advice_of(2, closer(6)).to_json(), allow_nan=False))
    best = plain["backbones"][0]
    assert best["stage_scores"]["6"] == 0.95
    assert best["learning_curve"]["n_images"] == [10, 20, 40]
    assert best["learning_curve"]["more_data_helps"] is True
    assert "draws" not in best
    assert len(plain["start_reasons"]) == len(plain["start_points"])


def test_one_backbone_is_enough_and_none_is_refused() -> None:
    found = advise(dataset(20), similarity(0.2), [evidence("only.model", 0.5, 1.0)])
    assert {point["backbone"] for point in found.start_points} == {"only.model"}
    with pytest.raises(ValueError, match="at least one backbone"):
        advise(dataset(20), similarity(0.2), [])


def with_interval(low: float, high: float, probability: float) -> Similarity:
    return dataclasses.replace(
        similarity(0.07), similarity_interval=(low, high), distance_interval=(0.06, 0.08), probability=probability
    )


def test_the_interval_is_said_and_leaves_no_doubt_on_one_side_of_the_threshold() -> None:
    found = advise(dataset(20), with_interval(0.51, 0.6, 1.0), [evidence("best.model", 0.9, 1.0)])
    text = found.statements[1].text
    assert "similarity 0.53 of 1, 95 % interval 0.51 to 0.60, from the distance. Distance 0.070, below the " in text
    assert "threshold 0.075, 95 % interval 0.060 to 0.080; 100% of 40 images near a photograph" in text
    assert "doubt" not in text


def test_an_interval_that_holds_the_threshold_is_a_doubt() -> None:
    found = advise(dataset(20), with_interval(0.4, 0.6, 0.731), [evidence("best.model", 0.9, 1.0)])
    assert (
        "in doubt: the interval of the similarity holds 0.5, and 73% of resampled sets are" in found.statements[1].text
    )


def test_the_threshold_of_another_yardstick_is_said_to_be_another() -> None:
    assert "may be another here" not in str(advice(1))
    streets = dataclasses.replace(similarity(0.02), source="street scenes")
    text = advise(dataset(20), streets, [evidence("best.model", 0.9, 1.0)]).statements[1].text
    assert "found for ImageNet-1k as tf_efficientnet_lite0.in1k sees it, and may be another here." in text


def test_the_share_of_covered_images_is_named_where_it_decides() -> None:
    spread = dataclasses.replace(similarity(0.03), covered=0.4, similarity=to_similarity(0.03, 0.4), spread=0.004)
    text = advise(dataset(20), spread, [evidence("best.model", 0.9, 1.0)]).statements[1].text
    assert "dissimilar to ImageNet-1k: similarity 0.42 of 1, from the share of images near a photograph." in text
    assert "Distance 0.030, below the threshold 0.075 (± 0.004 with 30 images); 40% of 40 images near" in text


def test_too_few_images_for_an_interval_are_a_doubt() -> None:
    assert "in doubt: there are too few images" in advice(1).statements[1].text


def test_nearest_classes_become_a_statement() -> None:
    nearest = {f"class {number}": ("ant", "bee") for number in range(10)}
    near = dataclasses.replace(similarity(0.02), nearest=nearest)
    statements = advise(dataset(20), near, [evidence("best.model", 0.9, 1.0)]).statements
    (found,) = (one for one in statements if one.code == "nearest-classes")
    assert found.text.startswith("Nearest classes of ImageNet-1k: class 0: ant, bee; class 1: ant, bee; ")
    assert found.text.endswith("class 7: ant, bee; and 2 more.")
    assert found.evidence["nearest"] == nearest


def test_a_source_whose_model_is_a_linear_probe_does_not_decide() -> None:
    # Its backbone is as pretrained: it learned nothing from that data.
    near = dataclasses.replace(similarity(0.02), source="run", backbone="run/best.model", learned=False)
    found = advise(dataset(20), similarity(0.2), [evidence("run/best.model", 0.9, 1.0)], (near,))
    assert found.decisive_similarity.source == "ImageNet-1k"
    assert found.scenario.number == 2


@pytest.mark.parametrize("n_stages", STAGES)
def test_no_first_try_is_said_twice(n_stages: int) -> None:
    for number in SCENARIOS:
        points = advice(number, (n_stages, 5)).start_points
        assert all(point not in points[:place] for place, point in enumerate(points))


def test_scores_that_are_not_numbers_are_no_evidence() -> None:
    curve = LearningCurve((10, 20), (math.nan, math.nan), (math.nan, math.nan), math.nan, math.nan)
    blind = dataclasses.replace(closer(8), stage_scores={5: math.nan, 8: math.nan}, learning_curve=curve)
    assert not {"stages", "learning_curve"} & {one.code for one in advice_of(2, blind).statements}
    half_blind = dataclasses.replace(closer(8), stage_scores={5: math.nan, 8: 0.9})
    (said,) = (one for one in advice_of(2, half_blind).statements if one.code == "stages")
    assert "of the best (8) is 8" in said.text
