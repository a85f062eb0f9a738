"""Tables of a search-space file: everything that can be wrong with them, and the way from a space back to TOML."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from autotl.errors import SpaceError
from autotl.space.files import load_space, space_from_plain, spaces_dir, to_toml
from autotl.space.search_space import PARAMETERS, SearchSpace

HEAD = "name, description, max_t, scratch_share"
AUGMENTATIONS = "none, light, medium, strong"
WHEN = 'when.initial_weights = ["pretrained"], for freeze_depth and layer_decay'


def plain_space() -> dict[str, Any]:
    """A fresh copy of the default space, as read from its file."""
    return tomllib.loads((spaces_dir() / "default.toml").read_text("utf-8"))


def problems_of(plain: dict[str, Any]) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        space_from_plain(plain, where="mine.toml")
    assert all(problem.area == "space" for problem in caught.value.problems)
    return [str(problem).replace("\n    ", " | ") for problem in caught.value.problems]


def test_keys_of_the_head_have_defaults_except_name_and_description() -> None:
    plain = plain_space()
    for key in HEAD.split(", ")[2:]:
        del plain[key]
    space = space_from_plain(plain, where="mine.toml")
    assert (space.max_t, space.scratch_share) == ("auto", 0.15)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("name", 3, "a text"),
        ("description", ["a"], "a text"),
        ("max_t", 0, '"auto" or a whole number from 1'),
        ("max_t", 2.5, '"auto" or a whole number from 1'),
        ("max_t", True, '"auto" or a whole number from 1'),
        ("max_t", "long", '"auto" or a whole number from 1'),
        ("scratch_share", -0.1, "0 to 1"),
        ("scratch_share", 1.5, "0 to 1"),
        ("scratch_share", float("nan"), "0 to 1"),
        ("scratch_share", "half", "0 to 1"),
        ("scratch_share", True, "0 to 1"),
    ],
)
def test_a_bad_value_of_the_head_is_named_with_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    assert problems_of(plain_space() | {key: value}) == [f"mine.toml: {key}: {value!r} | allowed: {allowed}"]


def test_an_empty_name_is_refused() -> None:
    (problem,) = problems_of(plain_space() | {"name": ""})
    assert problem.startswith("mine.toml: name: ''")


@pytest.mark.parametrize("key", ["name", "description"])
def test_a_missing_key_of_the_head_is_named(key: str) -> None:
    plain = plain_space()
    del plain[key]
    assert problems_of(plain) == [f"mine.toml: {key} is missing | allowed: a text"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_missing_parameter_is_named_with_where_to_copy_it_from(name: str) -> None:
    plain = plain_space()
    del plain[name]
    assert problems_of(plain) == [
        f"mine.toml: [{name}] is missing | → copy it from `autotl spaces show default`",
    ]


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    known = f"{HEAD}, {', '.join(PARAMETERS)}"
    assert problems_of(plain_space() | {"learning_rate": {"low": 1}}) == [
        f"mine.toml: learning_rate: unknown key | allowed: {known}"
    ]


@pytest.mark.parametrize("value", [32, [16, 32], "auto"])
def test_a_parameter_that_is_no_table_is_refused(value: Any) -> None:
    assert problems_of(plain_space() | {"batch_size": value}) == [
        f"mine.toml: batch_size: {value!r} | allowed: a table [batch_size]"
    ]


@pytest.mark.parametrize(
    ("name", "table", "expected"),
    [
        ("batch_size", {"choices": [32], "low": 1}, "[batch_size]: unknown key 'low' | allowed: choices"),
        ("batch_size", {}, "[batch_size]: choices is missing"),
        ("freeze_depth", {"low": 0}, "[freeze_depth]: high is missing"),
        (
            "freeze_depth",
            {"low": 0, "high": 3, "log": True},
            "[freeze_depth]: unknown key 'log' | allowed: low, high, when",
        ),
        ("weight_decay", {"high": 0.1}, "[weight_decay]: low is missing"),
        (
            "weight_decay",
            {"low": 0.01, "high": 0.1, "step": 0.1},
            "[weight_decay]: unknown key 'step' | allowed: low, high, log, when",
        ),
        ("backbone", {"choices": "auto"}, "[backbone] choices: 'auto' | allowed: a list: [\"auto\"] or names"),
        (
            "backbone",
            {"choices": []},
            '[backbone] choices: [] | allowed: a list of one or more of: names, or "auto"',
        ),
        ("backbone", {"choices": ["a", ""]}, "[backbone] choices: '' | allowed: names, or \"auto\""),
        ("backbone", {"choices": [18]}, '[backbone] choices: 18 | allowed: names, or "auto"'),
        (
            "backbone",
            {"choices": ["a", "b", "a"]},
            "[backbone] choices: ['a', 'b', 'a'] has repeats | allowed: each choice once",
        ),
        (
            "initial_weights",
            {"choices": ["random"]},
            "[initial_weights] choices: 'random' | allowed: pretrained, scratch",
        ),
        (
            "augmentation",
            {"choices": "light"},
            f"[augmentation] choices: 'light' | allowed: a list of one or more of: {AUGMENTATIONS}",
        ),
        (
            "augmentation",
            {"choices": ["mild"]},
            f"[augmentation] choices: 'mild' | allowed: {AUGMENTATIONS}",
        ),
        (
            "augmentation",
            {"choices": [["light"]]},
            f"[augmentation] choices: ['light'] | allowed: {AUGMENTATIONS}",
        ),
        ("batch_size", {"choices": [1]}, "[batch_size] choices: 1 | allowed: whole numbers from 2 to 4096"),
        ("batch_size", {"choices": [4097]}, "[batch_size] choices: 4097 | allowed: whole numbers from 2 to 4096"),
        ("batch_size", {"choices": [32.0]}, "[batch_size] choices: 32.0 | allowed: whole numbers from 2 to 4096"),
        ("batch_size", {"choices": [True]}, "[batch_size] choices: True | allowed: whole numbers from 2 to 4096"),
        (
            "freeze_depth",
            {"low": -1, "high": "all"},
            '[freeze_depth] low: -1 | allowed: a whole number from 0, "all" or "all-N"',
        ),
        (
            "freeze_depth",
            {"low": 0, "high": "most"},
            '[freeze_depth] high: \'most\' | allowed: a whole number from 0, "all" or "all-N"',
        ),
        (
            "freeze_depth",
            {"low": 0, "high": 2.5},
            '[freeze_depth] high: 2.5 | allowed: a whole number from 0, "all" or "all-N"',
        ),
        ("freeze_depth", {"low": 3, "high": 2}, "[freeze_depth]: low 3 is deeper than high 2"),
        ("freeze_depth", {"low": "all", "high": "all-1"}, "[freeze_depth]: low 'all' is deeper than high 'all-1'"),
        (
            "learning_rate_factor",
            {"low": 0, "high": 1},
            "[learning_rate_factor] low: 0 | allowed: a number from 1e-06 to 10",
        ),
        (
            "head_learning_rate_factor",
            {"low": 1, "high": 101},
            "[head_learning_rate_factor] high: 101 | allowed: a number from 1e-06 to 100",
        ),
        ("layer_decay", {"low": 0.5, "high": 1.1}, "[layer_decay] high: 1.1 | allowed: a number from 0.01 to 1"),
        ("weight_decay", {"low": "0", "high": 1}, "[weight_decay] low: '0' | allowed: a number from 0 to 1"),
        ("weight_decay", {"low": True, "high": 1}, "[weight_decay] low: True | allowed: a number from 0 to 1"),
        (
            "label_smoothing",
            {"low": 0, "high": float("nan")},
            "[label_smoothing] high: nan | allowed: a number from 0 to 0.5",
        ),
        ("weight_decay", {"low": 0.2, "high": 0.1}, "[weight_decay]: low 0.2 is above high 0.1"),
        (
            "weight_decay",
            {"low": 0, "high": 0.1, "log": True},
            "[weight_decay] low: 0 | allowed: above 0 on a log scale",
        ),
        ("weight_decay", {"low": 0.1, "high": 0.1, "log": 1}, "[weight_decay] log: 1 | allowed: true or false"),
        (
            "weight_decay",
            {"low": 0, "high": 1, "when": {"initial_weights": ["pretrained"]}},
            f"[weight_decay] when: {{'initial_weights': ['pretrained']}} | allowed: {WHEN}",
        ),
        (
            "layer_decay",
            {"low": 0.5, "high": 1, "when": {"initial_weights": ["scratch"]}},
            f"[layer_decay] when: {{'initial_weights': ['scratch']}} | allowed: {WHEN}",
        ),
        ("freeze_depth", {"low": 0, "high": 1, "when": "x"}, f"[freeze_depth] when: 'x' | allowed: {WHEN}"),
    ],
)
def test_a_bad_parameter_is_named_with_what_is_allowed(name: str, table: dict[str, Any], expected: str) -> None:
    assert problems_of(plain_space() | {name: table}) == [f"mine.toml: {expected}"]


def test_a_date_among_the_choices_is_refused_like_any_other_value() -> None:
    table = {"choices": [datetime.date(2024, 5, 1)]}
    assert problems_of(plain_space() | {"batch_size": table}) == [
        "mine.toml: [batch_size] choices: datetime.date(2024, 5, 1) | allowed: whole numbers from 2 to 4096"
    ]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("learning_rate_factor", {"low": 1e-6, "high": 10, "log": True}),
        ("head_learning_rate_factor", {"low": 1e-6, "high": 100.0}),
        ("layer_decay", {"low": 0.01, "high": 1}),
        ("weight_decay", {"low": 0, "high": 1, "log": False}),
        ("label_smoothing", {"low": 0.5, "high": 0.5}),
        ("batch_size", {"choices": [2, 4096]}),
        ("freeze_depth", {"low": "all-3", "high": 200}),
        ("freeze_depth", {"low": 2, "high": 2}),
        ("initial_weights", {"choices": ["scratch", "pretrained"]}),
    ],
)
def test_values_at_the_edge_of_what_is_allowed_are_fine(name: str, table: dict[str, Any]) -> None:
    plain = space_from_plain(plain_space() | {name: table}, where="mine.toml").to_plain()[name]
    assert plain == {key: value for key, value in table.items() if value is not False}


def spoil_the_head(plain: dict[str, Any]) -> None:
    plain["max_t"] = 0
    del plain["description"]


def spoil_the_tables(plain: dict[str, Any]) -> None:
    del plain["layer_decay"]
    plain["layer_dcay"] = {"low": 0.5, "high": 1.0}
    plain["batch_size"] = {"choices": [1, 5000, 1]}
    plain["weight_decay"] = {"low": -1, "high": 7, "log": "yes"}
    plain["freeze_depth"] = {"low": "a", "high": "b"}


@pytest.mark.parametrize(
    ("spoilers", "places"),
    [
        ((spoil_the_head,), ["mine.toml: max_t", "mine.toml"]),
        (
            (spoil_the_head, spoil_the_tables),
            [
                "mine.toml: max_t",
                "mine.toml",
                "mine.toml: layer_dcay",
                "mine.toml",
                "mine.toml: [freeze_depth] low",
                "mine.toml: [freeze_depth] high",
                "mine.toml: [weight_decay] low",
                "mine.toml: [weight_decay] high",
                "mine.toml: [weight_decay] log",
                "mine.toml: [batch_size] choices",
                "mine.toml: [batch_size] choices",
                "mine.toml: [batch_size] choices",
                "mine.toml: [batch_size] choices",
            ],
        ),
    ],
)
def test_all_problems_of_a_space_are_reported_at_once(
    spoilers: tuple[Callable[[dict[str, Any]], None], ...], places: list[str]
) -> None:
    plain = plain_space()
    for spoil in spoilers:
        spoil(plain)
    with pytest.raises(SpaceError) as caught:
        space_from_plain(plain, where="mine.toml")
    assert [problem.where for problem in caught.value.problems] == places
    assert str(caught.value).startswith(f"Found {len(places)} problems in the input:\n")


def test_a_misspelt_key_does_not_hide_a_bad_value_in_the_same_table() -> None:
    table = {"low": 99, "high": 1, "lgo": True}
    assert problems_of(plain_space() | {"weight_decay": table}) == [
        "mine.toml: [weight_decay]: unknown key 'lgo' | allowed: low, high, log, when",
        "mine.toml: [weight_decay] low: 99 | allowed: a number from 0 to 1",
    ]


def test_an_empty_file_misses_everything() -> None:
    missing = ["name", "description", *(f"[{name}]" for name in PARAMETERS)]
    assert [problem.split(" is missing")[0] for problem in problems_of({})] == [f"mine.toml: {key}" for key in missing]


def through_toml(space: SearchSpace) -> SearchSpace:
    return space_from_plain(tomllib.loads(to_toml(space)), where="mine.toml")


def test_a_narrowed_space_survives_the_way_through_toml() -> None:
    space = load_space("large_dissimilar").narrow(
        backbone=("resnet18.a1_in1k=C:\\weights\\ä.pth", 'say "hi"'),
        freeze_depth=(2, "all-1"),
        weight_decay=(1e-05, 0.1),
        batch_size=(16, 64),
    )
    assert through_toml(space) == space


@pytest.mark.parametrize("text", ["naïve – 快速", "two\nlines", 'a "quoted" \\ word', "party \U0001f389", "del \x7f"])
def test_any_text_survives_the_way_through_toml(text: str) -> None:
    plain = plain_space() | {"description": text, "backbone": {"choices": [text]}}
    space = space_from_plain(plain, where="mine.toml")
    assert through_toml(space) == space


def test_toml_is_written_in_tables() -> None:
    lines = to_toml(load_space("quick")).splitlines()
    assert lines[:3] == [
        'name = "quick"',
        'description = "Late stages only, few epochs; for a first look or a test."',
        "max_t = 3",
    ]
    start = lines.index("[freeze_depth]")
    assert lines[start + 1 : start + 5] == [
        'low = "all-2"',
        'high = "all"',
        'when.initial_weights = ["pretrained"]',
        "",
    ]
