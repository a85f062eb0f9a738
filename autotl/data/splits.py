"""Which image is for training, validation or test: seeded, stratified, copies on one side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autotl.data.folder import Finding, Listing, SplitName
from autotl.rundir import fingerprint


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The manifest of a fit.

    Attributes:
        root: the folder.
        classes: class names; a label is a place in this tuple.
        paths: files relative to `root`, one an image.
        labels: int64, shape (images,).
        split: "train", "val" or "test", shape (images,).
        findings: what is odd about the data.
        own_validation: whether the validation split is the user's.
    """

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    split: NDArray[np.str_]
    findings: tuple[Finding, ...]
    own_validation: bool

    def indices(self, *names: SplitName) -> NDArray[np.int64]:
        """Places of the images of the splits `names`, ascending."""
        return np.flatnonzero(np.isin(self.split, names))

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
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        wanted = min(max(1, round(fraction * len(members))), len(members) - 1)
        order = [np.flatnonzero(groups == group) for group in generator.permutation(np.unique(groups[members]))]
        for together in order:
            already = int(held[members].sum())
            if already >= wanted:
                break
            # A group that would overshoot is left for training; so is one that would empty a class.
            inside = int((labels[together] == label).sum())
            if already + inside <= wanted and _leaves_some(together, labels, held):
                held[together] = True
        if not held[members].any():  # all groups are larger than the share: better too many than none
            for together in sorted(order, key=len):
                if _leaves_some(together, labels, held):
                    held[together] = True
                    break
    return held


def _leaves_some(together: NDArray[np.int64], labels: NDArray[np.int64], held: NDArray[np.bool_]) -> bool:
    """Whether no class would be without training images if the images `together` were held out as well."""
    after = held.copy()
    after[together] = True
    return all(not after[labels == label].all() for label in np.unique(labels[together]))


def make_dataset(listing: Listing, val_fraction: float, seed: int) -> Dataset:
    """Split a listing: the user's own splits where there are any, else a held-out share of the training images."""
    classes = listing.classes
    labels = np.array([classes.index(image.label) for image in listing.images], dtype=np.int64)
    split = np.array([image.split or "train" for image in listing.images], dtype="<U5")
    own_validation = bool((split == "val").any())
    if not own_validation:
        trainable = np.flatnonzero(split == "train")
        n_groups = len(set(listing.groups.values()))
        groups = np.array(
            [listing.groups.get(image.path, n_groups + place) for place, image in enumerate(listing.images)],
            dtype=np.int64,
        )
        held = stratified_holdout(labels[trainable], groups[trainable], val_fraction, seed)
        split[trainable[held]] = "val"
    return Dataset(
        root=listing.root,
        classes=classes,
        paths=tuple(image.path for image in listing.images),
        labels=labels,
        split=split,
        findings=listing.findings,
        own_validation=own_validation,
    )
