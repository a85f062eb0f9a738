"""What makes an earlier run fit to be reused, what is said where it is not, and its reference set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autotl.advice.reference_set import load_reference_set, make_reference_set, save_reference_set
from autotl.data.folder import list_folder
from autotl.data.pixels import build_store
from autotl.data.splits import make_dataset
from autotl.frozen.activations import ImageLoader, embed
from autotl.models.backbone import create, wrap
from autotl.models.weights import load_pretrained, locate
from autotl.pipeline.earlier_runs import (
    embed_until,
    entry_of,
    find_earlier_runs,
    interval_of_best,
    leave_reference_set,
    read_earlier_run,
)
from autotl.predictor import load_predictor
from autotl.records import Estimate
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import ModelCard, load_card, save_model
from autotl.train.intervals import wilson_interval
from autotl.train.metrics import estimate

NAME = "resnet10t.c3_in1k"
CARD = ModelCard(
    backbone=NAME,
    classes=("a", "b", "c"),
    preprocessing=wrap(NAME, create(NAME, 3, None).model).preprocessing.to_json(),
    freeze_depth=2,
    metric="accuracy",
    score=0.9,
    log_loss=0.3,
    validation=Estimate(0.9, 0.8, 0.95, 50),
    trial_id="t0",
    epoch=2,
    config={"backbone": NAME},
    provenance={"majority_score": 0.4},
)


def make_run(folder: Path, card: ModelCard = CARD, seed: int = 0) -> RunDir:
    """A run with a model of random weights, the only candidate, and a reference set of random numbers."""
    torch.manual_seed(seed)
    run = RunDir(folder)
    save_model(run.model, create(card.backbone, len(card.classes), None).model.state_dict(), card)
    run.append_trial({"origin": "probe", "score": card.score})
    raw = np.random.default_rng(seed).normal(size=(20, 512)).astype(np.float32)
    reference = make_reference_set("photos", card.backbone, raw, ("a",) * 20)
    save_reference_set(replace(reference, weights_sha256=load_card(run.model).sha256), run.reference_set)
    return run


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: copy it to change it."""
    return make_run(tmp_path_factory.mktemp("runs") / "birds").path


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(sound, tmp_path / "birds")))


def change_card(run: RunDir, **changes: Any) -> None:
    path = run.model / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def found(path: Path) -> list[str]:
    earlier, problems = read_earlier_run(path)
    assert earlier is None
    assert {problem.area for problem in problems} == {"run folder"}
    assert {problem.where for problem in problems} == {f"reuse {path}"}
    return [problem.found for problem in problems]


def test_a_sound_run_is_a_backbone_named_after_it(sound: Path) -> None:
    earlier, problems = read_earlier_run(sound)
    assert problems == []
    assert earlier is not None
    entry = earlier.entry
    assert (entry.name, entry.timm_name, entry.weights) == (f"birds/{NAME}", NAME, "run")
    assert (entry.stages, entry.top1) == (5, 0.0)
    assert earlier.reference.name == "the data of birds"
    assert earlier.reference.backbone == entry.name
    assert earlier.to_json() == {"name": "birds", "run": str(sound), "sha256": load_card(sound / "model").sha256}


def test_its_weights_are_those_of_the_run_without_the_classifier(run: RunDir) -> None:
    entry = entry_of(run, load_card(run.model))
    model = load_pretrained(entry, locate(entry)).eval()
    whole = create(NAME, 3, None).model.eval()
    state = load_predictor(run.model).model.state_dict()
    whole.load_state_dict(state)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(whole.fc(model(images)), whole(images))
    assert wrap(entry.timm_name, model).n_stages == entry.stages


def test_what_is_no_run_folder_is_said_of_the_argument(tmp_path: Path) -> None:
    assert found(tmp_path / "gone") == ["no such folder"]
    assert found(tmp_path) == ["is not a run folder (no model/model.json)"]


def test_a_damaged_card_is_a_problem(run: RunDir) -> None:
    (run.model / "model.json").write_text("{")
    (text,) = found(run.path)
    assert "cannot be read" in text


def test_damaged_weights_are_a_problem(run: RunDir) -> None:
    path = run.model / load_card(run.model).weights
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (text,) = found(run.path)
    assert "SHA-256 differs" in text


