"""Subsets for the benchmarks: sizes, strata, nesting, no image in two splits, autotl splits the linked folder alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from subsets import SUBSETS, draw, even, link_subset, part_of, proportional, read_set

from autotl.data.folder import list_folder
from autotl.data.splits import make_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 and 30 different images of two classes, with a duplicate of one image, and no test split."""
    root = tmp_path / "set"
    generator = np.random.default_rng(0)
    for label, count in (("a", 60), ("b", 30)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number:02d}.png")
    (root / "a" / "99.png").write_bytes((root / "a" / "00.png").read_bytes())
    return root


def test_proportional_quota_by_largest_remainders() -> None:
    assert proportional(np.array([500, 300, 200]), 10).tolist() == [5, 3, 2]
    assert proportional(np.array([55, 30, 15]), 10).tolist() == [6, 3, 2]
    assert proportional(np.array([3, 4]), 10).tolist() == [3, 4]


def test_a_rare_class_keeps_two_images() -> None:
    assert proportional(np.array([1000, 5]), 100).tolist() == [100, 2]


def test_even_quota() -> None:
    assert even(np.array([500, 7]), 20).tolist() == [20, 7]


def test_the_smaller_draw_is_part_of_the_larger() -> None:
    labels = np.repeat([0, 1], 50)
    larger = draw(labels, np.arange(100), lambda counts: proportional(counts, 60), seed=3)
    smaller = draw(labels, np.arange(100), lambda counts: even(counts, 5), seed=3)
    assert np.bincount(labels[larger]).tolist() == [30, 30]
    assert np.bincount(labels[smaller]).tolist() == [5, 5]
    assert np.isin(smaller, larger).all()


def test_subsets_of_a_folder(folder: Path) -> None:
    data = read_set(folder)
    assert len(set(data.paths)) == len(data.paths) == 90, "of the duplicates one is kept"
    whole, small = (data.splits[subset] for subset in SUBSETS)
    counts = {name: np.bincount(data.labels[whole == name]).tolist() for name in ("train", "val", "test")}
    assert counts == {"train": [36, 18], "val": [9, 4], "test": [15, 8]}
    assert np.bincount(data.labels[np.isin(small, ("train", "val"))]).tolist() == [20, 20]
    assert ((whole == "test") == (small == "test")).all(), "both are measured on the same images"


def test_an_own_test_split_is_used_and_validation_is_pooled(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for label in ("a", "b"):
        for number, split in enumerate(("train", "train", "train", "val", "test")):
            target = root / split / label
            target.mkdir(parents=True, exist_ok=True)
            (folder / label / f"{number:02d}.png").rename(target / f"{number:02d}.png")
    data = read_set(root)
    split = next(iter(data.splits.values()))
    assert {path for path, name in zip(data.paths, split, strict=True) if name == "test"} == {
        "test/a/04.png",
        "test/b/04.png",
    }
    assert int((split == "train").sum()) == 6
    assert int((split == "val").sum()) == 2


@pytest.mark.parametrize("subset", SUBSETS)
def test_autotl_divides_the_linked_folder_as_the_table_does(folder: Path, tmp_path: Path, subset: str) -> None:
    data = read_set(folder)
    link_subset(data, subset, tmp_path / "linked")
    listing, problems = list_folder(tmp_path / "linked")
    assert problems == []
    dataset = make_dataset(listing, 0.2, seed=0)
    held = {path.split("/")[1] for path, split in zip(dataset.paths, dataset.split, strict=True) if split == "val"}
    mine = {data.paths[place].replace("/", "__") for place in np.flatnonzero(data.splits[subset] == "val")}
    assert held == mine


def test_part_of_a_folder_is_all_for_training(folder: Path) -> None:
    data = part_of(folder, 30)
    assert np.bincount(data.labels).tolist() == [20, 10]
    assert set(data.splits["all"]) == {"train"}


def test_a_folder_that_cannot_be_used_ends_the_program_with_its_problems(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such folder"):
        read_set(tmp_path / "nowhere")
