"""What has to be trained for a winner, and on which terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotl.errors import RunFolderError
from autotl.pipeline.reproduce import Terms, lineage, terms_of
from autotl.pipeline.schedule import MOST_VIEWS
from autotl.records import Estimate, Status, TrialRecord
from autotl.result import Reproduction
from autotl.storage.saved_model import ModelCard
from autotl.threads import local_cpus

CARD = ModelCard("net", ("a", "b"), {}, 3, "accuracy", 0.5, 0.3, Estimate(0.5, 0.4, 0.6, 50), "t", 4, {})


def record(name: str, continues: str = "") -> TrialRecord:
    return TrialRecord(0, name, {}, Status.COMPLETED, 0.5, 4, 1.0, continues=continues)


def test_a_trial_from_the_probe_stands_alone() -> None:
    assert lineage([record("a"), record("b")], "b") == [record("b")]


def test_the_first_of_those_it_began_with_comes_first() -> None:
    records = [record("c", "b"), record("a"), record("b", "a")]
    assert [one.trial_id for one in lineage(records, "c")] == ["a", "b", "c"]


@pytest.mark.parametrize("records", [[], [record("c", "b")], [record("c", "c")]], ids=["none", "gone", "circle"])
def test_a_record_that_is_missing_is_named(records: list[TrialRecord]) -> None:
    with pytest.raises(RunFolderError, match=r"there is no record of trial [bc]"):
        lineage(records, "c")


def test_the_terms_are_those_of_the_card() -> None:
    plain = {"planned": 9, "views": 3, "threads": 2, "precision": "bf16"}
    assert terms_of(replace(CARD, provenance={"training": plain})) == Terms(9, 3, 2, "bf16")


@pytest.mark.parametrize("provenance", [{}, {"training": None}])
def test_where_a_card_says_nothing_they_are_the_usual_ones(provenance: dict[str, Any]) -> None:
    assert terms_of(replace(CARD, provenance=provenance)) == Terms(None, MOST_VIEWS, local_cpus(), None)


@pytest.mark.parametrize(
    ("value", "agrees", "is_same", "verdict"),
    [(0.5, True, True, "the same"), (0.41, True, False, "within"), (0.7, False, False, "outside its interval")],
)
def test_a_score_is_judged_by_the_interval_of_the_first(
    value: float, agrees: bool, is_same: bool, verdict: str
) -> None:
    again = Estimate(value, value - 0.1, value + 0.1, 50)
    result = Reproduction("t", "accuracy", CARD.validation, again, ("t",), (), 3.0)
    assert (result.agrees, result.is_same) == (agrees, is_same)
    assert verdict in result.text
    plain = result.to_json()
    assert (plain["agrees"], plain["again"]["value"]) == (agrees, value)
