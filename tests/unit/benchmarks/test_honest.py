"""How lucky a winner is, from cells whose luck is known."""

from __future__ import annotations

import honest
import numpy as np
import pytest


def cell(val: float, test: float, log_loss: float = 1.0, **others: object) -> honest.Cell:
    plain = {"set": "a", "subset": "all", "seed": 0, "n_val": 100, "n_test": 1000}
    return plain | {"val_accuracy": val, "test_accuracy": test, "val_log_loss": log_loss} | others


def test_cells_of_one_draw_compete_and_a_lone_one_with_nobody() -> None:
    cells = [cell(0.5, 0.5), cell(0.6, 0.5), cell(0.9, 0.5, seed=1)]
    assert honest.groups_of(cells) == {("a", "all", 0): cells[:2]}


def test_the_winner_is_the_most_accurate_and_of_equals_the_surest() -> None:
    sure, unsure, worse = cell(0.9, 0.8, 0.2), cell(0.9, 0.9, 0.4), cell(0.8, 1.0, 0.1)
    assert honest.winner_of([worse, unsure, sure]) is sure


@pytest.mark.parametrize(("test", "inside"), [(0.9, True), (0.84, True), (0.80, False), (0.97, False)])
def test_an_interval_holds_what_lies_in_it(test: float, inside: bool) -> None:
    assert honest.holds(cell(0.9, test)) is inside


def test_without_luck_fewer_intervals_hold_the_score_of_few_test_images() -> None:
    many, few = ([cell(0.8, 0.8, n_test=n)] for n in (100_000, 30))
    assert honest.expected_share(many) == pytest.approx(0.95, abs=0.02)
    assert honest.expected_share(few) < 0.75


def test_the_best_of_many_equal_models_is_above_its_test_score() -> None:
    generator = np.random.default_rng(0)
    val, test = (generator.binomial(n, 0.8, (50, 20)) / n for n in (100, 1000))
    groups = [[cell(val[group, place], test[group, place]) for place in range(20)] for group in range(50)]
    winners = [[honest.winner_of(group)] for group in groups]
    above = [100 * (chosen["val_accuracy"] - chosen["test_accuracy"]) for (chosen,) in winners]
    assert 6.0 < np.mean(above) < 9.0  # the best of 20 is 1.87 standard deviations of 4 points above the mean
    all_cells = [honest.holds(rival) for group in groups for rival in group]
    assert f"{100 * np.mean(all_cells):.1f}% hold" in honest.report("all", groups)
