"""The commands that need no data: search spaces, backbones, the example data set and the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from autotl.cli import main
from autotl.space.files import load_space, shipped_names, spaces_dir

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]


# -- spaces ------------------------------------------------------------------------------------------------------


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
        "autotl: 1 problem with what was given:\n  - mine.toml: exists already\n    allowed: the name of a new file\n"
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
        "autotl: 1 problem with what was given:\n  - search_space 'fast': no such space\n    allowed: default, "
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
        "autotl: 4 problems with what was given:",
        "  - mine.toml: max_t: 0",
        '    allowed: "auto" or a whole number from 1',
        "  - mine.toml: name is missing",
        "    allowed: a text",
        "  - mine.toml: layer_dcay: unknown key",
        "    allowed: name, description, max_t, grace_period, reduction_factor, scratch_share, backbone, "
        "initial_weights, freeze_depth, learning_rate_factor, head_learning_rate_factor, layer_decay, weight_decay, "
        "augmentation, label_smoothing, batch_size",
        "  - mine.toml: [layer_decay] is missing",
        "    → copy it from `autotl spaces show default`",
    ]


# -- backbones ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_fitting")
def test_backbones_list_as_json_holds_the_catalog_and_what_is_here(capsys: Capture) -> None:
    assert main(["backbones", "list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert len(entries) == 68
    lite = entries["tf_efficientnet_lite0.in1k"]
    assert (lite["weights"], lite["available"], lite["stages"], lite["parameters_m"]) == ("bundled", True, 8, 4.65)
    assert [name for name, entry in entries.items() if entry["weights"] == "bundled" and not entry["available"]] == []
    assert {type(entry["available"]) for entry in entries.values()} == {bool}


@pytest.mark.usefixtures("_fitting")
def test_backbones_list_shows_the_catalog_in_columns(capsys: Capture) -> None:
    assert main(["backbones", "list"]) == 0
    head, first, *others = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "backbone here weights params M GMACs top-1 % input stages licence"
    assert " ".join(first.split()) == "tf_efficientnet_lite0.in1k yes bundled 4.7 0.40 74.8 224 8 apache-2.0"
    assert len(others) == 67


# -- example -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_fitting")
def test_example_digits_writes_all_digits_a_quarter_of_them_as_test(tmp_path: Path, capsys: Capture) -> None:
    assert main(["example", "digits", "photos/digits"]) == 0
    counts = {
        split: [len(list((tmp_path / "photos/digits" / split / str(digit)).iterdir())) for digit in range(10)]
        for split in ("train", "test")
    }
    train, test = sum(counts["train"]), sum(counts["test"])
    assert capsys.readouterr().out == f"1797 images in photos/digits: {train} train, {test} test\n"
    totals = [one + other for one, other in zip(counts["train"], counts["test"], strict=True)]
    assert totals == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert counts["test"] == pytest.approx([total / 4 for total in totals], abs=1)
    with Image.open(next((tmp_path / "photos/digits/test/7").iterdir())) as image:
        assert (image.format, image.size) == ("PNG", (64, 64))


@pytest.mark.parametrize("kind", ["a file", "a full folder"])
def test_an_example_overwrites_nothing(tmp_path: Path, capsys: Capture, kind: str) -> None:
    target = tmp_path / "target"
    precious = target if kind == "a file" else target / "thesis.doc"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    assert main(["example", "digits", "target"]) == 2
    assert capsys.readouterr().err == (
        "autotl: 1 problem with what was given:\n  - DIR target: exists already\n    allowed: a new or empty folder\n"
    )
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["precious"]


@pytest.mark.usefixtures("_fitting")
def test_an_example_below_a_file_ends_with_code_2(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    assert main(["example", "digits", "file/digits"]) == 2
    assert "file/digits" in capsys.readouterr().err


# -- cache -------------------------------------------------------------------------------------------------------


def test_the_cache_is_shown_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from autotl.storage.cache import DiskCache

    monkeypatch.setenv("AUTOTL_CACHE_DIR", str(tmp_path))
    DiskCache(tmp_path).get_or_build({"kind": "test"}, 8, lambda target: target.write_bytes(b"12345678") == 8)
    assert main(["cache", "show"]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path) in shown
    assert "1 files, 0.00 of at most 20 GiB" in shown
    assert main(["cache", "clear"]) == 0
    assert main(["cache", "show"]) == 0
    assert "0 files" in capsys.readouterr().out
