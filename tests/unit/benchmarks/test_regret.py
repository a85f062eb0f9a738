"""What the oracle table says of advice: known answers on tables made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from oracle import FEATURES, FULL, STRATEGIES
from regret import (
    DEPTHS,
    N_STAGES,
    SHIPPED,
    Draw,
    Row,
    Rule,
    Thresholds,
    fair_regret,
    fit_thresholds,
    follow,
    gain,
    leave_one_set_out,
    mean_regret,
    on_validation,
    rank_correlations,
    regret,
    strategy_at,
    to_rows,
)

from autotl.advice.scenario import SCENARIOS, Scenario
from autotl.advice.start_points import first_depths

NAMES = [strategy.name for strategy in STRATEGIES]


def draw(name: str = "set", distance: float = 0.01, stages: dict[int, float] | None = None, **test: float) -> Draw:
    """Everything is 50% but what is named; underscores stand for spaces."""
    accuracy = dict.fromkeys(NAMES, 0.5) | {key.replace("_", " "): value for key, value in test.items()}
    scores = stages or {4: 0.0, 8: 0.5}
    errors = dict.fromkeys(scores, 0.02)
    return Draw(name, "subset", 0, 600, 120, dict(accuracy), accuracy, scores, errors, distance=distance)


def row(name: str = "set", distance: float = 0.01, **test: float) -> Row:
    """One draw."""
    return Row((draw(name, distance, **test),))


def always(strategy: str) -> Rule:
    """A rule that does not look at the data."""
    return lambda draw: strategy


def lines(**changes: Any) -> list[dict[str, Any]]:
    """A whole table of one set, every cell alike."""
    whole = {"set": "set", "subset": "subset", "seed": 0, "n_train": 80, "n_val": 20}
    same = whole | {"val_accuracy": 0.5, "val_log_loss": 1.0, "test_accuracy": 0.5} | changes
    return [
        same | {"strategy": strategy.name, "learning_rate": rate}
        for strategy in STRATEGIES
        for rate in strategy.factors
    ]


def test_regret_is_in_points_against_the_best_cell() -> None:
    known = row(freeze_4=0.9, full_fine_tuning=0.8)
    assert known.best == "freeze 4"
    assert regret(known, always("freeze 4")) == 0
    assert regret(known, always(FEATURES)) == pytest.approx(40)


def test_draws_are_averaged_and_a_rule_may_differ_between_them() -> None:
    drawn_twice = Row((draw(freeze_4=0.9, freeze_2=0.8), draw(freeze_4=0.7, freeze_2=0.9, from_scratch=1.0)))
    del drawn_twice.draws[0].test["from scratch"]
    assert drawn_twice.best == "freeze 2", "not what only one draw has"
    assert regret(drawn_twice, always("freeze 4")) == pytest.approx(5)

    def best_of_each_draw(draw: Draw) -> str:
        return max(drawn_twice.test, key=lambda name: draw.test[name])

    assert regret(drawn_twice, best_of_each_draw) == pytest.approx(-5)


def test_fair_regret_is_against_the_best_of_the_other_draw() -> None:
    drawn_twice = Row((draw(freeze_4=0.9, freeze_2=0.8), draw(freeze_4=0.7, freeze_2=0.9)))
    # Freeze 2 is best on the second draw and gives 0.8 on the first; freeze 4 the other way round.
    assert fair_regret(drawn_twice, always(FEATURES)) == pytest.approx(100 * ((0.8 + 0.7) / 2 - 0.5))
    assert fair_regret(drawn_twice, always("freeze 2")) == pytest.approx(-10)
    assert math.isnan(fair_regret(row(), always(FEATURES)))


def test_gain_may_be_negative_and_leaves_scratch_and_larger_backbones_out() -> None:
    known = row(
        **{"feature extraction": 0.8, "freeze 6": 0.75, "from scratch": 0.99, "feature extraction, lite2": 0.99}
    )
    assert gain(known) == pytest.approx(-5)


def test_the_learning_rate_is_chosen_on_validation_not_on_test() -> None:
    table = lines()
    for line in table:
        if line["strategy"] == "freeze 4":
            good = line["learning_rate"] == 0.1
            line |= {"val_accuracy": 0.7 if good else 0.6, "test_accuracy": 0.65 if good else 0.95}
    (whole,), incomplete = to_rows(table)
    assert whole.test["freeze 4"] == 0.65
    assert whole.draws[0].n_images == 100
    assert incomplete == []


def test_equal_validation_accuracy_is_decided_by_log_loss() -> None:
    table = lines()
    for line in table:
        if line["strategy"] == FULL and line["learning_rate"] == 0.5:
            line |= {"val_log_loss": 0.2, "test_accuracy": 0.8}
    assert to_rows(table)[0][0].test[FULL] == 0.8


def test_seeds_are_draws_of_a_row_and_averaged() -> None:
    (averaged,), _ = to_rows([*lines(), *lines(seed=1, test_accuracy=0.7)])
    assert [draw.seed for draw in averaged.draws] == [0, 1]
    assert averaged.test["freeze 2"] == pytest.approx(0.6)


def test_a_row_without_all_its_cells_is_left_out_aloud_but_scratch_may_be_missing() -> None:
    table = lines()
    assert len(to_rows([line for line in table if line["strategy"] != "from scratch"])[0]) == 1
    rows, incomplete = to_rows([line for line in table if line["strategy"] != FULL])
    assert rows == []
    assert incomplete == ["set, subset, seed 0: 2 of 13 cells are missing"]


def test_a_cell_that_diverged_does_not_count() -> None:
    table = lines()
    for line in table:
        if line["strategy"] == FULL and line["learning_rate"] == 0.5:
            line |= {"error": "the loss became nan"}
            del line["val_accuracy"], line["val_log_loss"], line["test_accuracy"]
    assert to_rows(table)[0][0].test[FULL] == 0.5


def test_a_strategy_that_diverged_at_both_rates_loses_everything() -> None:
    table = [line | ({"error": "the loss became nan"} if line["strategy"] == FULL else {}) for line in lines()]
    (whole,), _ = to_rows(table)
    assert regret(whole, always(FULL)) == pytest.approx(50)


@pytest.mark.parametrize(
    ("depth", "n_stages", "strategy"),
    [
        (8, 8, FEATURES),
        (7, 8, FEATURES),
        (6, 8, "freeze 6"),
        (3, 8, "freeze 4"),
        (1, 8, "freeze 2"),
        (0, 8, FULL),
        (12, 12, FEATURES),
        (6, 12, "freeze 4"),
    ],
)
def test_the_nearest_depth_of_the_table(depth: int, n_stages: int, strategy: str) -> None:
    assert strategy_at(depth, n_stages) == strategy


def test_what_a_search_would_choose_is_chosen_on_validation() -> None:
    drawn = draw(freeze_4=0.9)
    drawn.val["freeze 2"] = 0.8
    drawn.val["freeze 4"] = 0.7
    assert on_validation(drawn) == "freeze 2"


def test_rank_correlations_of_an_order_kept_and_reversed() -> None:
    sets = list("abcdefgh")
    x = [1.0, 2, 3, 4, 5, 6, 7, 8]
    for y, value in (([value**3 for value in x], 1), ([-value for value in x], -1)):
        for correlation in rank_correlations(x, y, sets, draws=200):
            assert (correlation.value, correlation.low, correlation.high) == pytest.approx((value, value, value))


def test_the_interval_of_unrelated_numbers_holds_zero() -> None:
    for correlation in rank_correlations([1, 2, 3, 4, 5, 6], [2, 6, 1, 5, 3, 4], list("abcdef"), draws=500):
        assert correlation.low < 0 < correlation.high


def test_rows_of_one_set_are_drawn_together() -> None:
    # The order holds between the two sets; drawn one by one, the rows inside them would blur it.
    tau, _ = rank_correlations([1, 2, 9, 10], [2, 1, 10, 9], ["a", "a", "b", "b"], draws=300)
    assert tau.value == pytest.approx(1 / 3)
    assert {round(tau.low, 6), round(tau.high, 6)} == {-1.0, round(1 / 3, 6)}


@pytest.mark.parametrize("scenario", SCENARIOS[:2], ids=lambda scenario: scenario.name)
def test_the_depth_that_the_start_points_begin_with_is_in_the_table(scenario: Scenario) -> None:
    first, *_ = first_depths(scenario, "freeze the first stages, train the rest", N_STAGES)
    assert DEPTHS[first] in NAMES


def test_far_data_freezes_fewer_stages_and_large_data_none() -> None:
    thresholds = Thresholds(far=0.1, large=1000, margin=math.inf, headroom=math.inf)
    assert follow(thresholds, draw(distance=0.05)) == FEATURES
    assert follow(thresholds, draw(distance=0.2)) == "freeze 5"
    assert follow(Thresholds(0.1, 500, math.inf, math.inf), draw(distance=0.2)) == FULL


def test_a_stage_is_followed_where_its_probe_beats_the_last_by_the_margin() -> None:
    near = draw(distance=0.05, stages={4: 0.524, 6: 0.4, 8: 0.5})  # 1.2 standard errors
    assert follow(Thresholds(0.1, math.inf, 1.0, math.inf), near) == "freeze 4"
    assert follow(Thresholds(0.1, math.inf, 1.5, math.inf), near) == FEATURES
    assert follow(Thresholds(0.1, math.inf, 0.5, math.inf), draw(stages={4: 0.5, 8: 0.5})) == FEATURES, (
        "a tie is no evidence"
    )


@pytest.mark.parametrize(
    ("distance", "per_class", "accuracy", "expected"),
    [
        (0.05, 60, 0.82, "freeze 6"),
        (0.05, 60, 0.95, "feature extraction, lite2"),
        (0.05, 20, 0.82, "feature extraction, lite2"),
        (0.2, 60, 0.82, "freeze 5"),
    ],
)
def test_headroom_counts_on_small_and_similar_data_with_enough_images(
    distance: float, per_class: float, accuracy: float, expected: str
) -> None:
    measured = {"per_class": per_class, "recall": accuracy, "probe": "feature extraction, lite2"}
    assert follow(Thresholds(0.1, math.inf, math.inf, 0.1), replace(draw(distance=distance), **measured)) == expected


def test_what_does_not_matter_stays_as_it_ships() -> None:
    fitted = fit_thresholds(planted())
    assert fitted.headroom == SHIPPED.headroom


def test_the_fit_finds_the_planted_headroom() -> None:
    ample = [measured(row(f"ample {n}", 0.03, freeze_6=0.9), 0.82 - n / 100) for n in range(5)]
    scarce = [measured(known, 0.88) for known in planted()]
    fitted = fit_thresholds([*ample, *scarce])
    assert mean_regret(fitted, [*ample, *scarce]) == 0
    assert 0.12 < fitted.headroom <= 0.18


def measured(known: Row, accuracy: float) -> Row:
    """With 100 images a class and this accuracy of the probe."""
    return Row(tuple(replace(draw, per_class=100, recall=accuracy) for draw in known.draws))


def planted() -> list[Row]:
    """Feature extraction is best below a distance of 0.2, freezing 5 stages from there on."""
    near = [row(f"near {place}", 0.01 * place, **{FEATURES: 0.9}) for place in range(1, 6)]
    return near + [row(f"far {place}", 0.25 + 0.01 * place, freeze_5=0.9) for place in range(5)]


def test_the_fit_finds_the_planted_threshold() -> None:
    fitted = fit_thresholds(planted())
    assert 0.05 < fitted.far < 0.25
    assert fitted.margin == math.inf, "nothing speaks for following the stages"
    assert mean_regret(fitted, planted()) == 0
    assert mean_regret(Thresholds(0.4, math.inf, math.inf, math.inf), planted()) == pytest.approx(20)


def test_a_set_is_judged_by_thresholds_fitted_without_it() -> None:
    found = leave_one_set_out(planted())
    assert set(found) == {known.set for known in planted()}
    assert all(value == 0 for _, value in found.values())
    # One set against the trend: the others give it the wrong strategy.
    odd = row("odd", 0.02, freeze_5=0.9)
    assert leave_one_set_out([*planted(), odd])["odd"][1] == pytest.approx(40)
