"""The run folder: the names of its files, atomic writes, its lock, and what may not be overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autotl.errors import Problem, RunFolderError
from autotl.records import json_text

DEFAULT_PARENT = "autotl_runs"
FIT_LOCK = ".fit.lock"
"""Held in a run folder as long as a fit runs there."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either the old or the new bytes, whole, whatever happens."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    """Write `plain` as indented JSON, atomically; see `json_text`."""
    write_atomically(path, (json_text(plain, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in the JSON file at `path`.

    Raises:
        RunFolderError: if the file is missing or is not a JSON object.
    """
    try:
        plain = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError([Problem("run folder", str(path), f"cannot be read ({error})")]) from error
    if not isinstance(plain, dict):
        raise RunFolderError([Problem("run folder", str(path), "holds no JSON object")])
    return plain


def fingerprint(plain: Any) -> str:
    """Twelve hexadecimal digits that stand for `plain`, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class RunDir:
    """The files of one run. Everything in it is plain text, safetensors or npz; no pickle is ever loaded from it."""

    path: Path

    @property
    def settings(self) -> Path:
        """What was asked for, and the versions it ran on."""
        return self.path / "settings.json"

    @property
    def advice(self) -> Path:
        """The advice with its evidence."""
        return self.path / "advice.json"

    @property
    def data(self) -> Path:
        """What the data was, for a session that goes on: its fingerprint, and how much of it is used."""
        return self.path / "data.json"

    @property
    def space(self) -> Path:
        """The space that was searched, after the advice narrowed it."""
        return self.path / "space.toml"

    @property
    def trials(self) -> Path:
        """One line of JSON a finished trial."""
        return self.path / "trials.jsonl"

    @property
    def journal(self) -> Path:
        """Optuna's study, readable with optuna-dashboard."""
        return self.path / "study.journal"

    @property
    def benefit(self) -> Path:
        """Pretrained weights against random ones, where that was measured."""
        return self.path / "benefit.json"

    @property
    def result(self) -> Path:
        """The outcome: winner, scores, timings; written last."""
        return self.path / "result.json"

    @property
    def model(self) -> Path:
        """The best model so far."""
        return self.path / "model"

    @property
    def reference_set(self) -> Path:
        """Embeddings of training images by the best model; a later run that reuses it measures similarity with them."""
        return self.model / "reference_set.npz"

    @property
    def has_model(self) -> bool:
        """Whether there is a best model yet."""
        return (self.model / "model.json").exists()

    @property
    def log(self) -> Path:
        """What happened, with time stamps."""
        return self.path / "fit.log"

    @property
    def finished(self) -> Path:
        """What trials trained that came to their end; in the end that of the best, for a session that goes on."""
        return self.path / "finished"

    @property
    def unfinished(self) -> Path:
        """Trials between two epochs, for whoever goes on with them; in the end those that were cut."""
        return self.path / "unfinished"

    @property
    def cache(self) -> Path:
        """Decoded pixels, weights and activations; removed when the run ends."""
        return self.path / "cache"

    @contextmanager
    def lock(self, timeout: float = 60.0) -> Iterator[None]:
        """Hold the lock of the best model, between processes of one node and over a shared file system."""
        with FileLock(self.path / ".lock", timeout=timeout):
            yield

    def append_trial(self, plain: Mapping[str, Any]) -> None:
        """Add one finished trial to `trials`."""
        with open(self.trials, "a", encoding="utf-8") as file:
            file.write(json_text(plain) + "\n")

    def mend(self) -> None:
        """Take away what a crash left in the middle of being written: half a line, a lock."""
        kept = [json_text(plain) + "\n" for plain in self.read_trials()]
        write_atomically(self.trials, "".join(kept).encode())
        for lock in self.path.glob(f"{self.journal.name}.*"):
            lock.unlink(missing_ok=True)

    def read_trials(self) -> list[dict[str, Any]]:
        """The finished trials; a last line that a crash left incomplete is skipped."""
        records = []
        for line in self.trials.read_bytes().splitlines() if self.trials.exists() else ():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records


def default_path(dataset_dir: Path, now: float | None = None) -> Path:
    """`autotl_runs/NAME-DATE-TIME` in the current folder, with a number appended while that name is taken."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    base = Path(DEFAULT_PARENT).absolute() / f"{dataset_dir.resolve().name or 'run'}-{stamp}"
    candidate, number = base, 2
    while candidate.exists():
        candidate, number = base.with_name(f"{base.name}-{number}"), number + 1
    return candidate


def check_free(path: Path) -> list[Problem]:
    """The problems with starting a new run in `path`: in use, not a folder, not writable."""
    where = f"output_dir {path}"
    if path.exists() and not path.is_dir():
        return [Problem("run folder", where, "is a file", "a new or empty folder")]
    if _is_dead(RunDir(path)):
        return []
    if path.is_dir() and (path / "settings.json").exists():
        remedy = "name another folder, or load that run with autotl.load"
        return [Problem("run folder", where, "already holds a run", "a new or empty folder", remedy)]
    if path.is_dir() and any(path.iterdir()):
        return [Problem("run folder", where, "is not empty", "a new or empty folder")]
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not parent.is_dir():
        return [Problem("run folder", where, f"{parent} is a file", "a new or empty folder")]
    if not os.access(parent, os.W_OK):
        return [Problem("run folder", where, f"{parent} is not writable")]
    return []


def create(path: Path) -> RunDir:
    """Make the run folder; `check_free` has been asked before.

    Raises:
        RunFolderError: if the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "settings.json").open("x").close()  # claims the folder
    except FileExistsError as error:
        raise RunFolderError([Problem("run folder", str(path), "another fit has just begun there")]) from error
    except OSError as error:
        raise RunFolderError([Problem("run folder", str(path), f"cannot be made ({error})")]) from error
    return RunDir(path.absolute())


def _is_dead(run: RunDir) -> bool:
    """Whether a fit was killed there before it had a model: then its folder is free."""
    return _has_only_begun(run) and not _is_locked(run)


def _has_only_begun(run: RunDir) -> bool:
    """Whether there is a fit without a model, and nothing else."""
    return run.settings.exists() and not run.has_model and _holds_nothing_else(run)


def _is_locked(run: RunDir) -> bool:
    """Whether a fit is running there, as far as can be found out."""
    try:
        with FileLock(run.path / FIT_LOCK, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _holds_nothing_else(run: RunDir) -> bool:
    """Whether all that is in the folder is a fit's: other programs have a settings.json and a cache as well."""
    names = {path.name for path in (*_files(run), *_folders(run))} | {".lock", FIT_LOCK}
    return all(path.name in names or path.name.startswith(run.journal.name) for path in run.path.iterdir())


def _files(run: RunDir) -> tuple[Path, ...]:
    return run.settings, run.log, run.trials, run.advice, run.data, run.space, run.journal, run.benefit, run.result


def _folders(run: RunDir) -> tuple[Path, ...]:
    return run.cache, run.model, run.finished, run.unfinished


@contextmanager
def occupied(path: Path) -> Iterator[RunDir]:
    """Make the run folder, and keep other fits out of it until this one has ended; `check_free` has been asked before.

    One that ends before it had a model leaves nothing.

    Raises:
        RunFolderError: if the folder cannot be made, or another fit has just begun there.
    """
    lock = FileLock(path.absolute() / FIT_LOCK, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RunFolderError([Problem("run folder", str(path), "another fit has just begun there")]) from error
    except OSError as error:
        raise RunFolderError([Problem("run folder", str(path), f"cannot be made ({error})")]) from error
    try:
        if _has_only_begun(RunDir(path)):
            _clear(RunDir(path))
        run = create(path)
    except RunFolderError:
        lock.release()
        raise
    try:
        yield run
    finally:
        if not run.has_model:
            _clear(run)
        lock.release()
        with suppress(OSError):
            (run.path / FIT_LOCK).unlink()
        with suppress(OSError):  # holds something else
            run.path.rmdir()


@contextmanager
def reopened(path: Path) -> Iterator[RunDir]:
    """An existing run with a model, kept for one more session.

    Raises:
        RunFolderError: if it is no such run, or a fit runs there.
    """
    run = find(path)
    lock = FileLock(run.path / FIT_LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunFolderError([Problem("run folder", f"resume {path}", "a fit is running there")]) from error
    except OSError as error:
        raise RunFolderError([Problem("run folder", f"resume {path}", f"cannot be written to ({error})")]) from error
    try:
        run.mend()
        yield run
    finally:
        lock.release()
        with suppress(OSError):
            (run.path / FIT_LOCK).unlink()


def _clear(run: RunDir) -> None:
    """Remove the files of a fit that ended before it had a model, so that its folder can be used again."""
    for path in (*_files(run), run.path / ".lock", *run.path.glob(f"{run.journal.name}.*")):
        with suppress(OSError):
            path.unlink()
    for folder in _folders(run):
        shutil.rmtree(folder, ignore_errors=True)


def find(path: str | os.PathLike[str]) -> RunDir:
    """An existing run.

    Raises:
        RunFolderError: if `path` is not the folder of a run that has a model.
    """
    run = RunDir(Path(path).absolute())
    if not run.path.is_dir():
        raise RunFolderError([Problem("run folder", str(path), "no such folder")])
    if not run.has_model:
        found = "is a run without a model yet" if run.settings.exists() else "is not a run folder (no model/model.json)"
        raise RunFolderError([Problem("run folder", str(path), found, remedy="name a folder made by autotl fit")])
    return run
