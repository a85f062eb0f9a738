"""The run folder: its files, atomic writes, the lock, and what may not be overwritten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import Timeout

from autotl.errors import RunFolderError
from autotl.storage import rundir
from autotl.storage.rundir import RunDir, fingerprint, read_json, write_atomically, write_json


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"a long first content")
    write_atomically(path, b"short")
    assert path.read_bytes() == b"short"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_json_is_written_for_people_to_read_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"class": "Größe", "scores": [0.5]})
    assert path.read_text("utf-8") == '{\n  "class": "Größe",\n  "scores": [\n    0.5\n  ]\n}\n'
    assert read_json(path) == {"class": "Größe", "scores": [0.5]}


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        read_json(tmp_path / "gone.json")
    assert f"  - {tmp_path / 'gone.json'}: cannot be read ([Errno 2] No such file or directory" in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RunFolderError) as caught:
        read_json(path)
    assert f"{path}: cannot be read (" in str(caught.value)


def test_json_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with pytest.raises(RunFolderError) as caught:
        read_json(path)
    assert str(caught.value) == f"Found 1 problem in the input:\n  - {path}: holds no JSON object"


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


def test_a_fingerprint_is_the_start_of_the_sha256_of_the_json() -> None:
    # sha256 of the two characters {}
    assert fingerprint({}) == "44136fa355b3"


def test_a_fingerprint_depends_on_values_and_on_the_order_of_lists() -> None:
    assert len({fingerprint(plain) for plain in ([1, 2], [2, 1], [1, 2, 3], {"1": 2}, Path("a"), "b")}) == 6


def test_every_file_of_a_run_lies_in_its_folder() -> None:
    run = RunDir(Path("/runs/first"))
    files = (run.settings, run.advice, run.space, run.trials, run.journal, run.result, run.model, run.log, run.cache)
    assert [str(file.relative_to("/runs/first")) for file in files] == [
        "settings.json",
        "advice.json",
        "space.toml",
        "trials.jsonl",
        "study.journal",
        "result.json",
        "model",
        "fit.log",
        "cache",
    ]


def test_trials_read_back_in_order(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.read_trials() == []
    trials = [{"number": 0, "error": "a\nb"}, {"number": 1, "error": "größer"}]
    for trial in trials:
        run.append_trial(trial)
    assert run.read_trials() == trials
    assert len(run.trials.read_text("utf-8").splitlines()) == 2


def test_a_last_trial_that_a_crash_left_incomplete_is_skipped(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_trial({"number": 0})
    with open(run.trials, "a") as file:
        file.write('{"number": 1, "sco')
    assert run.read_trials() == [{"number": 0}]


def test_a_last_trial_that_ends_within_a_letter_is_skipped(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_trial({"number": 0})
    with open(run.trials, "ab") as file:
        file.write('{"number": 1, "error": "ü'.encode()[:-1])
    assert run.read_trials() == [{"number": 0}]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\r", "\x0b", "\x1c"])
def test_a_line_separator_inside_a_traceback_does_not_split_a_trial(tmp_path: Path, separator: str) -> None:
    run = RunDir(tmp_path)
    trials = [{"number": 0, "error": f"one{separator}two"}, {"number": 1, "error": ""}]
    for trial in trials:
        run.append_trial(trial)
    assert run.read_trials() == trials


def test_the_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with run.lock(), pytest.raises(Timeout), RunDir(tmp_path).lock(timeout=0):
        pytest.fail("two held the lock")
    with run.lock(timeout=0):
        pass


@pytest.fixture
def _utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, in a time zone that is always the same."""
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_utc")
def test_the_default_folder_names_the_data_and_the_time(tmp_path: Path) -> None:
    assert rundir.default_path(Path("some/photos"), now=0) == tmp_path / "autotl_runs" / "photos-19700101-000000"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_utc")
def test_a_taken_default_folder_gets_a_number(tmp_path: Path) -> None:
    parent = tmp_path / "autotl_runs"
    for expected in ("photos-19700101-000000", "photos-19700101-000000-2", "photos-19700101-000000-3"):
        path = rundir.default_path(Path("photos"), now=0)
        assert path == parent / expected
        path.mkdir(parents=True)


@pytest.mark.usefixtures("_utc")
def test_the_current_folder_as_data_lends_its_name(tmp_path: Path) -> None:
    assert rundir.default_path(Path("."), now=0).name == f"{tmp_path.name}-19700101-000000"
    assert rundir.default_path(Path("/"), now=0).name == "run-19700101-000000"


