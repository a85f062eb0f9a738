"""Subsets of data sets for `benchmarks/advice.py`: seeded, stratified, with a test split and without duplicates.

A subset is drawn from the training and validation images of a set; autotl's own rule then holds a fifth back for
validation. Test images are drawn, too: from the set's own, else from a quarter of all images. Only one of several
duplicates is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autotl.data.folder import Image, Listing, list_folder
from autotl.data.splits import stratified_holdout

Integers = NDArray[np.int64]

TEST_SHARE, VAL_SHARE = 0.25, 0.2
MOST_IMAGES = 600
PER_CLASS = 20


def proportional(counts: Integers, most: int = MOST_IMAGES) -> Integers:
    """So many of each class that they are `most` in all, in the classes' proportions (largest remainders).

    Two of each class at least: very rare classes may make it a few more.
    """
    if counts.sum() <= most:
        return counts
    exact = counts * most / counts.sum()
    quota = np.floor(exact).astype(np.int64)
    quota[np.argsort(quota - exact, kind="stable")[: most - quota.sum()]] += 1
    result: Integers = np.minimum(counts, np.maximum(quota, 2))
    return result


def even(counts: Integers, most: int = PER_CLASS) -> Integers:
    """At most `most` of each class."""
    result: Integers = np.minimum(counts, most)
    return result


SUBSETS: dict[str, Callable[[Integers], Integers]] = {
    f"{MOST_IMAGES} images": proportional,
    f"{PER_CLASS} a class": even,
}


def draw(labels: Integers, rows: Integers, quota: Callable[[Integers], Integers], seed: int) -> Integers:
    """A stratified draw from `rows`, ascending. With one seed, the smaller of two quotas is part of the larger."""
    generator = np.random.default_rng(seed)
    counts = quota(np.bincount(labels[rows]))
    chosen = [generator.permutation(rows[labels[rows] == label])[:count] for label, count in enumerate(counts)]
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True, slots=True, eq=False)
class SubsetData:
    """The images of a data set that any of its subsets uses.

    Attributes:
        name: the folder's.
        root: the folder.
        classes: class names; a label is a place in this tuple.
        paths: relative to `root`; places in here are the rows of the pixel store.
        labels: shape (images,).
        splits: for each subset, "train", "val", "test" or "" (not in it), shape (images,).
        seed: of the draws.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: Integers
    splits: dict[str, NDArray[np.str_]]
    seed: int = 0


def read_set(folder: Path, seed: int = 0) -> SubsetData:
    """List a folder and draw its subsets; `seed` decides which images: for testing, too, where the set has no test/.

    Raises:
        SystemExit: with every problem of the folder.
    """
    classes, images, labels = _listed(folder)
    in_test = np.array([image.split == "test" for image in images])
    if not in_test.any():
        in_test = stratified_holdout(labels, np.arange(len(labels)), TEST_SHARE, seed)
    test = draw(labels, np.flatnonzero(in_test), proportional, seed)
    drawn = {subset: draw(labels, np.flatnonzero(~in_test), quota, seed) for subset, quota in SUBSETS.items()}
    used = np.unique(np.concatenate([test, *drawn.values()]))
    splits = {}
    for subset, rows in drawn.items():
        split = np.full(len(images), "", dtype="<U5")
        split[test], split[rows] = "test", "train"
        split[rows[stratified_holdout(labels[rows], np.arange(len(rows)), VAL_SHARE, seed)]] = "val"
        splits[subset] = split[used]
    paths = tuple(images[row].path for row in used)
    return SubsetData(folder.name, folder, classes, paths, labels[used], splits, seed)


def part_of(folder: Path, most: int, seed: int = 0) -> SubsetData:
    """A stratified draw of at most so many of a folder's images, all of them for training, as the subset "all".

    Raises:
        SystemExit: with every problem of the folder.
    """
    classes, images, labels = _listed(folder)
    rows = draw(labels, np.arange(len(images)), lambda counts: proportional(counts, most), seed)
    paths = tuple(images[row].path for row in rows)
    return SubsetData(folder.name, folder, classes, paths, labels[rows], {"all": np.full(len(rows), "train")}, seed)


def _listed(folder: Path) -> tuple[tuple[str, ...], list[Image], Integers]:
    """Classes, images without duplicates, and labels."""
    listing, problems = list_folder(folder, skip_unreadable=True)
    if problems:
        raise SystemExit("\n".join(map(str, problems)))
    images = _without_duplicates(listing)
    return listing.classes, images, np.array([listing.classes.index(image.label) for image in images], dtype=np.int64)


def _without_duplicates(listing: Listing) -> list[Image]:
    kept: list[Image] = []
    seen: set[int] = set()
    for image in listing.images:
        group = listing.groups.get(image.path)
        if group is None or group not in seen:
            kept.append(image)
        if group is not None:
            seen.add(group)
    return kept


def link_subset(data: SubsetData, subset: str, target: Path) -> None:
    """The training and validation images of a subset as a folder of links, ordered so that autotl splits them alike."""
    for place in np.flatnonzero(np.isin(data.splits[subset], ("train", "val"))):
        link = target / data.classes[data.labels[place]] / data.paths[place].replace("/", "__")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((data.root / data.paths[place]).resolve())
