"""What a killed fit leaves is removed by the next one; what a running one needs stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from autotl.storage.leftovers import listed, lists_folder, sweep

PROGRAM = """
import os, sys
from pathlib import Path
from autotl.storage.leftovers import listed

with listed() as leftovers:
    leftovers.add(Path(sys.argv[1]))
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTL_CACHE_DIR", str(tmp_path / "user-cache"))


def filled(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "pixels.u8").write_bytes(b"1")
    return folder


def test_what_is_listed_goes_in_the_end_and_so_does_the_list(tmp_path: Path) -> None:
    cache = filled(tmp_path / "run" / "cache")
    with suppress(ZeroDivisionError), listed() as leftovers:
        leftovers.add(cache)
        assert cache.exists()
        raise ZeroDivisionError
    assert not cache.exists()
    assert list(lists_folder().iterdir()) == []


def test_a_running_fit_is_left_alone_and_a_killed_one_is_cleared_away(tmp_path: Path) -> None:
    cache = filled(tmp_path / "run" / "cache")
    fit = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert fit.stdin is not None
    assert fit.stdout is not None
    assert fit.stdout.readline() == "begun\n"
    assert sweep() == []
    assert cache.exists()
    os.kill(fit.pid, signal.SIGKILL)
    fit.wait(30)
    fit.stdin.close()
    fit.stdout.close()
    assert sweep() == [cache]
    assert not cache.exists()
    assert list(lists_folder().iterdir()) == []
    assert sweep() == []


def test_what_another_machine_left_in_a_shared_cache_is_not_touched(tmp_path: Path) -> None:
    cache = filled(tmp_path / "run" / "cache")
    lists_folder().mkdir(parents=True)
    (lists_folder() / "a.json").write_text(json.dumps({"host": "elsewhere", "folders": [str(cache)]}), "utf-8")
    assert sweep() == []
    assert cache.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"host": 1}', "\0"])
def test_a_damaged_list_is_passed_over(content: str) -> None:
    lists_folder().mkdir(parents=True)
    (lists_folder() / "a.json").write_text(content, "utf-8")
    assert sweep() == []


def test_a_cache_that_cannot_be_written_ends_no_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("AUTOTL_CACHE_DIR", str(tmp_path / "file"))
    cache = filled(tmp_path / "run" / "cache")
    with listed() as leftovers:
        leftovers.add(cache)
    assert not cache.exists()