@pytest.mark.parametrize("name", ["new", "new/deep/down", "empty"])
def test_a_new_or_empty_folder_is_free(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert rundir.check_free(tmp_path / name) == []


def test_a_file_cannot_be_a_run_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch()
    (problem,) = rundir.check_free(path)
    assert problem.area == "run folder"
    assert str(problem) == f"output_dir {path}: is a file\n    allowed: a new or empty folder"


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "settings.json").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").touch()
    (problem,) = rundir.check_free(tmp_path)
    assert str(problem) == (
        f"output_dir {tmp_path}: already holds a run\n    allowed: a new or empty folder\n"
        "    → name another folder, or load that run with autotl.load"
    )


def dead_run(folder: Path) -> Path:
    """As a fit leaves it that was killed before it had a model."""
    for name in ("settings.json", "fit.log", "cache/pixels.u8", "model/.weights.tmp", "study.journal.lock.x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_fit_that_was_killed_before_it_had_a_model_does_not_block_its_folder(tmp_path: Path) -> None:
    folder = dead_run(tmp_path / "run")
    assert rundir.check_free(folder) == []
    with rundir.occupied(folder) as run:
        assert sorted(path.name for path in run.path.iterdir()) == [".fit.lock", "settings.json"]
    assert not folder.exists()  # this one had no model either


@pytest.mark.parametrize("name", ["thesis.doc", "cache2"])
def test_another_programs_folder_is_never_cleared(tmp_path: Path, name: str) -> None:
    folder = dead_run(tmp_path / "run")
    (folder / name).touch()
    (problem,) = rundir.check_free(folder)
    assert problem.found == "already holds a run"
    with pytest.raises(RunFolderError), rundir.occupied(folder):
        pass
    assert (folder / "cache" / "pixels.u8").exists()


def test_a_folder_in_which_a_fit_runs_is_taken(tmp_path: Path) -> None:
    with rundir.occupied(tmp_path / "run") as run:
        (problem,) = rundir.check_free(run.path)
        assert problem.found == "already holds a run"
        with pytest.raises(RunFolderError, match="another fit has just begun there"), rundir.occupied(run.path):
            pass
        assert run.settings.exists()


def test_a_run_with_a_model_stays(tmp_path: Path) -> None:
    with rundir.occupied(tmp_path / "run") as run:
        run.model.mkdir()
        (run.model / "model.json").touch()
    assert sorted(path.name for path in run.path.iterdir()) == ["model", "settings.json"]


def test_a_run_is_reopened_without_what_a_crash_left_half_written(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.model.mkdir()
    (run.model / "model.json").touch()
    run.trials.write_text('{"number": 0}\n{"number": 1', "utf-8")
    (tmp_path / "study.journal.lock").touch()
    with rundir.reopened(tmp_path) as again:
        again.append_trial({"number": 1})
        assert [trial["number"] for trial in again.read_trials()] == [0, 1]
        assert not (tmp_path / "study.journal.lock").exists()
        with pytest.raises(RunFolderError, match="a fit is running there"), rundir.reopened(tmp_path):
            pass
    assert not (tmp_path / ".fit.lock").exists()


def test_a_folder_that_cannot_be_occupied_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be made"), rundir.occupied(tmp_path / "file" / "run"):
        pass


def test_a_folder_with_anything_else_in_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    (problem,) = rundir.check_free(tmp_path)
    assert str(problem) == f"output_dir {tmp_path}: is not empty\n    allowed: a new or empty folder"


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    (problem,) = rundir.check_free(tmp_path / "new" / "run")
    assert str(problem) == f"output_dir {tmp_path / 'new' / 'run'}: {tmp_path} is not writable"


def test_a_folder_is_made_with_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = rundir.create(Path("a/b/run"))
    assert run.path == tmp_path / "a" / "b" / "run"
    assert run.path.is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError) as caught:
        rundir.create(tmp_path / "file" / "run")
    assert f"{tmp_path / 'file' / 'run'}: cannot be made ([Errno 20] Not a directory" in str(caught.value)


def test_a_run_with_a_model_is_found(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps({}))
    assert rundir.find(str(tmp_path)).path == tmp_path


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        rundir.find(tmp_path / "gone")
    assert str(caught.value) == f"Found 1 problem in the input:\n  - {tmp_path / 'gone'}: no such folder"


def test_any_other_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        rundir.find(tmp_path)
    assert str(caught.value) == (
        f"Found 1 problem in the input:\n  - {tmp_path}: is not a run folder (no model/model.json)\n"
        "    → name a folder made by autotl fit"
    )


def test_a_run_that_has_no_model_yet_is_distinguished(tmp_path: Path) -> None:
    (tmp_path / "settings.json").touch()
    with pytest.raises(RunFolderError, match="is a run without a model yet"):
        rundir.find(tmp_path)
