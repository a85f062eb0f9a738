"""Real fits of coloured shapes: what they find, what they leave behind, and what they survive."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from safetensors.numpy import load_file

import autotl
from autotl.advice.reference_set import load_reference_set
from autotl.records import Status, TrialRecord
from autotl.space.files import load_space
from autotl.storage.saved_model import load_card

LITE0 = "tf_efficientnet_lite0.in1k"
CLASSES = ("circle", "square", "triangle")
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
ZIP = b"PK\x03\x04"  # torch.save and npz


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]) -> Path:
    """60 images for training and 24, drawn with another seed, for the test."""
    root = tmp_path_factory.mktemp("dataset")
    write_shapes(root / "train", 20, seed=0)
    write_shapes(root / "test", 8, seed=1)
    return root


@pytest.fixture(scope="module")
def result(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> autotl.FitResult:
    """The fit that most tests look at. It has ten minutes and two trials: only the trials can end it in time."""
    return autotl.fit(
        dataset,
        backbones=LITE0,
        search_space="quick",
        n_trials=2,
        timeout="10m",
        output_dir=tmp_path_factory.mktemp("fit") / "run",
        seed=3,
        quiet=True,
    )


def searched(result: autotl.FitResult) -> list[TrialRecord]:
    return [trial for trial in result.trials if trial.origin != "probe"]


def read(path: Path) -> dict[str, Any]:
    plain = json.loads(path.read_text("utf-8"))
    assert isinstance(plain, dict)
    return plain


class TestResult:
    def test_the_test_split_is_recognised_far_above_chance(self, result: autotl.FitResult) -> None:
        assert result.test is not None
        assert result.test.n_images == 24
        assert result.test.value > 0.8  # chance is a third
        assert result.test.low > 1 / 3
        baseline = result.predictor.card.provenance["majority_score_test"]
        assert baseline == pytest.approx(1 / 3), "what a run that reuses this model compares it with"

    def test_the_validation_score_is_that_of_images_held_back(self, result: autotl.FitResult) -> None:
        assert result.validation.n_images == 12  # a fifth of 60

    def test_the_test_estimate_can_be_recomputed_from_the_files(self, result: autotl.FitResult, dataset: Path) -> None:
        files = sorted((dataset / "test").rglob("*.png"))
        predicted = [prediction.label for prediction in result.predictor.predict(files)]
        right = np.mean([label == file.parent.name for label, file in zip(predicted, files, strict=True)])
        assert result.test is not None
        assert right == pytest.approx(result.test.value)

    def test_the_number_of_trials_ends_the_search(self, result: autotl.FitResult) -> None:
        assert len(searched(result)) == 2
        assert not result.interrupted
        assert all(trial.status is not Status.TIMED_OUT for trial in searched(result))

    def test_trials_start_with_the_linear_probe(self, result: autotl.FitResult) -> None:
        probe = result.trials[0]
        assert (probe.origin, probe.number, probe.epochs, probe.status) == ("probe", 0, 0, Status.COMPLETED)
        assert [trial.number for trial in result.trials] == list(range(len(result.trials)))

    def test_trials_that_were_searched_trained_and_scored(self, result: autotl.FitResult) -> None:
        for trial in searched(result):
            assert trial.status in (Status.COMPLETED, Status.STOPPED), trial.error
            assert trial.error == ""
            assert trial.epochs >= 1
            assert len(trial.curve) == trial.epochs + 1
            completed = trial.status is Status.COMPLETED
            assert trial.score == pytest.approx(trial.curve[-1] if completed else max(trial.curve[1:]))
            assert trial.metrics[result.metric] == pytest.approx(trial.score)
            assert trial.config["backbone"] == LITE0
            assert trial.worker

    def test_their_epoch_0_is_the_probes_score(self, result: autotl.FitResult) -> None:
        one_image = 1 / result.validation.n_images
        for trial in searched(result):
            assert trial.curve[0] == pytest.approx(result.trials[0].score, abs=one_image + 1e-9)

    def test_the_first_trial_comes_from_the_advice(self, result: autotl.FitResult) -> None:
        assert "advice" in {trial.origin for trial in searched(result)}

    def test_configs_lie_in_the_space_that_was_searched(self, result: autotl.FitResult) -> None:
        space = load_space(str(result.run_dir / "space.toml"))
        for trial in searched(result):
            assert space.contains(trial.config, {LITE0: 8})

    def test_the_winner_is_the_best_trial_or_the_average_of_it_and_its_near_ties(
        self, result: autotl.FitResult
    ) -> None:
        card = result.predictor.card
        scores = {trial.trial_id: trial.score for trial in result.trials if trial.score is not None}
        assert result.validation.value == pytest.approx(card.score)
        assert {*card.provenance.get("average", [card.trial_id])} <= {*scores}
        if card.trial_id != "average":
            assert card.score == pytest.approx(max(scores.values()))

    def test_held_back_images_are_a_fifth_of_the_training_images(self, result: autotl.FitResult) -> None:
        assert result.validation.n_images == 12

    def test_the_advice_is_part_of_it(self, result: autotl.FitResult) -> None:
        assert result.advice.backbones[0].name == LITE0
        assert result.advice.size.n_images == 60  # the test split plays no part


class TestRunFolder:
    def test_it_is_complete(self, result: autotl.FitResult) -> None:
        names = {path.name for path in result.run_dir.iterdir() if not path.name.startswith(".")}
        assert names == {
            "settings.json",
            "advice.json",
            "data.json",
            "space.toml",
            "trials.jsonl",
            "study.journal",
            "model",
            "finished",
            "result.json",
            "fit.log",
        }
        inside = sorted(path.name for path in (result.run_dir / "model").iterdir())
        assert len(inside) == 3
        assert inside[0] == "model.json"
        assert inside[1] == "reference_set.npz"
        assert inside[2].endswith(".safetensors")

    def test_its_reference_set_is_of_its_training_images_by_its_model(self, result: autotl.FitResult) -> None:
        reference = load_reference_set(result.run_dir / "model" / "reference_set.npz")  # allows no pickle
        assert reference.embeddings.shape == (48, 1280)
        assert {name: reference.class_names.count(name) for name in CLASSES} == dict.fromkeys(CLASSES, 16)
        assert reference.weights_sha256 == load_card(result.run_dir / "model").sha256

    def test_nothing_in_it_is_a_pickle(self, result: autotl.FitResult) -> None:
        for path in result.run_dir.rglob("*"):
            if path.is_file() and path.suffix not in (".safetensors", ".npz"):
                content = path.read_bytes()
                assert not content.startswith((*PICKLES, ZIP)), path
                content.decode("utf-8")

    def test_the_weights_are_safetensors_and_finite(self, result: autotl.FitResult) -> None:
        (path,) = (result.run_dir / "model").glob("*.safetensors")
        assert all(np.isfinite(tensor).all() for tensor in load_file(path).values())

    def test_the_settings_are_what_was_asked(self, result: autotl.FitResult, dataset: Path) -> None:
        settings = read(result.run_dir / "settings.json")
        assert settings["dataset_dir"] == str(dataset)
        assert settings["budget"] == {"timeout": 600.0, "n_trials": 2}
        assert settings["seed"] == 3
        assert settings["search_space"] == "quick"
        assert settings["backbones"] == [LITE0]
        assert set(settings["versions"]) >= {"autotl", "torch", "timm", "ray", "optuna"}
        assert settings["python"]

    def test_the_advice_file_is_the_advice(self, result: autotl.FitResult) -> None:
        assert read(result.run_dir / "advice.json") == json.loads(json.dumps(result.advice.to_json()))

    def test_the_space_file_is_narrowed_to_the_backbone(self, result: autotl.FitResult) -> None:
        space = tomllib.loads((result.run_dir / "space.toml").read_text("utf-8"))
        assert space["name"] == "quick"
        assert space["backbone"] == {"choices": [LITE0]}

    def test_the_trials_file_holds_the_records(self, result: autotl.FitResult) -> None:
        lines = (result.run_dir / "trials.jsonl").read_text("utf-8").splitlines()
        assert [TrialRecord.from_json(json.loads(line)) for line in lines] == list(result.trials)

    def test_the_study_opens_with_optuna(self, result: autotl.FitResult) -> None:
        storage = JournalStorage(JournalFileBackend(str(result.run_dir / "study.journal")))
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage)
        assert name.startswith(result.run_dir.name)
        ended = [trial for trial in study.trials if "config" in trial.user_attrs]
        assert len(ended) == 2
        assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in ended)
        assert {json.dumps(trial.user_attrs["config"], sort_keys=True) for trial in ended} == {
            json.dumps(trial.config, sort_keys=True) for trial in searched(result)
        }

    def test_the_result_file_is_the_result(self, result: autotl.FitResult) -> None:
        plain = read(result.run_dir / "result.json")
        assert plain == json.loads(json.dumps(result.to_json()))
        assert plain["winner"]["trial_id"] == result.predictor.card.trial_id
        assert sum(plain["trials"].values()) == 2

    def test_the_log_shows_the_steps_in_their_order(self, result: autotl.FitResult) -> None:
        text = (result.run_dir / "fit.log").read_text("utf-8")
        places = [text.index(word) for word in ("Data", "Backbones", "Advice", "Search", "Winner")]
        assert places == sorted(places)
        assert "\x1b" not in text

    def test_another_fit_may_not_overwrite_it(self, result: autotl.FitResult, dataset: Path) -> None:
        before = (result.run_dir / "result.json").read_bytes()
        with pytest.raises(autotl.RunFolderError, match="already holds a run"):
            autotl.fit(dataset, backbones=LITE0, output_dir=result.run_dir)
        assert (result.run_dir / "result.json").read_bytes() == before


class TestLoading:
    def test_the_loaded_model_predicts_what_the_returned_one_does(
        self, result: autotl.FitResult, dataset: Path
    ) -> None:
        files = sorted((dataset / "test").rglob("*.png"))
        loaded = autotl.load(result.run_dir)
        assert loaded.classes == result.predictor.classes == CLASSES
        there, here = loaded.probabilities(files), result.predictor.probabilities(files)
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)
        assert here.std() > 0.1
        np.testing.assert_allclose(here.sum(axis=1), 1, atol=1e-4)

    def test_evaluating_gives_the_test_estimate_again(self, result: autotl.FitResult, dataset: Path) -> None:
        estimates = autotl.evaluate(result.run_dir, dataset)
        assert result.test is not None
        assert estimates["accuracy"].n_images == 24
        for name, estimate in estimates.items():
            assert estimate.value == pytest.approx(result.test_metrics[name], abs=1e-3)

    def test_a_class_the_model_does_not_know_is_refused(
        self, result: autotl.FitResult, shapes: Path, tmp_path: Path
    ) -> None:
        stranger = tmp_path / "labelled" / "hexagon"
        stranger.mkdir(parents=True)
        (stranger / "a.png").write_bytes((shapes / "circle" / "00.png").read_bytes())
        with pytest.raises(autotl.DatasetError, match="classes the model does not know: hexagon"):
            autotl.evaluate(result.run_dir, tmp_path / "labelled")


class TestFailingTrials:
    """A fit whose trials all raise in the worker, on a data set with a val split of its own and a damaged image."""

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]) -> Path:
        root = tmp_path_factory.mktemp("own-val")
        write_shapes(root / "train", 10, seed=0)
        write_shapes(root / "valid", 3, seed=1)
        (root / "train" / "circle" / "damaged.png").write_bytes(b"no image at all")
        return root

    @pytest.fixture(scope="class")
    @classmethod
    def result(cls, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> autotl.FitResult:
        with pytest.MonkeyPatch.context() as patch:
            # The worker finds a head that is no npz file, as after a full disk.
            patch.setattr("autotl.pipeline.search.save_head", lambda probe, path: path.write_bytes(b"damaged"))
            return autotl.fit(
                dataset,
                backbones=LITE0,
                search_space="quick",
                n_trials=3,
                timeout="10m",
                output_dir=tmp_path_factory.mktemp("failing") / "run",
                skip_unreadable=True,
                quiet=True,
            )

    def test_the_search_goes_on_after_each_failure(self, result: autotl.FitResult) -> None:
        assert [trial.status for trial in searched(result)] == [Status.FAILED] * 3

    def test_each_failure_is_recorded_with_its_traceback(self, result: autotl.FitResult) -> None:
        for trial in searched(result):
            assert "Traceback (most recent call last)" in trial.error
            assert trial.score is None
        lines = (result.run_dir / "trials.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line)["status"] for line in lines] == ["completed", "failed", "failed", "failed"]
        assert "Traceback" in (result.run_dir / "fit.log").read_text("utf-8")

    def test_the_linear_probe_is_the_result(self, result: autotl.FitResult) -> None:
        assert result.predictor.card.trial_id == f"probe-{LITE0}"
        assert result.to_json()["trials"] == {"failed": 3}
        assert math.isfinite(result.validation.value)
        assert result.validation.value > 0.8

    def test_the_val_split_of_the_user_is_used(self, result: autotl.FitResult) -> None:
        assert result.validation.n_images == 9  # a fifth of train would be 6
        assert "9 validation (its own)" in (result.run_dir / "fit.log").read_text("utf-8")

    def test_without_a_test_split_there_is_no_test_estimate(self, result: autotl.FitResult) -> None:
        assert result.test is None
        assert result.test_metrics == {}

    def test_the_unreadable_image_was_left_out_and_is_named(self, result: autotl.FitResult) -> None:
        (statement,) = (statement for statement in result.advice.statements if statement.code == "unreadable")
        assert statement.severity == "warning"
        assert statement.evidence["paths"] == ["train/circle/damaged.png"]
        assert result.advice.size.n_images == 39


class TestBadInput:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_all_problems_are_reported_at_once_and_nothing_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(autotl.InputError) as caught:
            autotl.fit(
                tmp_path / "missing",
                timeout=1,
                metric="beauty",
                search_space="nowhere",
                backbones=["nonesuch_model", LITE0],
                output_dir=tmp_path / "run",
                val_fraction=0.9,
            )
        assert type(caught.value) is autotl.InputError
        areas = [problem.area for problem in caught.value.problems]
        assert sorted(areas) == ["backbone", "dataset", "settings", "settings", "settings", "space"]
        for word in ("timeout", "beauty", "val_fraction", "nowhere", "nonesuch_model", "missing"):
            assert word in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_every_unreadable_image_is_named_before_a_run_folder_is_made(
        self, tmp_path: Path, write_shapes: Callable[..., Path]
    ) -> None:
        root = write_shapes(tmp_path / "data", 3)
        (root / "circle" / "empty.png").write_bytes(b"")
        whole = (root / "square" / "00.png").read_bytes()
        (root / "square" / "half.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(autotl.DatasetError) as caught:
            autotl.fit(root, backbones=LITE0, output_dir=tmp_path / "run")
        assert [Path(problem.where).name for problem in caught.value.problems] == ["empty.png", "half.png"]
        assert all("skip_unreadable=True" in problem.remedy for problem in caught.value.problems)
        assert not (tmp_path / "run").exists()
        assert not (tmp_path / "autotl_runs").exists()

    def test_a_class_with_one_image_is_refused(self, tmp_path: Path, write_shapes: Callable[..., Path]) -> None:
        root = write_shapes(tmp_path / "data", 3)
        for path in (root / "circle").glob("0[12].png"):
            path.unlink()
        with pytest.raises(autotl.DatasetError, match="classes with a single training image: circle"):
            autotl.fit(root, backbones=LITE0, output_dir=tmp_path / "run")
        assert not (tmp_path / "run").exists()
