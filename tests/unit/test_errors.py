"""The exception tree, and how problems read."""

from __future__ import annotations

import pickle

import pytest

from autotl import errors
from autotl.errors import (
    AutotlError,
    BackboneError,
    DatasetError,
    InputError,
    ModelFileError,
    Problem,
    RunFolderError,
    SearchError,
    SettingsError,
    SpaceError,
    raise_if_any,
)

CLASS_OF_AREA = {
    "settings": SettingsError,
    "dataset": DatasetError,
    "space": SpaceError,
    "backbone": BackboneError,
    "run folder": RunFolderError,
}


def test_a_problem_says_where_what_was_found_what_is_allowed_and_what_to_do() -> None:
    problem = Problem("settings", "seed", "-1", "a whole number from 0", "leave it out")
    assert str(problem) == "seed: -1\n    allowed: a whole number from 0\n    → leave it out"


def test_a_problem_leaves_out_what_it_does_not_know() -> None:
    assert str(Problem("settings", "seed", "-1")) == "seed: -1"
    assert str(Problem("settings", "seed", "-1", remedy="leave it out")) == "seed: -1\n    → leave it out"
    assert str(Problem("settings", "seed", "-1", "from 0")) == "seed: -1\n    allowed: from 0"


def test_an_input_error_counts_one_problem_in_the_singular() -> None:
    assert str(InputError([Problem("settings", "seed", "-1")])) == "Found 1 problem in the input:\n  - seed: -1"


def test_an_input_error_lists_all_its_problems_in_order() -> None:
    problems = [Problem("settings", "seed", "-1"), Problem("dataset", "photos", "no such folder", "a folder")]
    assert str(InputError(problems)) == (
        "Found 2 problems in the input:\n  - seed: -1\n  - photos: no such folder\n    allowed: a folder"
    )
    assert InputError(iter(problems)).problems == tuple(problems)


@pytest.mark.parametrize(("area", "kind"), CLASS_OF_AREA.items())
def test_problems_of_one_area_come_as_that_areas_class(area: errors.Area, kind: type[InputError]) -> None:
    with pytest.raises(InputError) as caught:
        raise_if_any([Problem(area, "a", "x"), Problem(area, "b", "y")])
    assert type(caught.value) is kind
    assert [problem.where for problem in caught.value.problems] == ["a", "b"]


def test_problems_of_several_areas_come_as_a_plain_input_error() -> None:
    with pytest.raises(InputError) as caught:
        raise_if_any([Problem("settings", "a", "x"), Problem("space", "b", "y")])
    assert type(caught.value) is InputError
    assert len(caught.value.problems) == 2


def test_no_problems_raise_nothing() -> None:
    raise_if_any([])


@pytest.mark.parametrize("kind", [InputError, *CLASS_OF_AREA.values()])
def test_input_errors_survive_the_way_between_processes(kind: type[InputError]) -> None:
    error = kind([Problem("settings", "seed", "-1", "from 0", "leave it out")])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert copy.problems == error.problems
    assert str(copy) == str(error)


@pytest.mark.parametrize("kind", [ModelFileError, SearchError])
def test_errors_that_are_not_of_the_input_are_no_input_errors(kind: type[AutotlError]) -> None:
    assert issubclass(kind, AutotlError)
    assert not issubclass(kind, InputError)


def test_every_exception_of_the_module_belongs_to_the_tree() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) == 10
    assert all(issubclass(kind, AutotlError) for kind in kinds)


def test_what_is_to_be_done_is_told_once_for_all_that_it_is_the_same_for() -> None:
    alike = [Problem("dataset", f"{number}.jpg", "unreadable", remedy="remove it") for number in range(3)]
    other = Problem("dataset", "DIR", "no such folder", remedy="name one")
    assert str(errors.InputError([*alike, other])) == (
        "Found 4 problems in the input:\n"
        "  - 0.jpg: unreadable\n"
        "  - 1.jpg: unreadable\n"
        "  - 2.jpg: unreadable\n"
        "    → remove it\n"
        "  - DIR: no such folder\n"
        "    → name one"
    )


def test_of_very_many_problems_the_first_are_shown_and_all_are_held() -> None:
    problems = [Problem("dataset", f"{number}.jpg", "unreadable", remedy="remove it") for number in range(2000)]
    error = errors.InputError(problems)
    assert len(error.problems) == 2000
    assert "19.jpg" in str(error)
    assert "20.jpg" not in str(error)
    assert str(error).endswith("    → remove it\n  - and 1980 more")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(28, "No space left on device", "/run/cache/x"),
            "/run/cache/x: No space left on device\n    → free some",
        ),
        (PermissionError(13, "Permission denied", b"/x"), "/x: Permission denied\n    → give this user the right to"),
        (OSError("pipe"), "pipe"),
        (OSError(), "OSError"),
    ],
)
def test_what_the_machine_refused_is_told_with_a_remedy(error: OSError, expected: str) -> None:
    told = errors.refused(error)
    assert isinstance(told, errors.MachineError)
    assert str(told).startswith(expected)
