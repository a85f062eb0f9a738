"""A reference set from a folder of photographs: check, choose, decode, embed, write."""

from __future__ import annotations

import os
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autotl.advice.reference_set import MIN_PHOTOGRAPHS, ReferenceSet, make_reference_set, save_reference_set
from autotl.console import Console
from autotl.data.decode import IMAGE_SUFFIXES
from autotl.data.folder import unreadable_problems
from autotl.data.pixels import build_store
from autotl.errors import BackboneError, DatasetError, Problem, raise_if_any
from autotl.frozen.prepare import prepare
from autotl.models.backbone import preprocessing_named
from autotl.models.catalog import BackboneEntry, find_entry
from autotl.models.weights import file_sha256, locate
from autotl.storage.cache import DiskCache

MAX_PHOTOGRAPHS = 1000
"""As many as the shipped reference set has: the time that a measurement takes grows with the square."""


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """What is asked for: arguments of `autotl.build_reference_set`, and the cores to use."""

    images: Path
    backbone: str
    output: Path
    name: str
    allow_download: bool = False
    workers: int = 1


def build(asked: ReferenceRequest, console: Console) -> ReferenceSet:
    """Make the reference set, write it, and return it. Embeddings are computed in float32.

    Raises:
        InputError: with every problem at once; images that turn out damaged when they are decoded come later, and last
            those that look the same.
    """
    paths, problems = find_photographs(asked.images)
    entry, found = _find_entry(asked)
    raise_if_any([*problems, *found, *_check_output(asked.output)])
    assert entry is not None
    chosen = choose(paths, MAX_PHOTOGRAPHS)
    # Before they are read: if the weights are replaced meanwhile, the reference set is refused and not wrong.
    checksum = file_sha256(Path(entry.path)) if entry.path else ""
    with tempfile.TemporaryDirectory(prefix="autotl-reference-") as scratch:
        embeddings = _embed(asked, entry, chosen, Path(scratch), console)
    names = tuple(class_name(path) for path in chosen)
    backbone = f"{entry.name}={entry.path}" if entry.path else entry.name
    try:
        reference = replace(make_reference_set(asked.name, backbone, embeddings, names), file_sha256=checksum)
    except ValueError as error:
        problem = Problem("dataset", f"images {asked.images}", str(error), "photographs that differ, of many classes")
        raise DatasetError([problem]) from error
    save_reference_set(reference, asked.output)
    return reference


def find_photographs(root: Path) -> tuple[list[str], list[Problem]]:
    """Paths of all images below `root`, relative and sorted, without hidden ones; and what is wrong with the folder."""
    where = f"images {root}"
    if not root.is_dir():
        return [], [Problem("dataset", where, "is not a folder" if root.exists() else "no such folder")]
    paths = []
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
        paths += [Path(parent, name).relative_to(root).as_posix() for name in images]
    if len(paths) < MIN_PHOTOGRAPHS:
        found = f"holds {len(paths)} images"
        return [], [Problem("dataset", where, found, f"at least {MIN_PHOTOGRAPHS}, better hundreds, of many classes")]
    return sorted(paths), []


def class_name(path: str) -> str:
    """What a photograph shows: the name of its folder, or of its file where it lies in none, in words.

    A leading WordNet id is left out: `n01440764_tench.jpg` is a tench.
    """
    parent = Path(path).parent.name
    name = parent or Path(path).stem
    return re.sub(r"^n\d{8}_(?=.)", "", name).replace("_", " ").strip()


def choose(paths: list[str], limit: int) -> list[str]:
    """At most `limit` of the paths, as many of each class as can be; sorted as they were."""
    if len(paths) <= limit:
        return paths
    of_class = defaultdict(list)
    generator = np.random.default_rng(0)
    for place in generator.permutation(len(paths)):
        of_class[class_name(paths[place])].append(int(place))
    # The first of every class, then the second, and so on.
    turns = [(turn, places[turn]) for places in of_class.values() for turn in range(len(places))]
    taken = sorted(place for _, place in sorted(turns, key=lambda turn: turn[0])[:limit])
    return [paths[place] for place in taken]


def _find_entry(asked: ReferenceRequest) -> tuple[BackboneEntry | None, list[Problem]]:
    try:
        entry = find_entry(asked.backbone)
        if not (entry.weights == "hub" and asked.allow_download):
            locate(entry)
    except BackboneError as error:
        return None, list(error.problems)
    return entry, []


def _check_output(output: Path) -> list[Problem]:
    where = f"output {output}"
    if output.exists():
        return [Problem("settings", where, "exists already", "the name of a new file")]
    if not output.parent.is_dir():
        return [Problem("settings", where, f"there is no folder {output.parent}", "a file in a folder that exists")]
    if not os.access(output.parent, os.W_OK):
        return [Problem("settings", where, f"{output.parent} cannot be written to")]
    return []


def _embed(
    asked: ReferenceRequest, entry: BackboneEntry, paths: list[str], scratch: Path, console: Console
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    size, workers = preprocessing_named(entry.name).store_size, asked.workers
    with console.progress("decoding photographs", len(paths)) as on_progress:
        store, decoded = build_store(asked.images, paths, size, scratch / "pixels.u8", workers, on_progress)
    if decoded.unreadable:
        raise_if_any(unreadable_problems(asked.images, decoded.unreadable))
    with console.progress(f"embedding with {entry.name}", len(paths)) as on_progress:
        return prepare(
            entry,
            store,
            np.arange(len(paths)),
            scratch,
            "fp32",
            allow_download=asked.allow_download,
            workers=workers,
            passes=1,
            cache=DiskCache(scratch),
            on_progress=on_progress,
        ).embeddings