def test_weights_of_another_architecture_are_a_problem(run: RunDir) -> None:
    change_card(run, backbone="resnet18.a1_in1k")
    (text,) = found(run.path)
    assert "loading state_dict for ResNet" in text


def test_an_architecture_that_timm_does_not_know_is_a_problem(run: RunDir) -> None:
    change_card(run, backbone="resnet_of_tomorrow")
    assert found(run.path) == ["its architecture 'resnet_of_tomorrow' is unknown to this version of timm"]


def test_a_run_of_an_older_version_is_told_to_be_repeated(run: RunDir) -> None:
    run.reference_set.unlink()
    change_card(run, provenance={})
    _, problems = read_earlier_run(run.path)
    assert ["older autotl" in problem.found for problem in problems] == [True, True]
    assert {problem.remedy for problem in problems} == {"run autotl fit on its data again with this version"}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x80\x04]\x94."])
def test_a_damaged_reference_set_is_a_problem(run: RunDir, content: bytes) -> None:
    run.reference_set.write_bytes(content)
    (text,) = found(run.path)
    assert text.startswith("model/reference_set.npz cannot be read")


def test_a_reference_set_of_another_model_is_a_problem(run: RunDir) -> None:
    save_reference_set(replace(load_reference_set(run.reference_set), weights_sha256="0" * 64), run.reference_set)
    assert found(run.path) == ["model/reference_set.npz was made by another model than the one that is there"]


@pytest.mark.parametrize(
    ("metric", "validation", "baseline", "fine"),
    [
        ("accuracy", (0.7, *wilson_interval(28, 40)), 0.54, True),
        ("accuracy", (0.7, *wilson_interval(28, 40)), 0.55, False),
        ("accuracy", (0.7, *wilson_interval(28, 40)), wilson_interval(28, 40)[0], False),
        ("log_loss", (0.5, 0.4, 0.68), -0.69, True),
        ("log_loss", (0.5, 0.4, 0.7), -0.69, False),
        ("roc_auc", (0.9, 0.8, 0.95), float("nan"), False),
    ],
)
def test_the_whole_interval_has_to_lie_above_the_baseline(
    run: RunDir, metric: str, validation: tuple[float, float, float], baseline: float, fine: bool
) -> None:
    value, low, high = validation
    estimate = {"value": value, "low": low, "high": high, "n_images": 40}
    change_card(run, metric=metric, validation=estimate, provenance={"majority_score": baseline})
    earlier, problems = read_earlier_run(run.path)
    assert (earlier is not None) == fine
    assert [
        f"{value:.3f} (95% interval {low:.3f} to {high:.3f}, 40 images)" in problem.found for problem in problems
    ] == ([] if fine else [True])


def estimate_of(right: int, n: int) -> dict[str, float]:
    """The accuracy of a model that is right on so many of n images."""
    low, high = wilson_interval(right, n)
    return {"value": right / n, "low": low, "high": high, "n_images": n}


def test_the_best_of_many_candidates_at_chance_is_seldom_taken_for_better() -> None:
    best = np.random.default_rng(0).binomial(100, 0.5, size=(1000, 30)).max(axis=1)
    estimates = [Estimate(**estimate_of(int(right), 100)) for right in best]
    assert np.mean([estimate.low > 0.5 for estimate in estimates]) > 0.4  # what a single look would say
    assert np.mean([interval_of_best("accuracy", estimate, 30)[0] > 0.5 for estimate in estimates]) < 0.05


def test_the_validation_interval_is_that_of_the_best_of_all_candidates_with_a_score(run: RunDir) -> None:
    change_card(run, validation=estimate_of(62, 100), provenance={"majority_score": 0.5})
    assert read_earlier_run(run.path)[0] is not None  # the only candidate
    for score in (*[0.5] * 28, None, float("nan")):
        run.append_trial({"origin": "search", "score": score})
    run.append_trial({"origin": "benefit", "score": 0.4})
    low, high = wilson_interval(62, 100, 1 - 0.05 / 30)
    assert found(run.path) == [
        "its model does not significantly outperform the majority-class baseline: validation accuracy 0.620 "
        f"(95% interval for the best of 30 candidates {low:.3f} to {high:.3f}, 100 images), baseline 0.500"
    ]
    assert low < 0.5 < wilson_interval(62, 100)[0]


