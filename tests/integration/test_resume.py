"""A fit that gets one more session: what it found is used, and what has changed is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import autotl
from autotl.errors import RunFolderError
from autotl.models.catalog import find_entry
from autotl.models.weights import file_sha256, load_pretrained, locate, save_state
from autotl.records import Status
from autotl.storage.finished import finished_trials
from autotl.storage.rundir import RunDir
from autotl.storage.unfinished import Unfinished, keep_unfinished

LITE0 = "tf_efficientnet_lite0.in1k"


class Sessions(NamedTuple):
    """A data set, a run on it, its first result and that of a second session."""

    data: Path
    first: autotl.FitResult
    second: autotl.FitResult


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]) -> Sessions:
    folder = tmp_path_factory.mktemp("sessions")
    data = write_shapes(folder / "data", 12)
    options: dict[str, Any] = {"backbones": LITE0, "search_space": "quick", "seed": 3, "quiet": True}
    resources = autotl.Resources(slots=1, cpus_per_trial=1)
    first = autotl.fit(data, n_trials=1, timeout="10m", output_dir=folder / "run", resources=resources, **options)
    shutil.copytree(first.run_dir, folder / "before")
    with open(first.run_dir / "trials.jsonl", "a", encoding="utf-8") as file:
        file.write('{"number": 2, "trial_')  # as a power cut leaves it
    second = autotl.resume(first.run_dir, n_trials=2, timeout="10m", quiet=True)
    return Sessions(data, first, second)


def searched(result: autotl.FitResult) -> list[autotl.TrialRecord]:
    return [trial for trial in result.trials if trial.searched]


def test_no_trial_is_lost_and_none_is_tried_again(sessions: Sessions) -> None:
    assert sessions.second.trials[: len(sessions.first.trials)] == sessions.first.trials
    configs = [trial.config for trial in searched(sessions.second)]
    assert len(configs) == 3
    assert all(config not in configs[:place] for place, config in enumerate(configs))
    assert all(trial.status is Status.COMPLETED for trial in searched(sessions.second))


def test_every_trial_says_of_which_session_it_is(sessions: Sessions) -> None:
    assert [trial.session for trial in searched(sessions.second)] == [1, 2, 2]
    assert [trial.number for trial in sessions.second.trials] == [0, 1, 2, 3]
    lines = (sessions.second.run_dir / "trials.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["session"] for line in lines] == [1, 1, 2, 2]  # the first is the probe


def test_the_study_goes_on(sessions: Sessions) -> None:
    journal = str(sessions.second.run_dir / "study.journal")
    storage = JournalStorage(JournalFileBackend(journal))
    (name,) = optuna.get_all_study_names(storage)
    states = [trial.state.name for trial in optuna.load_study(study_name=name, storage=storage).trials]
    assert states == ["COMPLETE"] * 3


def test_the_result_is_that_of_all_sessions(sessions: Sessions) -> None:
    plain = json.loads((sessions.second.run_dir / "result.json").read_text("utf-8"))
    assert plain["trials"] == {"completed": 3}
    assert sessions.second.validation.value >= sessions.first.validation.value
    best = max(trial.score for trial in sessions.second.trials if trial.score is not None)
    assert sessions.second.validation.value == pytest.approx(best, abs=0.5 / sessions.second.validation.n_images)


def test_the_best_trials_are_kept_for_another_session(sessions: Sessions) -> None:
    assert 1 <= len(list((sessions.second.run_dir / "finished").glob("*/model.json"))) <= 2
    assert not (sessions.second.run_dir / "cache").exists()


def test_a_trial_that_was_cut_goes_on_from_its_last_epoch(sessions: Sessions, tmp_path: Path) -> None:
    run = RunDir(Path(shutil.copytree(sessions.second.run_dir, tmp_path / "run")))
    (finished, *_) = finished_trials(run.finished)
    entry = find_entry(LITE0)
    save_state(load_pretrained(entry, locate(entry)), tmp_path / "state.safetensors")
    cut = Unfinished(
        trial_id="cut",
        config=finished.card.config,
        weights_sha256=file_sha256(tmp_path / "state.safetensors"),
        epoch=99,
        planned=100,
        elapsed=100.0,
        continues="",
        resumed=0,
        curve=(0.3, 0.4, 0.5),
        train_losses=(1.0, 0.9),
        best=None,
        training={"scaler": {}, "part": 0, "epoch_seconds": 1.0, "view_seconds": 0.1, "view_uses": [1]},
    )
    tensors = {f"model/{name}": tensor for name, tensor in finished.trained().items()}
    keep_unfinished(run.unfinished, cut, tensors | {"random": torch.get_rng_state()})
    result = autotl.resume(run.path, n_trials=1, timeout="10m", quiet=True)
    trial = searched(result)[-1]
    assert (trial.origin, trial.resumes, trial.session) == ("resumption", "cut", 3)
    assert (trial.status, trial.epochs, trial.config) == (Status.COMPLETED, 100, finished.card.config)
    assert trial.curve[:3] == (0.3, 0.4, 0.5)
    assert trial.curve[3] == pytest.approx(finished.card.score, abs=0.1)  # its rates have all but fallen to zero
    assert trial.seconds > 100
    assert list(run.unfinished.iterdir()) == []


def copy_of(sessions: Sessions, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sessions.first.run_dir, tmp_path / "run"))


def refusal(run: Path) -> str:
    before = sorted(str(path) for path in run.rglob("*") if path.name not in ("fit.log", ".fit.lock"))
    with pytest.raises(RunFolderError) as caught:
        autotl.resume(run, timeout="60s", quiet=True)
    assert sorted(str(path) for path in run.rglob("*") if path.name not in ("fit.log", ".fit.lock")) == before
    return str(caught.value)


def test_data_that_has_changed_is_refused(
    sessions: Sessions, tmp_path: Path, write_shapes: Callable[..., Path]
) -> None:
    run = copy_of(sessions, tmp_path)
    settings = json.loads((run / "settings.json").read_text("utf-8"))
    settings["dataset_dir"] = str(write_shapes(tmp_path / "other", 13))
    (run / "settings.json").write_text(json.dumps(settings), "utf-8")
    assert "its data is another now: images were" in refusal(run)


def test_other_versions_are_refused_by_name(sessions: Sessions, tmp_path: Path) -> None:
    run = copy_of(sessions, tmp_path)
    settings = json.loads((run / "settings.json").read_text("utf-8"))
    settings["versions"] |= {"torch": "1.0", "timm": "0.9"}
    (run / "settings.json").write_text(json.dumps(settings), "utf-8")
    message = refusal(run)
    assert "made with torch 1.0, now it is" in message
    assert "made with timm 0.9, now it is" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trials.jsonl", ""),
        ("trials.jsonl", '{"number": "x"}\n'),
        ("settings.json", "{}"),
        ("data.json", "[]"),
        ("space.toml", "name = "),
    ],
)
def test_a_damaged_run_is_refused(sessions: Sessions, tmp_path: Path, name: str, content: str) -> None:
    run = copy_of(sessions, tmp_path)
    (run / name).write_text(content, "utf-8")
    assert f"resume {run}" in refusal(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        autotl.resume(tmp_path / "run")
