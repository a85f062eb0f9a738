"""A trial with and without cached activations, on a small model with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autotl.models.backbone import create
from autotl.models.weights import save_state
from autotl.storage.rundir import write_json
from autotl.train.loop import FineTuning
from autotl.train.task import BackboneFiles, TrainingTask, save_manifest

NAME = "test_resnet.r160_in1k"
N_IMAGES, SIDE = 12, 64
CONFIG: dict[str, Any] = {
    "backbone": NAME,
    "initial_weights": "pretrained",
    "freeze_depth": 2,
    "learning_rate_factor": 0.1,
    "head_learning_rate_factor": 0.5,
    "layer_decay": 0.8,
    "weight_decay": 0.01,
    "augmentation": "none",
    "label_smoothing": 0.0,
    "batch_size": 4,
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    """Noise in two classes, eight images to train on and four to validate with."""
    root = tmp_path_factory.mktemp("loop")
    torch.manual_seed(0)
    backbone = create(NAME, 2, None)
    save_state(backbone.model, root / "state.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (N_IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    pixels.tofile(root / "pixels.u8")
    write_json(root / "pixels.u8.json", {"n_images": N_IMAGES, "size": SIDE})
    save_manifest(root / "manifest.npz", np.arange(N_IMAGES) % 2, np.repeat(["train", "val"], [8, 4]))
    return TrainingTask(
        run_dir=str(root / "run"),
        store=str(root / "pixels.u8"),
        manifest=str(root / "manifest.npz"),
        classes=("a", "b"),
        metric="accuracy",
        balanced=False,
        backbones={
            NAME: BackboneFiles("0", str(root / "state.safetensors"), "", "", 1e-3, backbone.n_stages, 0.01, NAME)
        },
        precision="fp32",
        max_t=2,
        n_views=2,
        cache_dir=str(root / "cache"),
        cache_limit=2**30,
        data_fingerprint="noise",
        seed=0,
        deadline=1e12,
        threads=1,
        provenance={},
    )


def test_without_cached_activations_nothing_is_written_and_the_scores_are_the_same(
    task: TrainingTask, tmp_path: Path
) -> None:
    cached = FineTuning(replace(task, cache_dir=str(tmp_path / "cached")), CONFIG)
    plain = FineTuning(replace(task, cache_dir=str(tmp_path / "plain"), cache_activations=False), CONFIG)
    before = [one.start().metrics["log_loss"] for one in (cached, plain)]
    after = [one.train_epoch() for one in (cached, plain)]
    assert before[0] == pytest.approx(before[1], rel=0.01)  # cached activations are rounded to bfloat16
    assert after[0].train_loss == pytest.approx(after[1].train_loss, rel=0.01)
    assert len(list((tmp_path / "cached").glob("activations-*.bin"))) == 2  # validation, and the one view of "none"
    assert not (tmp_path / "plain").exists()
    assert (cached.note, plain.note) == ("", "the frozen stages run in every epoch: as asked")


@pytest.mark.parametrize(("augmentation", "same"), [("none", True), ("light", False)])
def test_without_cached_activations_every_epoch_has_views_of_its_own(
    task: TrainingTask, augmentation: str, same: bool
) -> None:
    plain = FineTuning(replace(task, cache_activations=False), CONFIG | {"augmentation": augmentation})
    seen: list[torch.Tensor] = []
    plain.backbone.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    plain.train_epoch()
    del seen[:2]  # one image and two, to see what their activations take
    plain.train_epoch()
    first, second = torch.cat(seen[:2]), torch.cat(seen[3:5])  # two batches to train on, one to validate with
    assert len(seen) == 6
    assert torch.equal(first.sort(0)[0], second.sort(0)[0]) == same  # whatever their order


def test_full_fine_tuning_has_nothing_to_cache(task: TrainingTask) -> None:
    tuning = FineTuning(task, CONFIG | {"freeze_depth": 0})
    tuning.start()
    assert tuning.note == ""
    assert not Path(task.cache_dir).exists()


def test_a_model_of_an_earlier_run_trains_under_its_own_name_and_is_saved_under_that_of_its_architecture(
    task: TrainingTask, tmp_path: Path
) -> None:
    named = replace(task, cache_dir=str(tmp_path), backbones={f"birds/{NAME}": task.backbones[NAME]})
    tuning = FineTuning(named, CONFIG | {"backbone": f"birds/{NAME}"})
    tuning.start()
    report = tuning.train_epoch()
    card = tuning.card(report, "t0")
    assert (card.backbone, card.config["backbone"]) == (NAME, f"birds/{NAME}")
    views = sorted(path.name for path in tmp_path.glob("activations-*.bin"))
    assert len(views) == 2
    FineTuning(replace(task, cache_dir=str(tmp_path)), CONFIG).start()  # the same weights: the same views
    assert sorted(path.name for path in tmp_path.glob("activations-*.bin")) == views


@pytest.mark.parametrize("balanced", [False, True])
def test_parts_of_a_batch_train_as_the_whole(
    task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, balanced: bool
) -> None:
    config = CONFIG | {"batch_size": 8, "label_smoothing": 0.1}
    uneven = save_uneven(task, tmp_path / "uneven.npz", balanced)
    trained, losses = [], []
    for size in (8, 2):
        monkeypatch.setattr("autotl.train.microbatch.PART", size)
        tuning = FineTuning(replace(uneven, cache_dir=str(tmp_path / "cache")), config)
        losses.append(tuning.train_epoch().train_loss)
        trained.append({name: tensor.detach().clone() for name, tensor in tuning.trained().items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    before = {name: tensor.detach() for name, tensor in FineTuning(uneven, config).trained().items()}
    moved = max(float((trained[0][name] - before[name]).abs().max()) for name in before)
    apart = max(float((trained[0][name] - trained[1][name]).abs().max()) for name in before)
    assert apart < 0.02 * moved


def save_uneven(task: TrainingTask, manifest: Path, balanced: bool) -> TrainingTask:
    """The same images in classes of very different sizes."""
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1])
    save_manifest(manifest, labels, np.repeat(["train", "val"], [8, 4]))
    return replace(task, manifest=str(manifest), balanced=balanced)


def test_from_scratch_a_batch_passes_at_once(task: TrainingTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotl.train.microbatch.PART", 2)
    config = CONFIG | {"initial_weights": "scratch", "freeze_depth": 0, "batch_size": 8}
    sizes: list[int] = []
    tuning = FineTuning(task, config)
    tuning.backbone.model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    tuning.train_epoch()
    assert sizes == [8, 4]  # training, validation
