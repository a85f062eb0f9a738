"""Time, memory and disk of a fit as the number of images grows.

    python benchmarks/scaling.py DIR [--factors 1 4 16] [--images N] [--depth all-2] [--runs FOLDER]

Every factor gets a folder of its own with so many variations of every image (a little cropped, lighter or darker,
saved anew as JPEG: no two files are duplicates). What is done with it is fixed: lite0 is probed, and two trials of one
epoch run at one freeze depth, with a time limit that is never reached. Memory is that of the driver and all its
processes without memory maps, see memory.py; in brackets that of the driver alone. Disk is what run folder and cache
take together. With `--runs FOLDER` both are there: on a disk that has no room for the pixels, images are decoded
whenever they are needed.

The aim: 16 times the images in at most 17 times the time and 1.5 times the memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fit import BACKBONE, with_test_split
from memory import DiskWatch, MemoryWatch
from PIL import Image, ImageEnhance

TIMEOUT = 24 * 3600.0
CROP = 0.06
"""Largest share of a side that a variation lacks at each edge."""
BRIGHTNESS = 0.15


def write_variations(folder: Path, target: Path, factor: int, n_images: int | None) -> int:
    """`factor` variations of every image of `folder` (or of `n_images` of them); how many files that makes."""
    from autotl.data.folder import list_folder

    images = list_folder(folder)[0].images
    if n_images is not None:
        chosen = np.random.default_rng(0).permutation(len(images))[:n_images]
        images = tuple(images[place] for place in sorted(chosen))
    for place, image in enumerate(images):
        parent = target / ("test" if image.split == "test" else "train") / image.label
        parent.mkdir(parents=True, exist_ok=True)
        with Image.open(folder / image.path) as opened:
            original = opened.convert("RGB")
        for number in range(factor):
            generator = np.random.default_rng([place, number])
            _vary(original, generator).save(parent / f"{place:06d}-{number:02d}.jpg", quality=90)
    return factor * len(images)


def _vary(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    left, top, right, bottom = generator.uniform(0, CROP, 4)
    width, height = image.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    cropped = image.crop(tuple(round(value) for value in box))
    return ImageEnhance.Brightness(cropped).enhance(generator.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS))


def write_space(path: Path, depth: str) -> None:
    """The space `quick` with one epoch, one freeze depth and one kind of views."""
    from autotl.space.files import load_space, to_toml

    bound = int(depth) if depth.isdigit() else depth
    space = load_space("quick").narrow(freeze_depth=(bound, bound), augmentation=("light",))
    path.write_text(to_toml(space).replace("max_t = 3", "max_t = 1"), "utf-8")


def measured_fit(folder: Path, root: Path) -> None:
    """A fit of `folder`, stage by stage; prints a line of JSON with the stages and when they began and ended."""
    from autotl.console import Console
    from autotl.pipeline.context import make_context
    from autotl.pipeline.finish import finish
    from autotl.pipeline.ingest import read_data
    from autotl.pipeline.probe import make_advice, probe_backbones
    from autotl.pipeline.search import search
    from autotl.pipeline.validate import validate
    from autotl.records import TrialRecord
    from autotl.settings import Budget, FitSettings, Resources
    from autotl.storage import rundir
    from autotl.tune.session import RaySession

    stages: dict[str, tuple[float, float]] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        begun = time.time()
        yield
        stages[name] = begun, time.time()

    settings = FitSettings(folder, Budget(TIMEOUT, 2), search_space=str(root / "space.toml"), backbones=(BACKBONE,))
    with stage("check"):
        inputs = validate(settings)
    run = rundir.create(root / "run")
    context = make_context(settings, inputs, run, Console(quiet=True), time.time())
    probes: list[TrialRecord] = []
    trials: list[TrialRecord] = []
    with RaySession(Resources()) as ray:
        with stage("decode, embed"):
            data = read_data(context)
        with stage("probe"):
            probed = probe_backbones(context, data, probes.append)
        with stage("advise"):
            advice = make_advice(context, data, probed)
        with stage("wait for Ray"):
            choices = ray.choices()
        with stage("search"):
            search(context, data, probed, advice, choices, probes, trials.append)
        with stage("test"):
            finish(context, data, advice, [*probes, *trials], interrupted=False)
    statuses = [str(trial.status) for trial in trials]
    print(json.dumps({"stages": stages, "embedding": probed[0].prepared.seconds, "trials": statuses}))


def measure(folder: Path, depth: str, runs: Path | None) -> dict[str, Any]:
    """Seconds, peak bytes of memory, of the driver alone, and of disk, of every stage of a fit with an empty cache."""
    with tempfile.TemporaryDirectory(dir=runs) as temporary:
        write_space(Path(temporary, "space.toml"), depth)
        command = [sys.executable, __file__, str(folder), "--measured", temporary]
        environment = os_environment(AUTOTL_CACHE_DIR=f"{temporary}/cache")
        begun = time.perf_counter()
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process,
            MemoryWatch(process.pid) as watch,
            DiskWatch(Path(temporary)) as disk,
        ):
            printed, _ = process.communicate()
        seconds = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"the fit of {folder} ended with {process.returncode}")
    measured = json.loads(printed.splitlines()[-1])
    if set(measured["trials"]) != {"completed"}:
        raise SystemExit(f"not both trials came to their end: {measured['trials']}")
    rows: dict[str, tuple[float, int, int, int]] = {
        name: (end - begin, watch.peak(begin, end), watch.peak_of_first(begin, end), disk.peak(begin, end))
        for name, (begin, end) in measured["stages"].items()
    }
    rows["of which embedding"] = measured["embedding"], 0, 0, 0
    rows["in all"] = seconds, watch.peak(), watch.peak_of_first(), disk.peak()
    return rows


def os_environment(**changes: str) -> dict[str, str]:
    """This process's environment with changes."""
    import os

    return dict(os.environ) | changes


