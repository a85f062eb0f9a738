"""Which images are held out: stratified, seeded, copies together, no class emptied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autotl.data.folder import Finding, Image, Listing
from autotl.data.splits import (
    Dataset,
    assign_folds,
    label_numbers,
    make_dataset,
    part_of,
    stratified_holdout,
    stratified_order,
)


def alone(labels: np.ndarray) -> np.ndarray:
    return np.arange(len(labels))


def listing(root: Path, splits: dict[str | None, dict[str, int]], groups: dict[str, int] | None = None) -> Listing:
    """Images named SPLIT/CLASS/N.png, so many of each class in each split."""
    images = [
        Image(f"{split or 'all'}/{label}/{number}.png", label, split)
        for split, counts in splits.items()
        for label, count in counts.items()
        for number in range(count)
    ]
    return Listing(root, tuple(sorted(images, key=lambda image: image.path)), (), groups or {})


def test_every_class_gives_its_share() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 10])
    held = stratified_holdout(labels, alone(labels), 0.2, seed=0)
    assert np.bincount(labels[held]).tolist() == [20, 8, 2]


def test_the_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    labels = np.repeat([0, 1], 50)
    first = stratified_holdout(labels, alone(labels), 0.2, seed=1)
    np.testing.assert_array_equal(first, stratified_holdout(labels, alone(labels), 0.2, seed=1))
    assert (first != stratified_holdout(labels, alone(labels), 0.2, seed=2)).any()


def test_a_small_class_gives_one_image() -> None:
    labels = np.repeat([0, 1], [100, 3])
    held = stratified_holdout(labels, alone(labels), 0.1, seed=0)
    assert held[labels == 1].sum() == 1


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_a_class_of_two_keeps_one_for_training(fraction: float) -> None:
    labels = np.array([0, 0, 1, 1])
    held = stratified_holdout(labels, alone(labels), fraction, seed=0)
    assert held[labels == 0].sum() == held[labels == 1].sum() == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_group_is_never_divided(seed: int) -> None:
    labels = np.repeat([0, 1], 30)
    groups = np.concatenate([np.arange(30) // 3, 100 + np.arange(30) // 2])
    held = stratified_holdout(labels, groups, 0.3, seed)
    assert all(len(set(held[groups == group])) == 1 for group in np.unique(groups))
    assert held[labels == 0].sum() == 9


@pytest.mark.parametrize("seed", range(10))
def test_a_group_that_spans_classes_is_never_divided(seed: int) -> None:
    labels = np.repeat([0, 1], 20)
    groups = np.concatenate([np.arange(20), np.arange(20)])  # every image occurs in both classes
    held = stratified_holdout(labels, groups, 0.25, seed)
    np.testing.assert_array_equal(held[:20], held[20:])
    assert held[:20].sum() == 5


def test_a_class_that_is_one_group_is_not_held_out() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    groups = np.array([7, 7, 7, 1, 2, 3])
    held = stratified_holdout(labels, groups, 0.5, seed=0)
    assert not held[labels == 0].any()
    assert held[labels == 1].any()


def test_a_class_of_two_equal_groups_gives_one_of_them() -> None:
    labels = np.zeros(6, dtype=np.int64)
    held = stratified_holdout(labels, np.array([0, 0, 0, 1, 1, 1]), 0.2, seed=0)
    assert held.sum() == 3


def test_no_class_is_emptied_by_copies_held_out_for_another_class() -> None:
    labels = np.repeat([0, 1], [10, 2])
    groups = np.concatenate([np.arange(10), [0, 1]])  # both images of class 1 occur in class 0 too
    emptied = [seed for seed in range(60) if stratified_holdout(labels, groups, 0.2, seed)[labels == 1].all()]
    assert emptied == []


def test_a_validation_split_is_taken_from_training(tmp_path: Path) -> None:
    dataset = make_dataset(listing(tmp_path, {None: {"cat": 20, "dog": 10}}), 0.2, seed=0)
    assert dataset.classes == ("cat", "dog")
    assert not dataset.own_validation
    assert dataset.counts("val").tolist() == [4, 2]
    assert dataset.counts("train").tolist() == [16, 8]
    assert dataset.counts("train", "val").tolist() == [20, 10]


def test_labels_are_places_in_the_sorted_classes(tmp_path: Path) -> None:
    dataset = make_dataset(listing(tmp_path, {None: {"b": 2, "a": 2}}), 0.5, seed=0)
    assert dict(zip(dataset.paths, dataset.labels.tolist(), strict=True)) == {
        "all/a/0.png": 0,
        "all/a/1.png": 0,
        "all/b/0.png": 1,
        "all/b/1.png": 1,
    }


def test_the_users_own_validation_is_kept(tmp_path: Path) -> None:
    own = {"train": {"cat": 10, "dog": 10}, "val": {"cat": 3, "dog": 1}, "test": {"cat": 2}}
    dataset = make_dataset(listing(tmp_path, own), 0.5, seed=0)
    assert dataset.own_validation
    assert dataset.counts("train").tolist() == [10, 10]
    assert dataset.counts("val").tolist() == [3, 1]
    assert dataset.counts("test").tolist() == [2, 0]


def test_test_images_are_never_taken_for_validation(tmp_path: Path) -> None:
    dataset = make_dataset(listing(tmp_path, {"train": {"a": 10, "b": 10}, "test": {"a": 5, "b": 5}}), 0.2, seed=0)
    assert dataset.counts("test").tolist() == [5, 5]
    assert all(dataset.paths[place].startswith("test/") for place in dataset.indices("test"))
    assert dataset.counts("val").tolist() == [2, 2]


@pytest.mark.parametrize("seed", range(10))
def test_copies_lie_in_one_split(tmp_path: Path, seed: int) -> None:
    copies = {"all/a/0.png": 0, "all/a/1.png": 0, "all/b/3.png": 1, "all/b/4.png": 1}
    dataset = make_dataset(listing(tmp_path, {None: {"a": 6, "b": 6}}, copies), 0.4, seed)
    split = dict(zip(dataset.paths, dataset.split.tolist(), strict=True))
    assert split["all/a/0.png"] == split["all/a/1.png"]
    assert split["all/b/3.png"] == split["all/b/4.png"]


def test_the_fingerprint_follows_files_and_split(tmp_path: Path) -> None:
    plain = listing(tmp_path, {None: {"a": 10, "b": 10}})
    for image in plain.images:
        (tmp_path / image.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image.path).write_bytes(b"pixels")
    before = make_dataset(plain, 0.2, seed=0).fingerprint()
    assert make_dataset(plain, 0.2, seed=0).fingerprint() == before
    assert make_dataset(plain, 0.2, seed=1).fingerprint() != before
    (tmp_path / plain.images[0].path).write_bytes(b"other pixels")
    assert make_dataset(plain, 0.2, seed=0).fingerprint() != before


def held_out_by_definition(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The rule written down without regard to time: every group is looked for among all images."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)

    def leaves_some(together: np.ndarray) -> bool:
        after = held | together
        return all(not after[labels == label].all() for label in np.unique(labels[together]))

    for label in np.unique(labels):
        own = labels == label
        wanted = min(max(1, round(fraction * own.sum())), own.sum() - 1)
        order = [groups == group for group in generator.permutation(np.unique(groups[own]))]
        for together in order:
            already = held[own].sum()
            if already < wanted and already + (together & own).sum() <= wanted and leaves_some(together):
                held |= together
        if not held[own].any():
            held |= next((together for together in sorted(order, key=np.sum) if leaves_some(together)), held)
    return held


@pytest.mark.parametrize("seed", range(60))
def test_the_choice_is_the_one_by_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(4, 60))
    labels = generator.integers(0, generator.integers(1, 5), n)
    groups = generator.integers(0, generator.integers(1, 2 * n), n)  # many span classes
    fraction = float(generator.uniform(0.05, 0.9))
    expected = held_out_by_definition(labels, groups, fraction, seed)
    np.testing.assert_array_equal(stratified_holdout(labels, groups, fraction, seed), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_beginning_of_the_stratified_order_is_stratified(seed: int) -> None:
    labels = np.repeat([0, 1, 2, 3], [400, 200, 40, 2])
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(642))
    assert set(labels[order[:4]]) == {0, 1, 2, 3}
    for size in (64, 160, 321):
        counts = np.bincount(labels[order[:size]], minlength=4)
        np.testing.assert_allclose(counts, np.bincount(labels) * size / 642, atol=2.5)


def test_the_stratified_order_is_the_seeds() -> None:
    labels = np.arange(60) % 3
    np.testing.assert_array_equal(stratified_order(labels, 1), stratified_order(labels, 1))
    assert not np.array_equal(stratified_order(labels, 1), stratified_order(labels, 2))


def test_folds_are_stratified_and_do_not_divide_copies() -> None:
    labels = np.repeat([0, 1], [40, 10])
    groups = np.r_[np.arange(30), np.arange(10), np.arange(100, 110)]  # the last ten of class 0 are copies
    folds = assign_folds(labels, groups, 2, 5)
    assert folds is not None
    for fold in range(5):
        assert np.bincount(labels[folds == fold])[1] == 2
        assert set(groups[folds == fold]).isdisjoint(groups[folds != fold])
    assert len(np.unique(groups[labels == 0][folds[labels == 0] == 0])) == 6, "30 different ones in five folds"


@pytest.mark.parametrize(("groups", "enough"), [([0, 1, 2, 3, 4], True), ([0, 1, 2, 3, 3], False)])
def test_a_class_needs_as_many_different_images_as_there_are_folds(groups: list[int], enough: bool) -> None:
    labels = np.repeat([0, 1], [20, 5])
    folds = assign_folds(labels, np.r_[np.arange(10, 30), groups], 2, 5)
    assert (folds is not None) == enough
    assert assign_folds(labels, np.arange(25), 3, 5) is None, "a class without images"


def test_a_dataset_knows_its_copies(tmp_path: Path) -> None:
    copies = {"all/a/1.png": 0, "all/b/2.png": 0}
    found = make_dataset(listing(tmp_path, {None: {"a": 4, "b": 4}}, copies), 0.25, 0)
    same = [found.paths.index(path) for path in copies]
    assert found.groups[same[0]] == found.groups[same[1]]
    assert len(np.unique(found.groups)) == 7


def test_labels_are_places_among_the_classes() -> None:
    assert label_numbers(["b", "a", "b"], ("a", "b")).tolist() == [1, 0, 1]
    with pytest.raises(KeyError):
        label_numbers(["c"], ("a", "b"))


class TestAPart:
    def whole(self) -> Dataset:
        files = listing(Path("root"), {None: {"a": 200, "b": 40}, "test": {"a": 9, "b": 1}})
        return make_dataset(files, 0.2, seed=0)

    def test_has_all_test_images_and_the_share_of_every_class_and_split(self) -> None:
        whole = self.whole()
        part = part_of(whole, 0.25, 0, "time")
        for name in ("train", "val"):
            assert part.counts(name) == pytest.approx(whole.counts(name) / 4, abs=1)
        assert part.counts("test").tolist() == [9, 1]

    def test_keeps_what_belongs_to_an_image_together(self) -> None:
        whole = self.whole()
        part = part_of(whole, 0.3, 1, "time")
        facts = zip(whole.paths, whole.labels, whole.split, whole.groups, strict=True)
        known = {path: (label, split, group) for path, label, split, group in facts}
        assert list(part.paths) == [path for path in whole.paths if path in set(part.paths)]
        for path, *rest in zip(part.paths, part.labels, part.split, part.groups, strict=True):
            assert known[path] == tuple(rest)

    def test_keeps_an_image_of_every_class(self) -> None:
        assert part_of(self.whole(), 0.001, 0, "time").counts("train").tolist() == [1, 1]

    def test_a_sample_has_the_share_of_every_class_and_split(self) -> None:
        whole = self.whole()
        rows = whole.sample(whole.indices("train", "val"), 60, 0)
        assert len(rows) == 60
        assert (np.diff(rows) > 0).all()
        for name in ("train", "val"):
            counts = np.bincount(whole.labels[rows[whole.split[rows] == name]], minlength=2)
            assert counts == pytest.approx(whole.counts(name) / 4, abs=1)

    def test_a_sample_of_a_few_is_all_of_them(self) -> None:
        whole = self.whole()
        np.testing.assert_array_equal(whole.sample(np.array([9, 3]), 2, 0), [3, 9])

    def test_says_so(self) -> None:
        assert part_of(self.whole(), 0.5, 0, "for want of time").findings[-1] == Finding(
            "part", "warning", "120 of 240 training and validation images are used: for want of time"
        )
