"""The search space: which configs belong to it, the nearest one, and narrowing."""

from __future__ import annotations

from typing import Any

import pytest

from autotl.space.parameters import Categorical, Depth, Float
from autotl.space.search_space import PARAMETERS, SearchSpace

PRETRAINED = ("initial_weights", ("pretrained",))
STAGES = {"small": 4, "big": 12}
SPACE = SearchSpace(
    "mine",
    "for tests",
    (
        Categorical("backbone", ("small", "big")),
        Categorical("initial_weights", ("pretrained", "scratch")),
        Depth("freeze_depth", 1, "all-1", PRETRAINED),
        Float("learning_rate_factor", 0.01, 1.0, log=True),
        Float("head_learning_rate_factor", 0.01, 1.0, log=True),
        Float("layer_decay", 0.5, 1.0, when=PRETRAINED),
        Float("weight_decay", 0.0001, 0.1, log=True),
        Categorical("augmentation", ("light", "medium")),
        Float("label_smoothing", 0.02, 0.1),
        Categorical("batch_size", (16, 32)),
    ),
)
POINT: dict[str, Any] = {
    "backbone": "big",
    "initial_weights": "pretrained",
    "freeze_depth": 7,
    "learning_rate_factor": 0.1,
    "head_learning_rate_factor": 0.2,
    "layer_decay": 0.75,
    "weight_decay": 0.01,
    "augmentation": "medium",
    "label_smoothing": 0.05,
    "batch_size": 32,
}


def test_a_space_gives_its_parameters_by_name() -> None:
    assert SPACE["augmentation"] == Categorical("augmentation", ("light", "medium"))
    assert SPACE.backbones == ("small", "big")
    assert tuple(parameter.name for parameter in SPACE.parameters) == PARAMETERS


def test_a_point_belongs_to_its_space() -> None:
    assert SPACE.contains(POINT, STAGES)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "other"},
        {"initial_weights": "random"},
        {"freeze_depth": 0},
        {"freeze_depth": 12},
        {"backbone": "small", "freeze_depth": 4},
        {"learning_rate_factor": 1.1},
        {"layer_decay": 0.4},
        {"augmentation": "none"},
        {"label_smoothing": 0.0},
        {"batch_size": 64},
    ],
)
def test_a_point_with_one_value_outside_does_not_belong(change: dict[str, Any]) -> None:
    assert not SPACE.contains(POINT | change, STAGES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_point_with_a_value_missing_does_not_belong(name: str) -> None:
    assert not SPACE.contains({key: value for key, value in POINT.items() if key != name}, STAGES)


def test_depth_and_decay_do_not_count_from_scratch() -> None:
    scratch = POINT | {"initial_weights": "scratch"}
    assert SPACE.contains(scratch | {"freeze_depth": 0, "layer_decay": 1.0}, STAGES)
    assert SPACE.contains({k: v for k, v in scratch.items() if k not in ("freeze_depth", "layer_decay")}, STAGES)
    assert not SPACE.contains(scratch | {"batch_size": 64}, STAGES)


def test_a_condition_looks_at_what_has_been_chosen() -> None:
    depth = SPACE["freeze_depth"]
    assert SPACE.is_active(depth, {"initial_weights": "pretrained"})
    assert not SPACE.is_active(depth, {"initial_weights": "scratch"})
    assert not SPACE.is_active(depth, {})
    assert SPACE.is_active(SPACE["batch_size"], {})


def test_a_point_of_the_space_is_its_own_nearest_point() -> None:
    assert SPACE.clip(POINT, STAGES) == POINT


def test_ranges_clip_a_config_and_choices_give_way_to_the_first() -> None:
    config = {
        "backbone": "other",
        "initial_weights": "random",
        "freeze_depth": 9,
        "learning_rate_factor": 3.0,
        "head_learning_rate_factor": 0.0,
        "layer_decay": 0.1,
        "weight_decay": 5,
        "augmentation": "strong",
        "label_smoothing": 0.5,
        "batch_size": 128,
    }
    assert SPACE.clip(config, STAGES) == {
        "backbone": "small",
        "initial_weights": "pretrained",
        "freeze_depth": 3,
        "learning_rate_factor": 1.0,
        "head_learning_rate_factor": 0.01,
        "layer_decay": 0.5,
        "weight_decay": 0.1,
        "augmentation": "light",
        "label_smoothing": 0.1,
        "batch_size": 16,
    }


def test_missing_values_are_filled_with_the_deepest_the_middle_and_the_first() -> None:
    clipped = SPACE.clip({}, STAGES)
    assert clipped["backbone"] == "small"
    assert clipped["freeze_depth"] == 3
    assert clipped["learning_rate_factor"] == pytest.approx(0.1)
    assert clipped["weight_decay"] == pytest.approx(0.00316227766)
    assert clipped["label_smoothing"] == 0.02
    assert SPACE.contains(clipped, STAGES)


def test_a_clipped_config_from_scratch_trains_all_stages_at_one_rate() -> None:
    clipped = SPACE.clip(POINT | {"initial_weights": "scratch"}, STAGES)
    assert (clipped["freeze_depth"], clipped["layer_decay"]) == (0, 1.0)
    assert SPACE.contains(clipped, STAGES)


def test_clipping_leaves_the_given_config_alone_and_drops_strangers() -> None:
    config = {"backbone": "other", "colour": "red"}
    assert "colour" not in SPACE.clip(config, STAGES)
    assert config == {"backbone": "other", "colour": "red"}


def test_narrowing_replaces_choices_ranges_and_whole_parameters() -> None:
    decay = Float("weight_decay", 0.02, 0.03)
    narrow = SPACE.narrow(
        backbone=("big",), learning_rate_factor=(0.1, 0.2), freeze_depth=("all-2", "all"), weight_decay=decay
    )
    assert narrow.backbones == ("big",)
    assert narrow["learning_rate_factor"] == Float("learning_rate_factor", 0.1, 0.2, log=True)
    assert narrow["freeze_depth"] == Depth("freeze_depth", "all-2", "all", PRETRAINED)
    assert narrow["weight_decay"] == decay
    assert narrow["batch_size"] == SPACE["batch_size"]
    assert (narrow.name, tuple(p.name for p in narrow.parameters)) == ("mine", PARAMETERS)
    assert SPACE.backbones == ("small", "big")


def test_narrowing_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(KeyError, match="no such parameter: depth, rate"):
        SPACE.narrow(depth=(1, 2), backbone=("big",), rate=(0.1, 0.2))


def test_a_space_reads_as_in_the_file() -> None:
    plain = SPACE.to_plain()
    assert list(plain)[:4] == ["name", "description", "max_t", "scratch_share"]
    assert tuple(plain)[4:] == PARAMETERS
    assert plain["max_t"] == "auto"
    assert plain["backbone"] == {"choices": ["small", "big"]}
    assert plain["freeze_depth"] == {"low": 1, "high": "all-1", "when": {"initial_weights": ["pretrained"]}}
    assert plain["learning_rate_factor"] == {"low": 0.01, "high": 1.0, "log": True}


def test_a_fingerprint_stands_for_the_space() -> None:
    assert SPACE.narrow().fingerprint() == SPACE.fingerprint()
    assert SPACE.narrow(batch_size=(32, 16)).fingerprint() != SPACE.fingerprint()
    assert len(SPACE.fingerprint()) == 12
