"""From a folder of images to a manifest: layouts, classes, and everything odd about the files, as findings."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from autotl.data.decode import IMAGE_SUFFIXES, why_unreadable
from autotl.errors import Problem

SplitName = Literal["train", "val", "test"]
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
LAYOUTS = "DIR/CLASS/images, or DIR/train/CLASS/images with optional val (valid, validation) and test beside train"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth knowing about the data.

    Attributes:
        code: a stable name, such as "duplicates".
        severity: "info" or "warning".
        message: one sentence with its numbers.
        paths: the files concerned, relative to the data set.
    """

    code: str
    severity: Literal["info", "warning"]
    message: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """One file: its path relative to the data set, its class, its split (None: still to be split)."""

    path: str
    label: str
    split: SplitName | None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds, before it is split.

    Attributes:
        root: the folder.
        images: every image file, sorted by path.
        findings: what is odd about them.
        groups: for images whose content occurs more than once, a number for each content.
    """

    root: Path
    images: tuple[Image, ...]
    findings: tuple[Finding, ...] = ()
    groups: dict[str, int] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, sorted; an image's label is its place in this tuple."""
        return tuple(sorted({image.label for image in self.images}))


def list_folder(
    root: Path, *, skip_unreadable: bool = False, for_training: bool = True
) -> tuple[Listing, list[Problem]]:
    """List the images below `root`, with every problem that can be seen without decoding the sound ones.

    Args:
        root: the data set, in one of `LAYOUTS`.
        skip_unreadable: leave unreadable images out, as a finding, instead of reporting them as problems.
        for_training: demand two classes or more with two training images or more each, of different content where there
            is no validation split; otherwise splits without train will do.

    Returns:
        The listing, and the problems; the listing is of use only when there are none.
    """
    empty = Listing(root, ())
    where = f"dataset {root}"
    if not root.exists():
        return empty, [Problem("dataset", where, "no such folder", LAYOUTS)]
    if not root.is_dir():
        return empty, [Problem("dataset", where, "is not a folder", LAYOUTS)]
    images, findings, problems = _walk_layout(root, where, for_training)
    if not images:
        return empty, problems or [Problem("dataset", where, "holds no images", LAYOUTS)]
    sound, found, unreadable = _set_unreadable_apart(root, images, skip_unreadable)
    findings += found
    groups, found = _find_duplicates(root, sound)
    images = sound if skip_unreadable else images
    listing = Listing(root, tuple(images), (*findings, *found), groups)
    problems += [*(check_classes(listing) if for_training else ()), *unreadable]
    return listing, problems


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _walk_layout(root: Path, where: str, for_training: bool) -> tuple[list[Image], list[Finding], list[Problem]]:
    folders = _visible_folders(root)
    named = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    problems: list[Problem] = []
    others: list[str] = []
    images: list[Image] = []
    problems += _sort_out_loose(root, root, where, others)
    split_layout = any(folder.name.lower() == "train" for folder in named)
    split_layout |= not for_training and bool(named) and named == folders  # test/ alone is enough to measure on
    if not split_layout:
        for folder in folders:
            images += _walk_class(root, folder, None, others, problems)
    else:
        problems += _check_split_folders(folders, named, where)
        for split_folder in named:
            problems += _sort_out_loose(root, split_folder, f"dataset {split_folder}", others)
            for folder in _visible_folders(split_folder):
                split = SPLIT_FOLDERS[split_folder.name.lower()]
                images += _walk_class(root, folder, split, others, problems)
    if named and not split_layout:
        names = ", ".join(folder.name for folder in named)
        found = f"has {names} but no train; looked for train/CLASS/images"
        problems.append(Problem("dataset", where, found, LAYOUTS))
    findings = []
    if others:
        message = f"{len(others)} files are not images in a class folder and were ignored"
        findings.append(Finding("ignored-files", "info", message, tuple(sorted(others)[:20])))
    return sorted(images, key=lambda image: image.path), findings, problems


