"""What each statement says in words, and the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from autotl.advice.advisor import Advice
from autotl.advice.evidence import BackboneEvidence
from autotl.advice.probes import LearningCurve
from autotl.advice.ranking import rank
from autotl.advice.similarity import Similarity, to_similarity
from autotl.advice.start_points import StartPoint
from autotl.advice.statements import (
    SHOWN_FILES,
    backbones_statement,
    finding_statements,
    learning_curve_statements,
    nearest_statement,
    similarity_statement,
    stage_statements,
    start_points_statement,
)
from autotl.data.folder import Finding
from autotl.models.catalog import load_catalog

MakeSimilarity = Callable[..., Similarity]
MakeEvidence = Callable[..., BackboneEvidence]


def test_statements_show_the_numbers_of_their_evidence(advice_for: Callable[..., Advice]) -> None:
    size, alike, scenario, space, backbones, starts = advice_for(2).statements
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
    assert [backbone["name"] for backbone in backbones.evidence["ranked"]] == ["best.model", "second.model"]
    assert "best.model 0.900 / 0.800" in backbones.text
    assert starts.text.startswith(
        "First tries: freeze 5 of best.model (the strategy), freeze 6 of best.model (trains 1 stage fewer)"
    )


class TestSimilarity:
    def test_an_interval_on_one_side_of_the_threshold_is_shown_and_leaves_no_doubt(
        self, make_similarity: MakeSimilarity
    ) -> None:
        sure = make_similarity(0.07, similarity_interval=(0.51, 0.6), distance_interval=(0.06, 0.08), probability=1.0)
        text = similarity_statement(sure).text
        assert "similarity 0.53 of 1, 95% interval 0.51 to 0.60, from the distance. Distance 0.070, below the " in text
        assert "threshold 0.075, 95% interval 0.060 to 0.080; 100% of 40 images near a photograph" in text
        assert "doubt" not in text

    def test_an_interval_that_holds_the_threshold_is_a_doubt(self, make_similarity: MakeSimilarity) -> None:
        unsure = make_similarity(
            0.07, similarity_interval=(0.4, 0.6), distance_interval=(0.06, 0.08), probability=0.731
        )
        text = similarity_statement(unsure).text
        assert "in doubt: the interval of the similarity holds 0.5, and 73% of resampled sets are" in text

    def test_too_few_images_for_an_interval_are_a_doubt(self, make_similarity: MakeSimilarity) -> None:
        assert "in doubt: there are too few images" in similarity_statement(make_similarity(0.02)).text

    def test_the_threshold_may_be_another_for_another_reference_set(self, make_similarity: MakeSimilarity) -> None:
        assert "may be another here" not in similarity_statement(make_similarity(0.02)).text
        text = similarity_statement(make_similarity(0.02, reference="street scenes")).text
        assert "found for ImageNet-1k as tf_efficientnet_lite0.in1k sees it, and may be another here." in text

    def test_the_share_of_covered_images_is_named_where_it_decides(self, make_similarity: MakeSimilarity) -> None:
        spread = make_similarity(0.03, covered=0.4, similarity=to_similarity(0.03, 0.4), spread=0.004)
        text = similarity_statement(spread).text
        assert "dissimilar to ImageNet-1k: similarity 0.42 of 1, from the share of images near a photograph." in text
        assert "Distance 0.030, below the threshold 0.075 (± 0.004 with 30 images); 40% of 40 images near" in text

    def test_the_first_nearest_classes_are_in_words_and_all_in_the_evidence(
        self, make_similarity: MakeSimilarity
    ) -> None:
        nearest = {f"class {number}": ("ant", "bee") for number in range(10)}
        found = nearest_statement(make_similarity(0.02, nearest=nearest))
        assert found.code == "nearest_classes"
        assert found.text.startswith("Nearest classes of ImageNet-1k: class 0: ant, bee; class 1: ant, bee; ")
        assert found.text.endswith("class 7: ant, bee; and 2 more.")
        assert found.evidence["nearest"] == nearest


class TestBackbones:
    def test_they_stand_beside_the_baselines_with_the_reason_for_the_first(self, make_evidence: MakeEvidence) -> None:
        noisy = np.random.default_rng(0).normal(0, 0.05, 100)
        first = load_catalog()[0].name
        ranked = rank(
            [
                make_evidence(first, 0.90, top1=74.0, draws=noisy),
                make_evidence("heavy.model", 0.89, top1=80.0, draws=noisy[::-1]),
            ]
        )
        found = backbones_statement(ranked)
        assert found.text.startswith("Best frozen features: heavy.model")
        assert f"{first} is ahead by 0.010, which is within the noise" in found.text
        assert "(80.0 against 74.0%)" in found.text
        assert found.evidence["baselines"] == {"the best on ImageNet": "heavy.model", "always the same": first}
        assert found.evidence["within_noise_of_the_highest_score"] == ["heavy.model", first]


class TestStages:
    def test_they_are_shown_with_their_scores(self, probed_closely: MakeEvidence) -> None:
        (found,) = stage_statements((probed_closely(6),))
        assert found.code == "stages"
        assert "Probes after so many of the 8 stages of best.model (accuracy): 5 0.600, 6 0.950, 8 0.900." in found.text
        assert "(0.020) of the best (6) is 6: freeze 6 is tried, too." in found.text
        assert found.evidence["stage_scores"] == {"5": 0.6, "6": 0.95, "8": 0.9}
        assert found.evidence["proposed_depth"] == 6

    def test_where_the_embedding_serves_best_no_stage_is_too_specific(self, probed_closely: MakeEvidence) -> None:
        (found,) = stage_statements((probed_closely(8),))
        assert "no stage is too specific" in found.text

    def test_backbones_that_were_not_probed_closely_have_none(
        self, make_evidence: MakeEvidence, probed_closely: MakeEvidence
    ) -> None:
        found = stage_statements((make_evidence("other.model", 0.95), probed_closely(6)))
        assert [statement.evidence["backbone"] for statement in found] == ["best.model"]

    def test_scores_that_are_not_numbers_are_no_evidence(self, probed_closely: MakeEvidence) -> None:
        assert stage_statements((probed_closely(8, stage_scores={5: math.nan, 8: math.nan}),)) == []
        (found,) = stage_statements((probed_closely(8, stage_scores={5: math.nan, 8: 0.9}),))
        assert "of the best (8) is 8" in found.text


class TestLearningCurve:
    @pytest.mark.parametrize(("gain", "helps"), [(0.05, True), (0.03, False), (-0.05, False)])
    def test_more_data_helps_if_the_last_half_did(self, probed_closely: MakeEvidence, gain: float, helps: bool) -> None:
        (found,) = learning_curve_statements((probed_closely(6, gain),))
        assert found.code == "learning_curve"
        assert found.text.startswith("More data would help") == helps
        assert f"40 gain {gain:+.3f} ± 0.020 over 20." in found.text
        assert "0.900 ± 0.020 with 40 training images" in found.text
        assert found.evidence["more_data_helps"] is helps

    @pytest.mark.parametrize(
        ("gain", "begins"),
        [(0.03, "20 images are too few to tell whether more data would help: "), (0.05, "More data would help: ")],
    )
    def test_very_few_images_never_show_that_more_would_not_help(
        self, probed_closely: MakeEvidence, gain: float, begins: str
    ) -> None:
        (found,) = learning_curve_statements((probed_closely(6, gain, n_scored=20),))
        assert found.text.startswith(begins)

    def test_scores_that_are_not_numbers_are_no_evidence(self, probed_closely: MakeEvidence) -> None:
        curve = LearningCurve((10, 20), (math.nan, math.nan), (math.nan, math.nan), math.nan, math.nan)
        assert learning_curve_statements((probed_closely(8, learning_curve=curve),)) == []

    def test_it_is_that_of_the_best_backbone_that_has_a_curve(
        self, make_evidence: MakeEvidence, probed_closely: MakeEvidence
    ) -> None:
        (found,) = learning_curve_statements((make_evidence("other.model", 0.95), probed_closely(6)))
        assert found.evidence["backbone"] == "best.model"
        assert learning_curve_statements((make_evidence("other.model", 0.95),)) == []


def test_first_tries_are_shown_with_their_reasons() -> None:
    configs = [{"backbone": "best.model", "freeze_depth": depth, "batch_size": 32} for depth in (5, 6)]
    reasons = ("the strategy", "proposed by the stage probes")
    found = start_points_statement([StartPoint(*pair) for pair in zip(configs, reasons, strict=True)])
    assert found.text == (
        "First tries: freeze 5 of best.model (the strategy), freeze 6 of best.model (proposed by the stage probes)."
    )
    assert found.evidence["start_points"][1] == {
        "backbone": "best.model",
        "freeze_depth": 6,
        "reason": "proposed by the stage probes",
    }


class TestFindings:
    def test_warnings_become_statements_in_their_order(self) -> None:
        findings = [
            Finding("duplicates", "warning", "2 files have copies", ("a.png", "b.png")),
            Finding("layout", "info", "no test split"),
            Finding("unreadable", "warning", "1 file cannot be read", ("c.png",)),
        ]
        found = finding_statements(findings)
        assert [(statement.code, statement.severity, statement.text) for statement in found] == [
            ("duplicates", "warning", "2 files have copies."),
            ("unreadable", "warning", "1 file cannot be read."),
        ]
        assert [statement.evidence for statement in found] == [{"paths": ["a.png", "b.png"]}, {"paths": ["c.png"]}]

    def test_only_the_first_files_are_in_the_evidence(self) -> None:
        paths = tuple(f"{number}.png" for number in range(SHOWN_FILES + 1))
        (found,) = finding_statements([Finding("duplicates", "warning", "many files have copies", paths)])
        assert found.evidence["paths"] == list(paths[:-1])

    def test_without_warnings_there_are_none(self) -> None:
        assert finding_statements([]) == []
        assert finding_statements([Finding("layout", "info", "no test split")]) == []
