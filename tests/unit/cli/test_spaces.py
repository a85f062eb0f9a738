"""`autotl spaces`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotl.cli import main
from autotl.space.files import load_space, shipped_names, spaces_dir

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]
Replace = Callable[[str, Any], Any]
Heads = Callable[[], list[str]]


def test_spaces_list_says_what_each_is_for(capsys: Capture) -> None:
    assert main(["spaces", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["space", "what", "it", "is", "for"]
    assert [tuple(line.rstrip().split(maxsplit=1)) for line in lines] == [
        (name, load_space(name).description) for name in shipped_names()
    ]


def test_spaces_show_prints_the_file_with_its_comments(capsys: Capture) -> None:
    assert main(["spaces", "show", "quick"]) == 0
    assert capsys.readouterr().out == (spaces_dir() / "quick.toml").read_text("utf-8")


def test_a_copied_space_is_the_same_and_checks_fine(tmp_path: Path, capsys: Capture) -> None:
    assert main(["spaces", "copy", "quick", "mine.toml"]) == 0
    assert capsys.readouterr().out == "quick copied to mine.toml; use it with autotl fit --space mine.toml\n"
    assert (tmp_path / "mine.toml").read_bytes() == (spaces_dir() / "quick.toml").read_bytes()
    assert main(["spaces", "check", "mine.toml"]) == 0
    fingerprint = load_space("quick").fingerprint()
    assert capsys.readouterr().out == f"mine.toml: fine, 10 parameters, fingerprint {fingerprint}\n"


def test_a_copy_overwrites_nothing(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine.toml").write_text("precious")
    assert main(["spaces", "copy", "quick", "mine.toml"]) == 2
    assert capsys.readouterr().err == (
        "autotl: Found 1 problem in the input:\n  - mine.toml: exists already\n    allowed: the name of a new file\n"
    )
    assert (tmp_path / "mine.toml").read_text() == "precious"


def test_a_copy_into_a_folder_that_does_not_exist_ends_with_code_2(capsys: Capture) -> None:
    assert main(["spaces", "copy", "quick", "gone/mine.toml"]) == 2
    assert "gone/mine.toml" in capsys.readouterr().err


@pytest.mark.parametrize("action", [["show"], ["copy"]])
def test_a_space_that_is_no_text_ends_with_code_2(tmp_path: Path, capsys: Capture, action: list[str]) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert main(["spaces", *action, "photo.jpg", *(["new.toml"] if action == ["copy"] else [])]) == 2
    assert "photo.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("action", [["show", "fast"], ["check", "fast"], ["copy", "fast", "mine.toml"]])
def test_an_unknown_space_ends_with_code_2(tmp_path: Path, capsys: Capture, action: list[str]) -> None:
    assert main(["spaces", *action]) == 2
    assert capsys.readouterr().err.startswith(
        "autotl: Found 1 problem in the input:\n  - search_space 'fast': no such space\n    allowed: default, "
    )
    assert list(tmp_path.iterdir()) == []


def test_spaces_check_lists_every_problem(tmp_path: Path, capsys: Capture) -> None:
    text = (spaces_dir() / "quick.toml").read_text("utf-8")
    text = text.replace('name = "quick"', "").replace("max_t = 3", "max_t = 0").replace("[layer_decay]", "[layer_dcay]")
    (tmp_path / "mine.toml").write_text(text)
    assert main(["spaces", "check", "mine.toml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "autotl: Found 4 problems in the input:",
        "  - mine.toml: max_t: 0",
        '    allowed: "auto" or a whole number from 1',
        "  - mine.toml: name is missing",
        "    allowed: a text",
        "  - mine.toml: layer_dcay: unknown key",
        "    allowed: name, description, max_t, scratch_share, backbone, initial_weights, "
        "freeze_depth, learning_rate_factor, head_learning_rate_factor, layer_decay, weight_decay, "
        "augmentation, label_smoothing, batch_size",
        "  - mine.toml: [layer_decay] is missing",
        "    → copy it from `autotl spaces show default`",
    ]
