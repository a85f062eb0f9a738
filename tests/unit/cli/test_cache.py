"""`autotl cache` and `autotl example`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autotl.cli import main

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]
Replace = Callable[[str, Any], Any]
Heads = Callable[[], list[str]]


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
        "autotl: Found 1 problem in the input:\n  - DIR target: exists already\n    allowed: a new or empty folder\n"
    )
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["precious"]


@pytest.mark.usefixtures("_fitting")
def test_an_example_below_a_file_ends_with_code_2(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    assert main(["example", "digits", "file/digits"]) == 2
    assert "file/digits" in capsys.readouterr().err
