"""Which image is for training, validation or test: seeded, stratified, copies on one side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autotl.data.folder import Finding, Listing, SplitName
from autotl.storage.rundir import fingerprint


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The manifest of a fit.

    Attributes:
        root: the folder.
        classes: class names; a label is a place in this tuple.
        paths: files relative to `root`, one an image.
        labels: int64, shape (images,).
        split: "train", "val" or "test", shape (images,).
        groups: images with the same number are copies of one another, shape (images,).
        findings: what is odd about the data.
        own_validation: whether the validation split is the user's.
    """

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    split: NDArray[np.str_]
    groups: NDArray[np.int64]
    findings: tuple[Finding, ...]
    own_validation: bool

    def indices(self, *names: SplitName) -> NDArray[np.int64]:
        """Places of the images of the splits `names`, ascending."""
        return np.flatnonzero(np.isin(self.split, names))

    def among(self, rows: NDArray[np.int64], name: SplitName) -> NDArray[np.int64]:
        """Those of `rows` that are of the split `name`, in their order."""
        chosen: NDArray[np.int64] = rows[self.split[rows] == name]
        return chosen

    def sample(self, rows: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
        """At most `limit` of some training and validation images, ascending: the same share of both, stratified.

        Of every class an image at least is kept of either, so that there may be more than `limit`.
        """
        if len(rows) <= limit:
            return np.sort(rows)
        both = self.among(rows, "train"), self.among(rows, "val")
        kept = [_stratified(some, self.labels, limit / len(rows), seed) for some in both]
        return np.sort(np.concatenate(kept))

    def counts(self, *names: SplitName) -> NDArray[np.int64]:
        """Images a class in the splits `names`, shape (classes,)."""
        return np.bincount(self.labels[self.indices(*names)], minlength=len(self.classes)).astype(np.int64)

    def image_fingerprint(self) -> str:
        """Stands for the files, their sizes and when they were changed; not for labels and splits."""
        states = [(self.root / path).stat() for path in self.paths]
        return fingerprint([str(self.root.resolve()), self.paths, [(s.st_size, s.st_mtime_ns) for s in states]])

    def fingerprint(self) -> str:
        """Stands for the files, their sizes, labels and split."""
        sizes = [(self.root / path).stat().st_size for path in self.paths]
        return fingerprint([self.paths, sizes, self.labels.tolist(), self.split.tolist()])


def label_numbers(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """The place of every label among the classes, shape (labels,).

    Raises:
        KeyError: for one that is not among them.
    """
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[label] for label in labels], dtype=np.int64)