def _sort_out_loose(root: Path, folder: Path, where: str, others: list[str]) -> Iterable[Problem]:
    """Images directly in a folder that should hold class folders: ignored beside such, else a problem."""
    inside = folder.iterdir()
    loose = sorted(entry for entry in inside if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    if not loose:
        return
    if _visible_folders(folder):
        others += [path.relative_to(root).as_posix() for path in loose]
        return
    found = f"{len(loose)} images lie directly in it ({loose[0].name}, …), with no class folders"
    yield Problem("dataset", where, found, LAYOUTS, "put each class into a folder of its own")


def _check_split_folders(folders: list[Path], named: list[Path], where: str) -> Iterable[Problem]:
    strangers = [folder.name for folder in folders if folder not in named]
    if strangers:
        found = f"beside train there are folders that are no split: {', '.join(strangers)}"
        yield Problem("dataset", where, found, LAYOUTS, "move or rename them")
    by_split = defaultdict(list)
    for folder in named:
        by_split[SPLIT_FOLDERS[folder.name.lower()]].append(folder.name)
    for names in by_split.values():
        if len(names) > 1:
            yield Problem("dataset", where, f"has {' and '.join(names)}, which mean the same split", "one of them")


def _walk_class(
    root: Path, folder: Path, split: SplitName | None, others: list[str], problems: list[Problem]
) -> list[Image]:
    """The images of a class; what else there is goes to `others`, and folders that cannot be read to `problems`."""
    images = []
    visited = set()

    def refused(error: OSError) -> None:
        why = error.strerror or type(error).__name__
        remedy = "give this user the right to read it, or take it out of the data set"
        problems.append(Problem("dataset", str(error.filename), f"the folder cannot be read ({why})", remedy=remedy))

    for parent, directories, names in os.walk(folder, onerror=refused, followlinks=True):
        if os.path.realpath(parent) in visited:  # a link to a folder above it
            directories.clear()
            continue
        visited.add(os.path.realpath(parent))
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in names:
            path = Path(parent, name).relative_to(root).as_posix()
            if name.startswith(".") or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                others.append(path)
            else:
                images.append(Image(path, folder.name, split))
    return images


def check_classes(listing: Listing) -> list[Problem]:
    """What keeps the classes of a listing from being trained on."""
    where = f"dataset {listing.root}"
    problems = []
    trainable = Counter(image.label for image in listing.images if image.split in (None, "train"))
    if len(trainable) < 2:
        found = f"a single class ({next(iter(trainable), 'none')}) has training images"
        problems.append(Problem("dataset", where, found, "at least 2 classes", LAYOUTS))
    lonely = sorted(label for label, count in trainable.items() if count < 2)
    if lonely:
        remedy = "add images to these classes or remove their folders"
        found = f"classes with a single training image: {', '.join(lonely)}"
        problems.append(Problem("dataset", where, found, "at least 2 training images a class", remedy))
    copies = sorted(_classes_of_copies(listing) - set(lonely))
    if copies and not any(image.split == "val" for image in listing.images):
        # Copies stay on one side (`splits.stratified_holdout`): such a class has no image to validate on.
        remedy = "add other images to these classes or remove their folders"
        found = f"classes whose training images are copies of a single one: {', '.join(copies)}"
        allowed = "at least 2 different training images a class, one of them for validation"
        problems.append(Problem("dataset", where, found, allowed, remedy))
    for split in ("val", "test"):
        unknown = sorted({image.label for image in listing.images if image.split == split} - set(trainable))
        if unknown:
            found = f"{split} has classes that train has not: {', '.join(unknown)}"
            problems.append(Problem("dataset", where, found, "the classes of train"))
    return problems


def _classes_of_copies(listing: Listing) -> set[str]:
    """The classes with a single content among their training images."""
    contents = defaultdict(set)
    for image in listing.images:
        if image.split in (None, "train"):
            contents[image.label].add(listing.groups.get(image.path, image.path))
    return {label for label, different in contents.items() if len(different) < 2}


def _set_unreadable_apart(
    root: Path, images: list[Image], skip: bool
) -> tuple[list[Image], list[Finding], list[Problem]]:
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(lambda image: why_unreadable(root / image.path), images))
    sound = [image for image, reason in zip(images, reasons, strict=True) if not reason]
    unreadable = {image.path: reason for image, reason in zip(images, reasons, strict=True) if reason}
    if not unreadable:
        return sound, [], []
    if not skip:
        return sound, [], unreadable_problems(root, unreadable)
    message = f"{len(unreadable)} unreadable images were left out, as asked"
    return sound, [Finding("unreadable", "warning", message, tuple(unreadable))], []


def unreadable_problems(root: Path, reasons: dict[str, str]) -> list[Problem]:
    """A problem for every unreadable image; `reasons` says by relative path what is wrong with it."""
    remedy = "repair or remove it, or leave unreadable images out with skip_unreadable=True (--skip-unreadable)"
    return [
        Problem("dataset", str(root / path), f"unreadable image: {reason}", remedy=remedy)
        for path, reason in reasons.items()
    ]


def _find_duplicates(root: Path, images: Sequence[Image]) -> tuple[dict[str, int], list[Finding]]:
    by_size: dict[int, list[Image]] = defaultdict(list)
    for image in images:
        by_size[(root / image.path).stat().st_size].append(image)
    by_content: dict[str, list[Image]] = defaultdict(list)
    for same_size in by_size.values():
        for image in same_size if len(same_size) > 1 else ():
            by_content[hashlib.sha256((root / image.path).read_bytes()).hexdigest()].append(image)
    duplicates = [same for same in by_content.values() if len(same) > 1]
    groups = {image.path: number for number, same in enumerate(duplicates) for image in same}
    if not duplicates:
        return {}, []
    paths = tuple(groups)
    findings = [
        Finding(
            "duplicates",
            "warning",
            f"{len(paths)} files have only {len(duplicates)} different contents; copies are kept in one split",
            paths,
        )
    ]
    contradicting = [same for same in duplicates if len({image.label for image in same}) > 1]
    if contradicting:
        message = f"{len(contradicting)} images occur in more than one class"
        paths = tuple(image.path for same in contradicting for image in same)
        findings.append(Finding("contradicting-labels", "warning", message, paths))
    leaking = [same for same in duplicates if len({image.split for image in same}) > 1]
    if leaking:
        message = f"{len(leaking)} images occur in more than one of train, val and test: scores there are too good"
        paths = tuple(image.path for same in leaking for image in same)
        findings.append(Finding("leaking-splits", "warning", message, paths))
    return groups, findings


def without(listing: Listing, reasons: dict[str, str]) -> Listing:
    """The listing without the images in `reasons`, with a finding that names them."""
    message = f"{len(reasons)} images could not be decoded and were left out, as asked"
    finding = Finding("unreadable", "warning", message, tuple(reasons))
    images = tuple(image for image in listing.images if image.path not in reasons)
    return replace(listing, images=images, findings=(*listing.findings, finding))
