"""A reference set from a folder: which photographs, under which names, and what is refused."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from autotl.advice.reference_set import load_reference_set
from autotl.console import Console
from autotl.errors import DatasetError, InputError, SettingsError
from autotl.models.catalog import find_entry
from autotl.models.weights import file_sha256, save_state
from autotl.pipeline.reference_set import ReferenceRequest, build, choose, class_name, find_photographs

LITE0 = "tf_efficientnet_lite0.in1k"


def write_images(folder: Path, n: int, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (n, 16, 16, 3), dtype=np.uint8)
    for place in range(n):
        Image.fromarray(pixels[place]).save(folder / f"{place:02d}.png")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("n01440764_tench.jpg", "tench"),
        ("n02119789_kit_fox.jpg", "kit fox"),
        ("tench.jpg", "tench"),
        ("train/n01440764_tench/1.jpg", "tench"),
        ("n01440764/1.jpg", "n01440764"),
        ("a/b/sea_slug/n01440764_1.jpg", "sea slug"),
        ("no1_dog.jpg", "no1 dog"),
    ],
)
def test_a_class_is_named_after_its_folder_or_file(path: str, name: str) -> None:
    assert class_name(path) == name


def test_photographs_are_found_at_any_depth_but_not_hidden_ones(tmp_path: Path) -> None:
    for folder in ("", "a", "b/c/d", ".hidden"):
        write_images(tmp_path / folder, 8)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / ".x.png").touch()
    paths, problems = find_photographs(tmp_path)
    assert problems == []
    assert Counter(str(Path(path).parent) for path in paths) == {".": 8, "a": 8, "b/c/d": 8}
    assert paths == sorted(paths)


def test_of_too_many_all_classes_are_taken_alike() -> None:
    paths = sorted([f"ant/{n}" for n in range(50)] + [f"bee/{n}" for n in range(50)] + [f"cat/{n}" for n in range(3)])
    chosen = choose(paths, 23)
    assert Counter(class_name(path) for path in chosen) == {"ant": 10, "bee": 10, "cat": 3}
    assert chosen == sorted(chosen)
    assert choose(paths, 23) == chosen
    assert choose(paths, 103) == paths


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    write_images(tmp_path / "few", 3)
    with pytest.raises(InputError) as caught:
        build(ReferenceRequest(tmp_path / "few", "zzzzzqqq", tmp_path / "gone" / "own.npz", "x"), Console(quiet=True))
    assert [problem.found.split(",")[0] for problem in caught.value.problems] == [
        "holds 3 images",
        "unknown to autotl's catalog and to timm",
        f"there is no folder {tmp_path / 'gone'}",
    ]


def test_unreadable_photographs_are_all_named_and_nothing_is_written(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 21)
    for name in ("03.png", "17.png"):
        (tmp_path / "photos" / name).write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        build(ReferenceRequest(tmp_path / "photos", LITE0, tmp_path / "own.npz", "x"), Console(quiet=True))
    assert [Path(problem.where).name for problem in caught.value.problems] == ["03.png", "17.png"]
    assert all("repair or remove it" in problem.remedy for problem in caught.value.problems)
    assert not (tmp_path / "own.npz").exists()


def test_what_is_built_is_read_back(tmp_path: Path) -> None:
    write_images(tmp_path / "photos" / "ant", 10)
    write_images(tmp_path / "photos" / "bee", 10, seed=1)
    made = build(
        ReferenceRequest(tmp_path / "photos", "tf_efficientnet_lite0", tmp_path / "own.npz", "noise"),
        Console(quiet=True),
    )
    read = load_reference_set(tmp_path / "own.npz")
    assert (read.name, read.backbone, read.class_names) == ("noise", LITE0, ("ant",) * 10 + ("bee",) * 10)
    assert read.embeddings.shape == (20, 1280)
    np.testing.assert_array_equal(read.embeddings, made.embeddings)
    assert len(np.unique(read.embeddings, axis=0)) == 20


def test_photographs_that_are_copies_of_one_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 1)
    for place in range(1, 20):
        shutil.copy(tmp_path / "photos" / "00.png", tmp_path / "photos" / f"{place:02d}.png")
    with pytest.raises(DatasetError) as caught:
        build(ReferenceRequest(tmp_path / "photos", LITE0, tmp_path / "own.npz", "x"), Console(quiet=True))
    (problem,) = caught.value.problems
    assert problem.where == f"images {tmp_path / 'photos'}"
    assert problem.found == "half of the pairs of images, or more, look the same to the model"
    assert problem.allowed == "photographs that differ, of many classes"
    assert not (tmp_path / "own.npz").exists()


def test_weights_of_a_file_are_found_from_any_folder_and_have_to_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "here" / "photos", 20)
    weights = tmp_path / "here" / "w.safetensors"
    torch.manual_seed(0)
    save_state(timm.create_model("resnet10t"), weights)
    monkeypatch.chdir(tmp_path / "here")
    build(
        ReferenceRequest(Path("photos"), "resnet10t.c3_in1k=w.safetensors", Path("own.npz"), "noise"),
        Console(quiet=True),
    )
    monkeypatch.chdir(tmp_path)
    read = load_reference_set(Path("here/own.npz"))
    assert read.backbone == f"resnet10t.c3_in1k={weights}"
    assert find_entry(read.backbone).path == str(weights)
    assert (read.file_sha256, read.weights_sha256) == (file_sha256(weights), "")
    save_state(timm.create_model("resnet10t"), weights)
    with pytest.raises(SettingsError, match="holds other weights now than those that made it"):
        load_reference_set(Path("here/own.npz"))
