"""Ray's folder has a path that its sockets can have, wherever temporary files are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from autotl.tune import ray_folder
from autotl.tune.ray_folder import LONGEST_PARENT, make_ray_folder


@pytest.fixture(autouse=True)
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is taken where that of the user will not do."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(ray_folder, "LONGEST_PARENT", len(str(tmp_path)) + 10)
    monkeypatch.setattr(ray_folder, "USUAL", (str(tmp_path / "not" / "there"), str(tmp_path)))
    return tmp_path


def test_it_is_a_new_one_among_the_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "mine"))
    first, second = make_ray_folder(), make_ray_folder()
    assert first is not None
    assert first != second
    assert first.is_dir()
    assert first.parent == tmp_path / "mine"


@pytest.mark.parametrize("name", ["a" * 30, "Übung", "gone"], ids=["long", "not ASCII", "not there"])
def test_where_that_will_not_do_it_is_in_the_usual_place(
    name: str, usual: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "gone":
        (usual / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(usual / name))
    folder = make_ray_folder()
    assert folder is not None
    assert folder.parent == usual


def test_where_none_can_be_made_ray_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    monkeypatch.setattr(ray_folder, "USUAL", ("/proc/none",))
    assert make_ray_folder() is None


def test_who_has_named_one_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/somewhere")
    assert make_ray_folder() is None


def test_the_usual_temporary_folder_is_short_enough() -> None:
    assert len("/tmp/user/1000") < LONGEST_PARENT
