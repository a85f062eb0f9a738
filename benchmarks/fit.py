"""What a whole fit gives: accuracy on held-out images, wall time, overhead, and what a killed run leaves.

    python benchmarks/fit.py sets DIR [DIR ...] [--timeout 300]   each folder, against a linear probe on lite0
    python benchmarks/fit.py demo                                 handwritten digits, as `make demo`
    python benchmarks/fit.py overhead                             40 trivial trials through the real trainable
    python benchmarks/fit.py kill                                 SIGKILL during the search, then load
    python benchmarks/fit.py start                                `autotl --help`, and what `import autotl` imports

A folder without a test split gets one: a seeded, stratified quarter, by links in a temporary folder. Trials are all but
the linear probes, seconds are of the whole process, "model" those until the first one is saved, GiB the most memory of
all its processes at once (memory.py).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from memory import MemoryWatch

TEST_SHARE = 0.25
BACKBONE = "tf_efficientnet_lite0.in1k"
AUTOTL = [sys.executable, "-m", "autotl.cli"]


@contextmanager
def with_test_split(folder: Path) -> Iterator[Path]:
    """The folder itself if it has a test split, else a temporary one of links with train/ and test/."""
    from autotl.data.folder import list_folder
    from autotl.data.splits import make_dataset

    listing, problems = list_folder(folder)
    if problems:
        raise SystemExit("\n".join(map(str, problems)))
    if any(image.split == "test" for image in listing.images):
        yield folder
        return
    dataset = make_dataset(listing, TEST_SHARE, seed=1)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-") as temporary:
        root = Path(temporary, folder.name)
        for path, label, split in zip(dataset.paths, dataset.labels, dataset.split, strict=True):
            target = root / ("test" if split == "val" else "train") / dataset.classes[label]
            target.mkdir(parents=True, exist_ok=True)
            (target / path.replace("/", "__")).symlink_to((folder / path).resolve())
        yield root


def linear_probe(folder: Path) -> float:
    """Test accuracy of logistic regression on lite0's embeddings, as it would be written by hand.

    Its strength is chosen on the validation images, then it is fitted on training and validation images together.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from autotl.data.folder import list_folder
    from autotl.data.pixels import build_store
    from autotl.data.splits import make_dataset
    from autotl.frozen.prepare import prepare
    from autotl.models.backbone import preprocessing_named
    from autotl.models.catalog import find_entry
    from autotl.storage.cache import DiskCache

    dataset = make_dataset(list_folder(folder)[0], 0.2, seed=0)
    with tempfile.TemporaryDirectory() as temporary:
        size = preprocessing_named(BACKBONE).store_size
        store, _ = build_store(folder, dataset.paths, size, Path(temporary, "pixels.u8"), os.cpu_count() or 1)
        prepared = prepare(
            find_entry(BACKBONE),
            store,
            np.arange(len(dataset.paths)),
            Path(temporary),
            "fp32",
            allow_download=False,
            workers=os.cpu_count() or 1,
            passes=1,
            cache=DiskCache(Path(temporary)),
            on_progress=lambda done: None,
        )
    parts = {name: dataset.indices(name) for name in ("train", "val", "test")}

    def fitted(rows: np.ndarray, strength: float) -> LogisticRegression:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        return model.fit(prepared.of(rows), dataset.labels[rows])

    def accuracy(model: LogisticRegression, rows: np.ndarray) -> float:
        return float(model.score(prepared.of(rows), dataset.labels[rows]))

    strengths = (1e-4, 1e-3, 1e-2, 1e-1)
    best = max(strengths, key=lambda strength: accuracy(fitted(parts["train"], strength), parts["val"]))
    return accuracy(fitted(np.union1d(parts["train"], parts["val"]), best), parts["test"])


@dataclass(frozen=True, slots=True)
class Run:
    """A fit in a process of its own: its exit code, output, wall seconds, those until a model was saved, and memory."""

    code: int
    printed: str
    complaint: str
    seconds: float
    first_model: float
    peak: int