def scaling(folder: Path, factors: list[int], n_images: int | None, depth: str, runs: Path | None) -> None:
    """A column a factor: seconds and peak MB; at last the ratios to the first factor."""
    columns: list[tuple[int, dict[str, Any]]] = []
    with with_test_split(folder) as base:
        for factor in factors:
            with tempfile.TemporaryDirectory(prefix=f"{folder.name}-{factor}x-") as temporary:
                count = write_variations(base, Path(temporary), factor, n_images)
                columns.append((count, measure(Path(temporary), depth, runs)))
            print(f"{factor}x: {columns[-1][0]} images, {columns[-1][1]['in all'][0]:.1f} s", flush=True)
    print(f"{'':<20}" + "".join(f"{f'{count} images':>36}" for count, _ in columns))
    for name in columns[0][1]:
        print(f"{name:<20}" + "".join(f"{_cell(*rows[name]):>36}" for _, rows in columns))
    first = columns[0][1]["in all"]
    for (count, rows), factor in zip(columns, factors, strict=True):
        seconds, peak, *_ = rows["in all"]
        print(
            f"{count / columns[0][0]:.0f} times the images: {seconds / first[0]:.1f} times the time, "
            f"{peak / first[1]:.2f} times the memory (aim: {1.0625 * factor / factors[0]:.1f}, 1.5)"
        )


def _cell(seconds: float, peak: int, driver: int, disk: int) -> str:
    if not peak:
        return f"{seconds:.1f} s{'':27}"
    return f"{seconds:8.1f} s {peak / 2**20:6.0f} ({driver / 2**20:5.0f}) MB {disk / 2**20:6.0f} MB"


def main() -> None:
    """Run it, or, in a process of its own, one fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--images", type=int, help="so many images of DIR, drawn with a seed")
    parser.add_argument("--depth", default="all-2", help="freeze depth of the trials")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="where run folders and caches are")
    parser.add_argument("--measured", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measured is not None:
        measured_fit(chosen.folder, chosen.measured)
    else:
        scaling(chosen.folder, chosen.factors, chosen.images, chosen.depth, chosen.runs)


if __name__ == "__main__":
    main()