@pytest.mark.parametrize(("right", "baseline", "fine"), [(70, 0.5, True), (55, 0.5, False), (70, 0.7, False)])
def test_test_images_decide_where_there_are_any(run: RunDir, right: int, baseline: float, fine: bool) -> None:
    # On the validation images it is the other way round.
    provenance = {"majority_score": 0.9 if fine else 0.1, "majority_score_test": baseline}
    change_card(run, validation=estimate_of(80, 100), provenance=provenance)
    run.result.write_text(json.dumps({"test": estimate_of(right, 100)}))
    for _ in range(29):  # the test images are looked at once, however many candidates there are
        run.append_trial({"origin": "search", "score": 0.5})
    earlier, problems = read_earlier_run(run.path)
    assert (earlier is not None) == fine
    low, high = wilson_interval(right, 100)
    expected = f"test accuracy {right / 100:.3f} (95% interval {low:.3f} to {high:.3f}, 100 images), baseline"
    assert [expected in problem.found for problem in problems] == ([] if fine else [True])


@pytest.mark.parametrize("result", [None, "{", "[]", "{}", '{"test": null}', '{"test": {"value": 1.0}}', "tested"])
def test_without_a_test_score_to_compare_the_validation_images_decide(run: RunDir, result: str | None) -> None:
    of_test = {} if result == "tested" else {"majority_score_test": 0.5}  # runs of earlier versions do not say
    change_card(run, validation=estimate_of(50, 100), provenance={"majority_score": 0.45} | of_test)
    if result is not None:
        run.result.write_text(json.dumps({"test": estimate_of(99, 100)}) if result == "tested" else result)
    (text,) = found(run.path)
    assert ": validation accuracy 0.500 (95% interval 0.404 to 0.596, 100 images), baseline 0.450" in text


@pytest.mark.parametrize("content", [None, "", '{"score": null}\n'])
def test_a_run_that_does_not_tell_its_candidates_is_refused(run: RunDir, content: str | None) -> None:
    run.trials.unlink()
    if content is not None:
        run.trials.write_text(content)
    text = "has no trials.jsonl with scores: of how many candidates its model is the best is unknown"
    assert found(run.path) == [text]


def test_intervals_of_the_best_of_many_are_wider_and_of_one_as_they_were() -> None:
    estimate = Estimate(0.5, 0.4, 0.7, 40)
    wider = 3.1440 / 1.9600  # normal quantiles of 1 - 0.025 / 30 and 0.975
    for metric in ("balanced_accuracy", "f1_macro", "roc_auc", "log_loss"):
        assert interval_of_best(metric, estimate, 1) == pytest.approx((0.4, 0.7))
        assert interval_of_best(metric, estimate, 30) == pytest.approx((0.5 - wider * 0.1, 0.5 + wider * 0.2), abs=1e-4)
    assert interval_of_best("f1_macro", Estimate(0.5, 0.1, 0.9, 40), 30) == (0.0, 1.0)
    assert interval_of_best("log_loss", Estimate(0.9, 0.4, 1.4, 40), 30) == pytest.approx((0.098, 1.702), abs=1e-3)
    assert interval_of_best("accuracy", Estimate(**estimate_of(20, 40)), 1) == wilson_interval(20, 40)


def test_a_few_images_that_are_all_right_make_no_sure_model() -> None:
    labels = np.array([0, 0, 1, 1])
    low, high = interval_of_best("balanced_accuracy", estimate("balanced_accuracy", np.eye(2)[labels], labels), 30)
    assert low < 0.5
    assert high == 1.0


def test_all_problems_of_all_earlier_runs_are_told(run: RunDir, tmp_path: Path) -> None:
    run.reference_set.unlink()
    change_card(run, validation=estimate_of(16, 40))
    earlier_runs, problems = find_earlier_runs([run.path, tmp_path / "gone"])
    assert earlier_runs == ()
    assert [problem.where for problem in problems] == [f"reuse {run.path}"] * 2 + [f"reuse {tmp_path / 'gone'}"]