def run_fit(root: Path, run: Path, timeout: float) -> Run:
    """`autotl fit` as a user starts it."""
    command = [*AUTOTL, "fit", str(root), "--timeout", str(timeout), "--metric", "accuracy", "--json"]
    begun, first, ended = time.perf_counter(), [float("nan")], threading.Event()
    process = subprocess.Popen(
        [*command, "--output", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def look() -> None:
        while not ended.wait(0.1):
            if (run / "model" / "model.json").exists():
                first[0] = time.perf_counter() - begun
                return

    looking = threading.Thread(target=look)
    looking.start()
    with MemoryWatch(process.pid) as watch:
        printed, complaint = process.communicate()
    seconds = time.perf_counter() - begun
    ended.set()
    looking.join()
    return Run(process.returncode, printed, complaint, seconds, first[0], watch.peak())


def fit_sets(folders: list[Path], timeout: float) -> None:
    """One row a folder."""
    heads = f"{'trials':>6} {'seconds':>8} {'limit':>6} {'model':>6} {'GiB':>5}"
    print(f"{'data':<14} {'probe':>7} {'autotl':>7} {heads}  winner")
    for folder in folders:
        with with_test_split(folder) as root, tempfile.TemporaryDirectory() as temporary:
            probe = linear_probe(root)
            run = run_fit(root, Path(temporary, "run"), timeout)
            if run.code:
                print(f"{folder.name:<14} rc {run.code}: {run.complaint[-500:]}", flush=True)
                continue
            result = json.loads(run.printed)
            config = result["winner"]["config"]
            how = f"{config['backbone']} depth {config['freeze_depth']} epoch {result['winner']['epoch']}"
            print(
                f"{folder.name:<14} {100 * probe:7.2f} {100 * result['test']['value']:7.2f} "
                f"{sum(result['trials'].values()):6d} {run.seconds:8.1f} {1.05 * timeout + 10:6.0f} "
                f"{run.first_model:6.1f} {run.peak / 2**30:5.2f}  {how}",
                flush=True,
            )


def demo() -> None:
    """The digits, with the time limit of `make demo`."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([*AUTOTL, "example", "digits", f"{temporary}/digits"], check=True)
        begun = time.perf_counter()
        command = [*AUTOTL, "fit", f"{temporary}/digits", "--timeout", "3m30s", "--output", f"{temporary}/run"]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        accuracy = 100 * result["test"]["value"]
        seconds = time.perf_counter() - begun
        print(f"digits: test accuracy {accuracy:.2f}% in {seconds:.0f} s, scenario {result['scenario']}")


def overhead(n_trials: int = 40) -> None:
    """Trials of one epoch on a few tiny images: wall time of the search beyond the time inside the trials."""
    from autotl.console import Console
    from autotl.pipeline.context import make_context
    from autotl.pipeline.ingest import read_data
    from autotl.pipeline.probe import make_advice, probe_backbones
    from autotl.pipeline.search import search
    from autotl.pipeline.validate import validate
    from autotl.records import TrialRecord
    from autotl.settings import Budget, FitSettings, Resources
    from autotl.storage import rundir
    from autotl.tune.session import RaySession

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        _write_trivial(root / "data")
        space = root / "trivial.toml"
        _write_trivial_space(space)
        settings = FitSettings(root / "data", Budget(600, n_trials), search_space=str(space), backbones=(BACKBONE,))
        inputs, run = validate(settings), rundir.create(root / "run")
        context = make_context(settings, inputs, run, Console(quiet=True), time.time())
        probes: list[TrialRecord] = []
        trials: list[TrialRecord] = []
        with RaySession(Resources()) as ray:
            data = read_data(context)
            probed = probe_backbones(context, data, probes.append)
            advice = make_advice(context, data, probed)
            choices = ray.choices()
            begun = time.perf_counter()
            slots = search(context, data, probed, advice, choices, probes, trials.append).schedule.slots
            seconds = time.perf_counter() - begun
    inside = sum(record.seconds for record in trials) / slots.count
    print(f"{len(trials)} trials, {slots.count} slots: {seconds:.1f} s, of which {inside:.1f} s inside trials")
    print(f"overhead {seconds - inside:.1f} s")


def _write_trivial(folder: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for place in range(10):
            noise = generator.integers(0, 40, (32, 32, 3))
            Image.fromarray((noise + level).astype(np.uint8)).save(folder / name / f"{place}.png")


def _write_trivial_space(path: Path) -> None:
    from autotl.space.files import load_space, to_toml

    space = load_space("quick")
    plain = to_toml(space).replace("max_t = 3", "max_t = 1").replace('low = "all-2"', 'low = "all"')
    path.write_text(plain, "utf-8")


def kill() -> None:
    """End a fit with SIGKILL after its first trial; a fresh process must load and use what is there."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        subprocess.run([*AUTOTL, "example", "digits", str(root / "digits")], check=True, stdout=subprocess.DEVNULL)
        run = root / "run"
        fit = subprocess.Popen(
            [*AUTOTL, "fit", str(root / "digits"), "--timeout", "300", "--quiet", "--output", str(run)]
        )
        clock = threading.Event()
        trials = run / "trials.jsonl"
        while fit.poll() is None and not (trials.exists() and '"origin": "advice"' in trials.read_text("utf-8")):
            clock.wait(0.5)
        fit.send_signal(signal.SIGKILL)
        fit.wait()
        command = [*AUTOTL, "evaluate", str(run), str(root / "digits"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        accuracy = json.loads(done.stdout)["accuracy"]["value"] if done.returncode == 0 else float("nan")
        print(f"killed with {fit.returncode}; loading it: rc {done.returncode}, test accuracy {100 * accuracy:.2f}%")


def start() -> None:
    """Seconds until help is shown, best of five, and heavy packages that importing autotl brings in (none)."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([*AUTOTL, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    script = "import sys, autotl; print([n for n in ('torch', 'timm', 'ray', 'optuna', 'scipy') if n in sys.modules])"
    heavy = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    print(f"autotl --help: {min(times):.2f} to {max(times):.2f} s; import autotl brings in {heavy}")


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="what", required=True)
    sets = actions.add_parser("sets")
    sets.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    sets.add_argument("--timeout", type=float, default=300)
    for name in ("demo", "overhead", "kill", "start"):
        actions.add_parser(name)
    chosen = parser.parse_args()
    if chosen.what == "sets":
        fit_sets(chosen.folders, chosen.timeout)
    else:
        {"demo": demo, "overhead": overhead, "kill": kill, "start": start}[chosen.what]()


if __name__ == "__main__":
    main()
