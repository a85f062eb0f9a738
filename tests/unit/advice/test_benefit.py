"""The three benefits of known curves, their verdicts, and the sentences about them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from autotl.advice.benefit import Benefit, Both, compare_curves

PRETRAINED = (0.80, 0.84, 0.88, 0.90, 0.92, 0.94, 0.96)
SCRATCH = (0.10, 0.20, 0.40, 0.50, 0.60, 0.64, 0.68)


def compare(pretrained: tuple[float, ...], scratch: tuple[float, ...], **changes: Any) -> Benefit:
    values: dict[str, Any] = {"metric": "accuracy", "n_images": 100, "backbone": "resnet18", "planned": 6}
    return compare_curves(pretrained, scratch, **(values | changes))


def flat(start: float, end: float) -> tuple[float, ...]:
    """Three epochs at `end`."""
    return (start, end, end, end)


class TestNumbers:
    def test_the_start_is_the_score_after_one_epoch(self) -> None:
        assert compare(PRETRAINED, SCRATCH).start == Both(0.84, 0.20)
        assert compare(PRETRAINED, SCRATCH).start.difference == pytest.approx(0.64)

    def test_the_slope_is_the_mean_gain_over_the_first_half(self) -> None:
        slope = compare(PRETRAINED, SCRATCH).slope
        assert slope.pretrained == pytest.approx((0.90 - 0.80) / 3)
        assert slope.scratch == pytest.approx((0.50 - 0.10) / 3)

    def test_the_lead_is_the_area_between_the_curves_an_epoch(self) -> None:
        gaps = [p - s for p, s in zip(PRETRAINED, SCRATCH, strict=True)]
        area = sum(gaps) - (gaps[0] + gaps[-1]) / 2
        assert compare(PRETRAINED, SCRATCH).lead == pytest.approx(area / 6)

    def test_the_lead_of_parallel_curves_is_their_distance(self) -> None:
        assert compare((0.5, 0.6, 0.9), (0.3, 0.4, 0.7)).lead == pytest.approx(0.2)

    def test_the_asymptote_is_the_mean_of_the_last_third(self) -> None:
        asymptote = compare(PRETRAINED, SCRATCH).asymptote
        assert (asymptote.pretrained, asymptote.scratch) == (pytest.approx(0.95), pytest.approx(0.66))

    @pytest.mark.parametrize(("epochs", "last"), [(1, 1), (5, 1), (6, 2), (9, 3), (30, 3)])
    def test_the_last_third_is_one_to_three_epochs(self, epochs: int, last: int) -> None:
        rising = tuple(number / 100 for number in range(epochs + 1))
        expected = sum(rising[-last:]) / last
        assert compare(rising, rising).asymptote.pretrained == pytest.approx(expected)

    def test_the_standard_error_is_that_of_a_proportion(self) -> None:
        error = compare(flat(0.1, 0.9), flat(0.1, 0.5)).standard_error
        assert (error.pretrained, error.scratch) == (pytest.approx(0.03), pytest.approx(0.05))

    def test_the_interval_of_the_difference_is_newcombes(self) -> None:
        # Wilson's limits are the roots of (p - x)^2 = z^2 x (1 - x) / n; Newcombe's adds their distances in squares.
        n, z = 80, 1.959964
        difference = compare(flat(0.1, 56 / n), flat(0.1, 48 / n), n_images=n).difference
        (high_p, low_p), (high_s, low_s) = (
            sorted(np.roots([1 + z * z / n, -2 * p - z * z / n, p * p]), reverse=True) for p in (0.7, 0.6)
        )
        assert difference.value == pytest.approx(0.1)
        assert difference.n_images == n
        assert difference.low == pytest.approx(0.1 - math.hypot(0.7 - low_p, high_s - 0.6), abs=1e-6)
        assert difference.high == pytest.approx(0.1 + math.hypot(high_p - 0.7, 0.6 - low_s), abs=1e-6)

    def test_the_interval_has_a_width_where_all_or_none_are_right(self) -> None:
        n, z = 30, 1.959964
        width = z * z / (n + z * z)
        both = compare(flat(0.1, 1.0), flat(0.1, 1.0), n_images=n).difference
        assert (both.low, both.high) == (pytest.approx(-width, abs=1e-6), pytest.approx(width, abs=1e-6))
        difference = compare(flat(0.1, 1.0), flat(0.1, 0.0), n_images=n).difference
        assert (difference.low, difference.high) == (
            pytest.approx(1 - math.sqrt(2) * width, abs=1e-6),
            pytest.approx(1.0),
        )

    def test_only_epochs_that_both_have_count(self) -> None:
        short, whole = compare(PRETRAINED, SCRATCH[:4]), compare(PRETRAINED[:4], SCRATCH[:4])
        assert short.epochs == 3
        assert (short.lead, short.asymptote, short.slope) == (whole.lead, whole.asymptote, whole.slope)
        assert short.pretrained == PRETRAINED

    def test_one_epoch_is_enough(self) -> None:
        benefit = compare((0.8, 0.9), (0.1, 0.3))
        assert (benefit.epochs, benefit.asymptote) == (1, Both(0.9, 0.3))
        assert benefit.lead == pytest.approx(0.65)

    @pytest.mark.parametrize("curves", [((0.8,), SCRATCH), (PRETRAINED, ()), ((), ())])
    def test_a_curve_without_training_is_refused(self, curves: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        with pytest.raises(ValueError, match="both curves need epoch 0 and one epoch of training"):
            compare(*curves)


class TestVerdict:
    @pytest.mark.parametrize(
        ("pretrained", "scratch", "verdict"),
        [
            (0.9, 0.6, "positive transfer"),
            (0.9, 0.85, "no measurable benefit"),
            (0.85, 0.9, "no measurable benefit"),
            (1.0, 1.0, "no measurable benefit"),
            (0.6, 0.9, "negative transfer"),
        ],
    )
    def test_it_is_decided_by_the_interval_of_the_asymptote(
        self, pretrained: float, scratch: float, verdict: str
    ) -> None:
        assert compare(flat(0.5, pretrained), flat(0.1, scratch)).verdict == verdict

    def test_more_images_make_a_small_difference_measurable(self) -> None:
        curves = flat(0.5, 0.90), flat(0.1, 0.85)
        assert compare(*curves, n_images=100).verdict == "no measurable benefit"
        assert compare(*curves, n_images=1000).verdict == "positive transfer"

    def test_one_image_of_few_is_not_measurable(self) -> None:
        assert compare(flat(0.5, 1.0), flat(0.1, 11 / 12), n_images=12).verdict == "no measurable benefit"

    @pytest.mark.parametrize(("half_width", "verdict"), [(0.05, "negative transfer"), (0.2, "no measurable benefit")])
    def test_other_metrics_take_the_interval_they_are_given(self, half_width: float, verdict: str) -> None:
        benefit = compare(flat(-0.9, -0.5), flat(-2.3, -0.4), metric="log_loss", half_width=half_width)
        assert benefit.verdict == verdict
        assert benefit.difference.high - benefit.difference.low == pytest.approx(2 * math.sqrt(2) * half_width)
        assert math.isnan(benefit.standard_error.scratch)


class TestUndecided:
    @pytest.mark.parametrize(("epochs", "planned"), [(1, 20), (9, 20), (1, 3), (2, 5)])
    @pytest.mark.parametrize("scores", [(0.9, 0.3), (0.3, 0.9), (0.6, 0.6)])
    def test_fewer_than_half_of_the_epochs_decide_nothing(
        self, epochs: int, planned: int, scores: tuple[float, float]
    ) -> None:
        curves = tuple((0.1, *[score] * epochs) for score in scores)
        benefit = compare(curves[0], curves[1], planned=planned)
        assert benefit.verdict == "undecided"
        assert benefit.to_json()["verdict"] == "undecided"

    @pytest.mark.parametrize(("epochs", "planned"), [(10, 20), (1, 2), (2, 3), (3, 5)])
    def test_half_of_them_decide(self, epochs: int, planned: int) -> None:
        benefit = compare((0.1, *[0.9] * epochs), (0.1, *[0.3] * epochs), planned=planned)
        assert benefit.verdict == "positive transfer"

    def test_what_counts_is_what_both_have(self) -> None:
        assert compare((0.1, *[0.9] * 20), (0.1, 0.3), planned=20).verdict == "undecided"

    def test_one_epoch_of_twenty_is_reported_without_an_asymptote_or_an_end(self) -> None:
        benefit = compare((0.80, 0.90), (0.10, 0.30), planned=20)
        assert benefit.sentences == (
            "Start: 90.0% after one epoch against 30.0% from scratch, +60.0 points (linear probe 80.0%).",
            "Slope: +10.0 points an epoch over the first epoch against +20.0 points from scratch, which begins at "
            "chance; mean distance of the curves +65.0 points.",
            "Last common epoch: 90.0% (standard error 3.0) against 30.0% (standard error 4.6) from scratch, "
            "+60.0 points (95% interval +47.9 to +69.3).",
            "Undecided: both curves have only 1 of 20 epochs in common, too few for a verdict, as training from "
            "scratch is slow at first; more time is needed (`timeout`).",
        )
        assert not any("ymptote" in sentence or " end" in sentence for sentence in benefit.sentences)

    def test_several_last_epochs_are_counted(self) -> None:
        curve = (0.1, *[0.5] * 9)
        assert compare(curve, curve, planned=20).sentences[2].startswith("Last 3 common epochs: 50.0%")

    def test_more_time_is_not_asked_for_where_a_training_failed(self) -> None:
        failure = "training failed: RuntimeError: out of memory"
        sentence = compare((0.8, 0.9), (0.1, 0.3), failure=failure).sentences[3]
        assert sentence.endswith(
            "training from scratch is slow at first; training failed: RuntimeError: out of memory."
        )


class TestWords:
    def test_the_numbers_are_in_words(self) -> None:
        assert compare(PRETRAINED, SCRATCH).sentences == (
            "Start: 84.0% after one epoch against 20.0% from scratch, +64.0 points (linear probe 80.0%).",
            "Slope: +3.3 points an epoch over the first 3 epochs against +13.3 points from scratch, which begins at "
            "chance; mean distance of the curves +43.8 points.",
            "Asymptote: 95.0% (standard error 2.2) against 66.0% (standard error 4.7) from scratch, +29.0 points "
            "(95% interval +18.5 to +39.1).",
            "Positive transfer: pretrained weights end higher than random ones, beyond the interval.",
        )

    def test_negative_transfer_is_plain(self) -> None:
        text = "Negative transfer: pretrained weights end lower than random ones, beyond the interval: they do harm."
        assert compare(flat(0.5, 0.6), flat(0.1, 0.9)).sentences[3] == text

    @pytest.mark.parametrize(("start", "sooner"), [(0.8, True), (0.1, False)])
    def test_no_benefit_is_plain_with_what_is_left(self, start: float, sooner: bool) -> None:
        sentence = compare((start, start, 0.9, 0.9), (0.1, 0.3, 0.8, 0.9)).sentences[3]
        assert sentence.startswith("No measurable benefit: where pretrained weights end differs")
        assert ("get there sooner" in sentence) is sooner

    def test_a_comparison_before_the_end_says_so(self) -> None:
        assert compare(PRETRAINED, SCRATCH[:4]).sentences[-1] == (
            "Compared after 3 of 6 epochs, all that both have: the learning rates had not yet fallen to zero."
        )

    @pytest.mark.parametrize(("rivals", "text"), [(1, "there was one to pick from"), (3, "there were 3 to pick from")])
    def test_it_is_stated_that_the_pretrained_curve_is_the_best_of_several(self, rivals: int, text: str) -> None:
        assert compare(PRETRAINED, SCRATCH, tried=(12, rivals)).sentences[-1] == (
            "The terms favour pretrained weights: their settings were searched, and their curve was picked from 12 "
            f"trials by these validation images; from scratch {text}."
        )

    def test_and_not_where_there_was_nothing_to_pick_from(self) -> None:
        assert not any("favour" in sentence for sentence in compare(PRETRAINED, SCRATCH, tried=(1, 1)).sentences)

    def test_a_log_loss_is_shown_as_it_is(self) -> None:
        benefit = compare(flat(-0.9, -0.5), flat(-2.3, -0.9), metric="log_loss", half_width=0.1, planned=3)
        assert "Start: 0.5000 after one epoch against 0.9000 from scratch, -0.4000 in log loss" in benefit.sentences[0]
        assert "(95% interval -0.5414 to -0.2586)" in benefit.sentences[2]
        assert benefit.sentences[3].startswith("Positive transfer")

    def test_it_becomes_plain_json(self) -> None:
        benefit = compare(PRETRAINED, SCRATCH)
        plain = json.loads(json.dumps(benefit.to_json(), allow_nan=False))
        assert plain["pretrained"] == list(PRETRAINED)
        assert plain["start"] == {"pretrained": 0.84, "scratch": 0.20}
        assert plain["verdict"] == "positive transfer"
        assert plain["tried"] == [1, 1]
        assert plain["sentences"] == list(benefit.sentences)

    def test_a_standard_error_that_there_is_not_is_null(self) -> None:
        benefit = compare(PRETRAINED, SCRATCH, metric="f1_macro", half_width=0.1)
        assert json.loads(json.dumps(benefit.to_json(), allow_nan=False))["standard_error"] is None
