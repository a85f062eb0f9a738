"""Search-space files: the shipped ones, and how a file is found and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotl.advice.scenario import SCENARIOS
from autotl.errors import SpaceError
from autotl.space.files import find_space, load_space, shipped_names, spaces_dir, to_toml
from autotl.space.parameters import Categorical, Depth, Float
from autotl.space.search_space import PARAMETERS

SHIPPED = ("default", "large_dissimilar", "large_similar", "quick", "small_dissimilar", "small_similar")
PRETRAINED = ("initial_weights", ("pretrained",))


def test_the_shipped_spaces_are_these() -> None:
    assert shipped_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_is_named_as_its_file_and_gives_every_parameter(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.description.endswith(".")
    assert tuple(parameter.name for parameter in space.parameters) == PARAMETERS
    assert space.backbones == ("auto",)


@pytest.mark.parametrize("name", SHIPPED)
def test_in_a_shipped_space_depth_and_decay_count_for_pretrained_weights_only(name: str) -> None:
    space = load_space(name)
    assert {parameter.name for parameter in space.parameters if parameter.when} == {"freeze_depth", "layer_decay"}
    assert space["freeze_depth"].when == space["layer_decay"].when == PRETRAINED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_shares_trials_with_scratch_only_where_scratch_is_on_offer(name: str) -> None:
    space = load_space(name)
    assert space["initial_weights"].contains("scratch") == (space.scratch_share > 0)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("default", (0, 8)),
        ("large_dissimilar", (0, 6)),
        ("large_similar", (0, 7)),
        ("quick", (6, 8)),
        ("small_dissimilar", (1, 7)),
        ("small_similar", (4, 8)),
    ],
)
def test_the_depths_of_a_shipped_space_for_a_backbone_of_eight_stages(name: str, bounds: tuple[int, int]) -> None:
    depth = load_space(name)["freeze_depth"]
    assert isinstance(depth, Depth)
    assert depth.bounds(8) == bounds


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_names_a_shipped_space_that_agrees_about_scratch(scenario: Any) -> None:
    space = load_space(scenario.space)
    assert space["initial_weights"].contains("scratch") == scenario.scratch


def test_the_default_space_reads_as_written() -> None:
    space = load_space("default")
    assert (space.max_t, space.scratch_share) == ("auto", 0.0)
    assert space["learning_rate_factor"] == Float("learning_rate_factor", 0.01, 1.0, log=True)
    assert space["layer_decay"] == Float("layer_decay", 0.5, 1.0, when=PRETRAINED)
    assert space["freeze_depth"] == Depth("freeze_depth", 0, "all", PRETRAINED)
    assert space["batch_size"] == Categorical("batch_size", (32,))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_survives_the_way_through_toml(name: str, tmp_path: Path) -> None:
    path = tmp_path / "copy.toml"
    path.write_text(to_toml(load_space(name)), "utf-8")
    assert load_space(str(path)) == load_space(name)


def test_a_shipped_name_goes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").write_text("mine")
    assert find_space("quick") == spaces_dir() / "quick.toml"
    assert find_space("./quick") == Path("quick")


def test_a_space_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(SpaceError) as caught:
        load_space("fast")
    assert str(caught.value) == (
        "Found 1 problem in the input:\n  - search_space 'fast': no such space\n"
        "    allowed: default, large_dissimilar, large_similar, quick, small_dissimilar, small_similar, "
        "or the path of a TOML file"
    )


def test_a_folder_is_no_space(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="no such space"):
        load_space(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name = ", "Invalid value"),
        (b"a = 1\na = 2", "overwrite"),
        (b"\xff\xfe", "utf-8"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "recursion"),
        (b"a = " + b"9" * 5000, "digits"),
    ],
)
def test_a_file_that_is_not_toml_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(SpaceError) as caught:
        load_space(str(path))
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert problem.found.startswith("is not a TOML file (")
    assert reason in problem.found


def test_problems_in_a_file_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((spaces_dir() / "quick.toml").read_text().replace("max_t = 3", "max_t = 0"))
    with pytest.raises(SpaceError) as caught:
        load_space(str(path))
    assert str(caught.value) == (
        f'Found 1 problem in the input:\n  - {path}: max_t: 0\n    allowed: "auto" or a whole number from 1'
    )


def test_a_byte_order_mark_is_no_part_of_a_space(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (spaces_dir() / "quick.toml").read_bytes())
    assert load_space(str(path)) == load_space("quick")


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"#" * 10_000_000)
    with pytest.raises(SpaceError, match=r"has 10000000 bytes\n    allowed: at most 1000000"):
        load_space(str(path))


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_a_name_that_can_be_no_path_is_no_space(name: str) -> None:
    with pytest.raises(SpaceError, match="no such space"):
        load_space(name)