def stratified_holdout(
    labels: NDArray[np.int64], groups: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose about `fraction` of every class, at least one image and never all; a group is never divided.

    Args:
        labels: class of every image, shape (images,).
        groups: images with the same number stay together, shape (images,).
        fraction: share to hold out.
        seed: of the choice.

    Returns:
        Whether an image is held out, shape (images,). A class that is a single group is not held out.
    """
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    by_group = _places_of(groups)
    left = np.bincount(labels)  # for training, of every class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        wanted = min(max(1, round(fraction * len(members))), len(members) - 1)
        order = [by_group[group] for group in generator.permutation(np.unique(groups[members])).tolist()]
        for together in order:
            already = len(members) - left[label]
            if already >= wanted:
                break
            # A group that would overshoot is left for training; so is one that would empty a class.
            inside = int((labels[together] == label).sum())
            if already + inside <= wanted:
                _hold(together, labels, held, left)
        if left[label] == len(members):  # all groups are larger than the share: better too many than none
            any(_hold(together, labels, held, left) for together in sorted(order, key=len))
    return held


def _places_of(groups: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Where each group's images stand, found in one pass: a set without copies has as many groups as images."""
    order = np.argsort(groups, kind="stable")
    numbers, starts = np.unique(groups[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))


def _hold(
    together: NDArray[np.int64], labels: NDArray[np.int64], held: NDArray[np.bool_], left: NDArray[np.int64]
) -> bool:
    """Hold a group out, in `held` and `left`, unless it is already or a class would have no training images left."""
    classes, counts = np.unique(labels[together], return_counts=True)
    if held[together[0]] or (left[classes] <= counts).any():
        return False
    held[together] = True
    left[classes] -= counts
    return True


def assign_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], n_classes: int, n_folds: int
) -> NDArray[np.int64] | None:
    """A fold for every image, stratified; a group is never divided.

    Args:
        labels: class of every image, shape (images,).
        groups: as for `stratified_holdout`.
        n_classes: number of classes.
        n_folds: number of folds.

    Returns:
        0..n_folds-1, shape (images,); None if a class has fewer groups than there are folds.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    if np.bincount(labels[first], minlength=n_classes).min() < n_folds:
        return None
    from sklearn.model_selection import StratifiedKFold

    folds = np.empty(len(first), dtype=np.int64)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    for fold, (_, held) in enumerate(splitter.split(first, labels[first])):
        folds[held] = fold
    return folds[group]


def stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """An order of images every beginning of which is a stratified sample: nested parts of a data set.

    Args:
        labels: class of every image, shape (images,).
        seed: of the order within the classes.

    Returns:
        Places, shape (images,). The first are one of each class; later ones follow the classes' shares.
    """
    generator = np.random.default_rng(seed)
    key = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        # The place within the class as a share of it, at a random offset; the first image comes before all shares.
        key[members] = (np.arange(len(members)) + generator.random()) / len(members)
        key[members[0]] = -1
    order: NDArray[np.int64] = np.lexsort((generator.random(len(labels)), key))
    return order


def _stratified(rows: NDArray[np.int64], labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """A share of some images, of every class an image at least."""
    count = max(len(np.unique(labels[rows])), round(share * len(rows)))
    return rows[stratified_order(labels[rows], seed)[:count]]


def part_of(dataset: Dataset, share: float, seed: int, why: str) -> Dataset:
    """The data set with a stratified share of its training and of its validation images, and all of its test images.

    Args:
        dataset: stays as it is.
        share: from 0 to 1; of every class an image at least is kept in either split that has one.
        seed: of which images.
        why: for the finding that says so.
    """
    kept = [dataset.indices("test")]
    kept += [_stratified(dataset.indices(name), dataset.labels, share, seed) for name in ("train", "val")]
    rows = np.sort(np.concatenate(kept))
    used, of = sum(map(len, kept[1:])), len(dataset.indices("train", "val"))
    message = f"{used} of {of} training and validation images are used: {why}"
    return replace(
        dataset,
        paths=tuple(dataset.paths[row] for row in rows),
        labels=dataset.labels[rows],
        split=dataset.split[rows],
        groups=dataset.groups[rows],
        findings=(*dataset.findings, Finding("part", "warning", message)),
    )


def make_dataset(listing: Listing, val_fraction: float, seed: int) -> Dataset:
    """Split a listing: the user's own splits where there are any, else a held-out share of the training images."""
    classes = listing.classes
    labels = label_numbers([image.label for image in listing.images], classes)
    split = np.array([image.split or "train" for image in listing.images], dtype="<U5")
    n_groups = len(set(listing.groups.values()))
    groups = np.array(
        [listing.groups.get(image.path, n_groups + place) for place, image in enumerate(listing.images)], dtype=np.int64
    )
    own_validation = bool((split == "val").any())
    if not own_validation:
        trainable = np.flatnonzero(split == "train")
        held = stratified_holdout(labels[trainable], groups[trainable], val_fraction, seed)
        split[trainable[held]] = "val"
    return Dataset(
        root=listing.root,
        classes=classes,
        paths=tuple(image.path for image in listing.images),
        labels=labels,
        split=split,
        groups=groups,
        findings=listing.findings,
        own_validation=own_validation,
    )
