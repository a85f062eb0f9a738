"""Listing a folder of images: layouts, refusals with their words, and findings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autotl.data.folder import LAYOUTS, Finding, Listing, list_folder, without
from autotl.data.splits import make_dataset
from autotl.errors import Problem


def put(root: Path, *paths: str) -> None:
    """Write a small image of its own content to each path below root."""
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        seed = list(path.encode())
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(target)


def two_classes(root: Path) -> None:
    put(root, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")


def sound(root: Path, **options: bool) -> Listing:
    listing, problems = list_folder(root, **options)
    assert problems == []
    return listing


def only_problem(root: Path, **options: bool) -> Problem:
    _, problems = list_folder(root, **options)
    assert len(problems) == 1, problems
    return problems[0]


def finding(listing: Listing, code: str) -> Finding:
    found = [candidate for candidate in listing.findings if candidate.code == code]
    assert len(found) == 1, listing.findings
    return found[0]


def test_class_folders(tmp_path: Path) -> None:
    two_classes(tmp_path)
    listing = sound(tmp_path)
    assert [(image.path, image.label, image.split) for image in listing.images] == [
        ("cat/1.png", "cat", None),
        ("cat/2.png", "cat", None),
        ("dog/1.png", "dog", None),
        ("dog/2.png", "dog", None),
    ]
    assert listing.classes == ("cat", "dog")
    assert listing.findings == ()
    assert listing.groups == {}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, name: str) -> None:
    two_classes(tmp_path / "train")
    put(tmp_path, f"{name}/cat/3.png", "test/dog/3.png")
    splits = {image.path: image.split for image in sound(tmp_path).images}
    assert splits["train/cat/1.png"] == "train"
    assert splits[f"{name}/cat/3.png"] == "val"
    assert splits["test/dog/3.png"] == "test"


def test_images_in_subfolders_belong_to_the_class(tmp_path: Path) -> None:
    two_classes(tmp_path)
    put(tmp_path, "cat/indoor/sofa/3.png")
    labels = {image.path: image.label for image in sound(tmp_path).images}
    assert labels["cat/indoor/sofa/3.png"] == "cat"


def test_suffixes_count_in_any_case(tmp_path: Path) -> None:
    two_classes(tmp_path)
    put(tmp_path, "cat/3.JPG", "cat/4.Png")
    assert len(sound(tmp_path).images) == 6


def test_hidden_folders_and_files_are_no_data(tmp_path: Path) -> None:
    two_classes(tmp_path)
    put(tmp_path, ".cache/1.png", "cat/.thumbs/1.png", "cat/.3.png")
    listing = sound(tmp_path)
    assert len(listing.images) == 4
    assert listing.classes == ("cat", "dog")


def test_other_files_are_ignored_and_listed(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    put(tmp_path, "loose.png")
    listing = sound(tmp_path)
    assert finding(listing, "ignored-files") == Finding(
        "ignored-files",
        "info",
        "2 files are not images in a class folder and were ignored",
        ("cat/notes.txt", "loose.png"),
    )


def test_images_directly_in_train_are_reported_as_ignored(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    put(tmp_path, "train/stray.png")
    assert finding(sound(tmp_path), "ignored-files").paths == ("train/stray.png",)


def test_no_such_folder(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    assert str(only_problem(root)) == f"dataset {root}: no such folder\n    allowed: {LAYOUTS}"


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "photos.zip"
    root.touch()
    assert only_problem(root) == Problem("dataset", f"dataset {root}", "is not a folder", LAYOUTS)


def test_an_empty_folder_holds_no_images(tmp_path: Path) -> None:
    assert only_problem(tmp_path) == Problem("dataset", f"dataset {tmp_path}", "holds no images", LAYOUTS)


def test_empty_class_folders_hold_no_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    assert only_problem(tmp_path).found == "holds no images"


def test_images_without_class_folders(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png")
    problem = only_problem(tmp_path)
    assert problem.found in {
        f"2 images lie directly in it ({name}, …), with no class folders" for name in ("1.png", "2.png")
    }
    assert problem.allowed == LAYOUTS
    assert problem.remedy == "put each class into a folder of its own"


def test_train_without_class_folders_is_not_called_empty(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "train/2.png")
    assert "holds no images" not in str(only_problem(tmp_path))


def test_test_without_train(tmp_path: Path) -> None:
    two_classes(tmp_path / "test")
    _, problems = list_folder(tmp_path)
    found = "has test but no train; looked for train/CLASS/images"
    assert Problem("dataset", f"dataset {tmp_path}", found, LAYOUTS) in problems


def test_strange_folders_beside_train(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    put(tmp_path, "extra/cat/1.png", "old/cat/1.png")
    problem = only_problem(tmp_path)
    assert problem.found == "beside train there are folders that are no split: extra, old"
    assert problem.remedy == "move or rename them"


def test_two_names_for_the_same_split(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    put(tmp_path, "val/cat/3.png", "valid/cat/4.png")
    problem = only_problem(tmp_path)
    assert problem.found == "has val and valid, which mean the same split"
    assert problem.allowed == "one of them"


def test_a_single_class(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/2.png")
    problem = only_problem(tmp_path)
    assert problem.found == "a single class (cat) has training images"
    assert problem.allowed == "at least 2 classes"


def test_a_class_with_a_single_image(tmp_path: Path) -> None:
    two_classes(tmp_path)
    put(tmp_path, "emu/1.png", "bat/1.png")
    problem = only_problem(tmp_path)
    assert problem.found == "classes with a single training image: bat, emu"
    assert problem.allowed == "at least 2 training images a class"
    assert problem.remedy == "add images to these classes or remove their folders"


def copy_times(image: Path, n: int) -> None:
    """Copies of an image beside it, so that there are `n` of it."""
    for place in range(1, n):
        shutil.copy(image, image.with_name(f"{image.stem}-{place}{image.suffix}"))


def test_classes_of_copies_have_no_image_to_validate_on(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png")
    for name in ("cat", "dog"):
        copy_times(tmp_path / name / "1.png", 4)
    problem = only_problem(tmp_path)
    assert problem.found == "classes whose training images are copies of a single one: cat, dog"
    assert problem.allowed == "at least 2 different training images a class, one of them for validation"
    assert problem.remedy == "add other images to these classes or remove their folders"


def test_a_class_of_copies_is_reported_with_everything_else(tmp_path: Path) -> None:
    two_classes(tmp_path)
    put(tmp_path, "bat/1.png", "emu/1.png")
    copy_times(tmp_path / "bat" / "1.png", 2)
    (tmp_path / "cat/bad.jpg").write_text("x")
    _, problems = list_folder(tmp_path)
    assert [problem.found for problem in problems] == [
        "classes with a single training image: emu",
        "classes whose training images are copies of a single one: bat",
        "unreadable image: cannot identify image file",
    ]


def test_a_class_of_copies_will_do_beside_a_validation_split_or_to_measure_on(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "val/dog/2.png")
    for name in ("cat", "dog"):
        copy_times(tmp_path / "train" / name / "1.png", 4)
    assert len(sound(tmp_path).images) == 10
    shutil.rmtree(tmp_path / "val")
    assert "copies of a single one: cat, dog" in only_problem(tmp_path).found
    assert len(sound(tmp_path, for_training=False).images) == 8


def test_copies_in_test_do_not_count(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/dog/2.png")
    copy_times(tmp_path / "train" / "dog" / "1.png", 4)
    assert only_problem(tmp_path).found == "classes whose training images are copies of a single one: dog"


def test_with_two_different_images_a_class_has_one_to_validate_on(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    for image in ("cat/1.png", "dog/2.png"):
        copy_times(tmp_path / image, 5)
    for seed in range(5):
        dataset = make_dataset(sound(tmp_path), 0.2, seed)
        assert dataset.counts("train").min() > 0
        assert dataset.counts("val").min() > 0


@pytest.mark.parametrize("split", ["val", "test"])
def test_classes_that_train_has_not(tmp_path: Path, split: str) -> None:
    two_classes(tmp_path / "train")
    put(tmp_path, f"{split}/emu/1.png")
    problem = only_problem(tmp_path)
    assert problem.found == f"{split} has classes that train has not: emu"
    assert problem.allowed == "the classes of train"


def test_evaluation_accepts_one_class_with_one_image(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png")
    assert sound(tmp_path, for_training=False).classes == ("cat",)


def test_evaluation_needs_no_train_beside_test(tmp_path: Path) -> None:
    put(tmp_path, "test/cat/1.png", "test/dog/1.png", "val/cat/2.png")
    found = sound(tmp_path, for_training=False)
    assert found.classes == ("cat", "dog")
    assert [image.split for image in found.images] == ["test", "test", "val"]


def test_evaluation_takes_no_class_beside_a_split(tmp_path: Path) -> None:
    put(tmp_path, "test/cat/1.png", "dog/1.png")
    _, problems = list_folder(tmp_path, for_training=False)
    assert problems[0].found == "has test but no train; looked for train/CLASS/images"


def test_every_unreadable_image_is_a_problem(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "cat/bad.jpg").write_text("x")
    (tmp_path / "dog/bad.png").write_text("y")
    _, problems = list_folder(tmp_path)
    remedy = "repair or remove it, or leave unreadable images out with skip_unreadable=True (--skip-unreadable)"
    found = "unreadable image: cannot identify image file"
    assert problems == [
        Problem("dataset", str(tmp_path / path), found, remedy=remedy) for path in ("cat/bad.jpg", "dog/bad.png")
    ]


def test_a_link_to_nowhere_is_an_unreadable_image(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "cat/3.png").symlink_to(tmp_path / "gone.png")
    problem = only_problem(tmp_path)
    assert problem.where == str(tmp_path / "cat/3.png")
    assert problem.found.startswith("unreadable image: ")


def test_unreadable_images_are_left_out_when_asked(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "cat/bad.jpg").write_text("x")
    listing = sound(tmp_path, skip_unreadable=True)
    assert "cat/bad.jpg" not in [image.path for image in listing.images]
    assert finding(listing, "unreadable") == Finding(
        "unreadable", "warning", "1 unreadable images were left out, as asked", ("cat/bad.jpg",)
    )


def test_unreadable_images_do_not_count_towards_the_two_a_class_needs(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png", "dog/2.png")
    (tmp_path / "cat/bad.jpg").write_text("x")
    assert only_problem(tmp_path, skip_unreadable=True).found == "classes with a single training image: cat"


def test_unreadable_images_and_faulty_classes_are_reported_together(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/2.png")
    (tmp_path / "cat/bad.jpg").write_text("x")
    _, problems = list_folder(tmp_path)
    assert [problem.found for problem in problems] == [
        "a single class (cat) has training images",
        "unreadable image: cannot identify image file",
    ]


def test_copies_are_found_and_grouped(tmp_path: Path) -> None:
    two_classes(tmp_path)
    for original, copy in [("cat/1.png", "cat/1b.png"), ("cat/1.png", "cat/1c.png"), ("dog/2.png", "dog/2b.png")]:
        shutil.copy(tmp_path / original, tmp_path / copy)
    listing = sound(tmp_path)
    found = finding(listing, "duplicates")
    assert found.severity == "warning"
    assert found.message == "5 files have only 2 different contents; copies are kept in one split"
    assert set(found.paths) == {"cat/1.png", "cat/1b.png", "cat/1c.png", "dog/2.png", "dog/2b.png"}
    groups = listing.groups
    assert set(groups) == set(found.paths)
    assert groups["cat/1.png"] == groups["cat/1b.png"] == groups["cat/1c.png"]
    assert groups["dog/2.png"] == groups["dog/2b.png"] != groups["cat/1.png"]


def test_files_of_equal_size_but_other_content_are_no_copies(tmp_path: Path) -> None:
    for name, value in [("a/1", 1), ("a/2", 2), ("b/1", 3), ("b/2", 4)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (value, 0, 0)).save(tmp_path / f"{name}.bmp")
    assert sound(tmp_path).groups == {}


def test_a_copy_in_another_class_contradicts(tmp_path: Path) -> None:
    two_classes(tmp_path)
    shutil.copy(tmp_path / "cat/1.png", tmp_path / "dog/copy.png")
    found = finding(sound(tmp_path), "contradicting-labels")
    assert found == Finding(
        "contradicting-labels", "warning", "1 images occur in more than one class", ("cat/1.png", "dog/copy.png")
    )


def test_a_copy_in_another_split_leaks(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    (tmp_path / "test/cat").mkdir(parents=True)
    shutil.copy(tmp_path / "train/cat/1.png", tmp_path / "test/cat/9.png")
    found = finding(sound(tmp_path), "leaking-splits")
    assert found.message == "1 images occur in more than one of train, val and test: scores there are too good"
    assert set(found.paths) == {"train/cat/1.png", "test/cat/9.png"}


def test_copies_in_one_split_and_class_neither_leak_nor_contradict(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    shutil.copy(tmp_path / "train/cat/1.png", tmp_path / "train/cat/9.png")
    assert [finding.code for finding in sound(tmp_path).findings] == ["duplicates"]


def test_without_leaves_images_out_and_says_so(tmp_path: Path) -> None:
    two_classes(tmp_path)
    rest = without(sound(tmp_path), {"cat/1.png": "broken data stream"})
    assert [image.path for image in rest.images] == ["cat/2.png", "dog/1.png", "dog/2.png"]
    assert finding(rest, "unreadable") == Finding(
        "unreadable", "warning", "1 images could not be decoded and were left out, as asked", ("cat/1.png",)
    )


def test_a_class_folder_that_cannot_be_read_is_a_problem(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, scandir = next(shapes.rglob("circle")), os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    _, problems = list_folder(shapes)
    assert (str(locked), "the folder cannot be read (Permission denied)") in [
        (one.where, one.found) for one in problems
    ]