def test_a_model_is_named_once(run: RunDir, sound: Path) -> None:
    earlier_runs, problems = find_earlier_runs([sound, run.path])  # a copy
    assert [earlier.run.path for earlier in earlier_runs] == [sound]
    assert [(problem.where, problem.found) for problem in problems] == [
        (f"reuse {run.path}", "is named more than once")
    ]


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / place / "birds", seed=seed) for seed, place in enumerate("xy")]
    earlier_runs, problems = find_earlier_runs([run.path for run in runs])
    assert problems == []
    names = [f"birds-{load_card(run.model).sha256[:6]}" for run in runs]
    assert [earlier.entry.name for earlier in earlier_runs] == [f"{name}/{NAME}" for name in names]
    assert [earlier.reference.name for earlier in earlier_runs] == [f"the data of {name}" for name in names]
    assert names[0] != names[1]


class Clock:
    """Time that passes only where embedding is pretended."""

    def __init__(self, seconds_a_batch: float) -> None:
        self.now, self.pace = 0.0, seconds_a_batch

    def __call__(self) -> float:
        return self.now

    def embed(self, rows: np.ndarray) -> np.ndarray:
        self.now += self.pace
        return np.repeat(rows[:, None], 2, axis=1).astype(np.float32)


@pytest.mark.parametrize(("seconds", "images"), [(0.0, 4), (-5.0, 4), (2.9, 8), (3.0, 12), (100.0, 18)])
def test_images_are_embedded_while_there_is_time_but_one_batch_always(seconds: float, images: int) -> None:
    clock = Clock(1.0)
    rows = np.arange(18)[::-1].copy()
    embedded = embed_until(clock.embed, rows, seconds, batch=4, clock=clock)
    np.testing.assert_array_equal(embedded[:, 0], rows[:images])


def test_a_run_leaves_embeddings_of_its_training_images(tmp_path: Path, write_shapes: Callable[..., Path]) -> None:
    listing, _ = list_folder(write_shapes(tmp_path / "photos", 10))
    dataset = make_dataset(listing, 0.2, 0)
    store, _ = build_store(listing.root, [image.path for image in listing.images], 64, tmp_path / "pixels.u8", 1)
    run = make_run(tmp_path / "run", replace(CARD, classes=dataset.classes))
    run.reference_set.unlink()
    count = leave_reference_set(run, dataset, store, seconds=60.0, workers=1)
    assert count == len(dataset.indices("train")) == 24
    reference = load_reference_set(run.reference_set)
    assert sorted(reference.class_names) == sorted(
        dataset.classes[label] for label in dataset.labels[dataset.indices("train")]
    )
    # The penultimate features of the whole model, in the order in which the images were drawn.
    predictor = load_predictor(run.model)
    loader = ImageLoader(
        store.open(), replace(wrap(NAME, predictor.model).preprocessing, store_size=64), predictor.device, 0
    )
    model = predictor.model

    def penultimate(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model.forward_head(model.forward_features(images), pre_logits=True)

    rows = embed(penultimate, loader, dataset.indices("train"))
    order = np.random.default_rng(0).permutation(len(rows))
    expected = make_reference_set("", "", rows[order], ()).embeddings
    np.testing.assert_allclose(reference.embeddings, expected, atol=2e-3)
    assert read_earlier_run(run.path)[0] is not None


def test_a_model_to_which_all_images_are_the_same_leaves_none(
    tmp_path: Path, write_shapes: Callable[..., Path]
) -> None:
    listing, _ = list_folder(write_shapes(tmp_path / "photos", 10))
    dataset = make_dataset(listing, 0.2, 0)
    store, _ = build_store(listing.root, [image.path for image in listing.images], 64, tmp_path / "pixels.u8", 1)
    run = make_run(tmp_path / "run")
    state = {name: torch.zeros_like(tensor) for name, tensor in create(NAME, 3, None).model.state_dict().items()}
    save_model(run.model, state, CARD)
    with pytest.raises(ValueError, match="look the same"):
        leave_reference_set(run, dataset, store, seconds=60.0, workers=1)


def test_so_few_images_that_they_are_no_reference_set_leave_none(
    tmp_path: Path, write_shapes: Callable[..., Path]
) -> None:
    listing, _ = list_folder(write_shapes(tmp_path / "photos", 5))
    dataset = make_dataset(listing, 0.2, 0)
    store, _ = build_store(listing.root, [image.path for image in listing.images], 64, tmp_path / "pixels.u8", 1)
    run = make_run(tmp_path / "run")
    run.reference_set.unlink()
    with pytest.raises(ValueError, match="12 training images are no reference set; 20 or more are"):
        leave_reference_set(run, dataset, store, seconds=60.0, workers=1)
    assert not run.reference_set.exists()
