"""Everything that needs a GPU, proved on one: one command, one table, and an exit code that says whether it holds.

    python benchmarks/gpu.py [--images 2048] [--epochs 6]

Needs torch, timm and scikit-learn; with Ray installed, a fit of the embedded example is run as well. Weights are random
and images are noise: what is proved is that it runs, that it is fast, and that times are predicted, not that it learns.

- Every family trains at freeze depths 0, half of its stages, and all of them: the loss is a number, and the seconds of
  a trial are within 1.5 times of what was predicted before it.
- Kept trials are averaged with their start.
- With little memory (a fraction of the card is allowed) batches are halved, and the epoch ends.
- Images a second, against a plain loop with timm in the same precision: embedding at least as fast, training behind
  four frozen stages at least twice as fast.

`--cpu` runs the same on a CPU with fewer families and images, to see that the command itself works.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from autotl.compute import device as device_module
from autotl.compute.device import compute, measure_device, pick_device
from autotl.data.pixels import PixelStore, open_store, write_shape
from autotl.frozen.activations import ImageLoader, batches, embed
from autotl.frozen.engines import torch_forward
from autotl.models.backbone import create
from autotl.models.weights import save_state
from autotl.pipeline.averaging import average_winner
from autotl.records import Status, TrialRecord
from autotl.storage.finished import keep_finished
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import save_model
from autotl.train.cost import StageSeconds, measure_backbones
from autotl.train.loop import FineTuning
from autotl.train.task import BackboneFiles, TrainingTask, save_manifest
from autotl.tune.pace import predictor

FAMILIES = (
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "resnet18",
    "convnext_nano",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "eva02_tiny_patch14_224",
)
CLASSES = tuple("abcdefghij")
STORE_SIZE = 256
BATCH_SIZE = 32
FACTOR = 1.5
"""Between the seconds that were predicted and those that a trial took."""
PLAIN_BATCH = 64
"""Images of a batch of the plain loop."""
FRACTION, SMALLEST = 0.02, 0.001
"""Of the card's memory, for the test of little memory; less and less until a whole batch does not fit."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    what: str
    found: str
    wanted: str
    holds: bool


class Bench:
    """A run folder with noise for images, and trials in it."""

    def __init__(self, folder: Path, n_images: int, epochs: int) -> None:
        self.folder, self.epochs = folder, epochs
        self._stages: dict[str, StageSeconds] = {}
        self.device = pick_device()
        self.precision = measure_device(self.device).precision
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (n_images, STORE_SIZE, STORE_SIZE, 3), dtype=np.uint8)
        pixels.tofile(folder / "pixels.u8")
        write_shape(PixelStore(folder / "pixels.u8", n_images, STORE_SIZE))
        split = np.where(np.arange(n_images) % 5 == 0, "val", "train")
        save_manifest(folder / "manifest.npz", np.arange(n_images) % len(CLASSES), split)
        self.store = open_store(folder / "pixels.u8")

    def task(self, name: str, *, measured: bool = False) -> TrainingTask:
        """A run with one backbone; `measured` times its stages first, as a search does."""
        state = self.folder / f"{name}.safetensors"
        if not state.exists():
            torch.manual_seed(0)
            save_state(create(name, len(CLASSES), None).model, state)
        n_stages = create(name, len(CLASSES), None).n_stages
        files = BackboneFiles("0", str(state), "", "", 1e-3, n_stages, 0.0, name)
        if measured:
            if name not in self._stages:  # once: later its kernels are there
                self._stages |= measure_backbones({name: (name, state)}, len(CLASSES), self.precision)
            engine = "torch-fp16" if self.device.type == "cuda" else ""
            files = replace(
                files, stages=self._stages[name], seconds_per_image=1 / self.embedding_rate(name), engine=engine
            )
        return TrainingTask(
            run_dir=str(self.folder / f"run-{name}"),
            store=str(self.folder / "pixels.u8"),
            manifest=str(self.folder / "manifest.npz"),
            classes=CLASSES,
            metric="accuracy",
            balanced=False,
            backbones={name: files},
            precision=self.precision,
            max_t=self.epochs,
            n_views=self.epochs,
            cache_dir=str(self.folder / "cache"),
            cache_limit=20 * 2**30,
            data_fingerprint="noise",
            seed=0,
            deadline=time.time() + 1e6,
            threads=torch.get_num_threads(),
            speed=1.0,
            provenance={},
            gpus=1.0,
        )

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def rate(self, work: Callable[[], Any], n_images: int) -> float:
        """Images a second, the second time."""
        work()
        self.wait()
        begun = time.perf_counter()
        work()
        self.wait()
        return n_images / (time.perf_counter() - begun)

    def embedding_rate(self, name: str) -> float:
        """Of autotl's embedding."""
        backbone = create(name, 0, None)
        backbone.model.eval().to(self.device, memory_format=torch.channels_last)
        loader = ImageLoader(self.store.open(), replace(backbone.preprocessing, store_size=STORE_SIZE), self.device, 0)
        forward = torch_forward(backbone.model, self.device, "fp16" if self.device.type == "cuda" else self.precision)
        rows = np.arange(self.store.n_images)
        return self.rate(lambda: embed(forward, loader, rows), len(rows))


def config(name: str, depth: int, weights: str = "pretrained") -> dict[str, Any]:
    """A point of the search space."""
    return {
        "backbone": name,
        "initial_weights": weights,
        "freeze_depth": depth,
        "learning_rate_factor": 0.1,
        "head_learning_rate_factor": 0.1,
        "layer_decay": 0.8,
        "weight_decay": 0.02,
        "augmentation": "light",
        "label_smoothing": 0.1,
        "batch_size": BATCH_SIZE,
    }


# -- what is proved --------------------------------------------------------------------------------------------------


def training(bench: Bench, name: str) -> Iterator[Row]:
    """Trials of a family at several depths, and the seconds they take."""
    task = bench.task(name, measured=True)
    n_stages = task.backbones[name].n_stages
    predict = predictor(task)
    for depth in (0, n_stages // 2, n_stages):
        point = config(name, depth)
        begun = time.perf_counter()
        tuning = FineTuning(task, point)
        losses = [tuning.start().train_loss] + [tuning.train_epoch().train_loss for _ in range(task.max_t)]
        bench.wait()
        seconds, predicted = time.perf_counter() - begun, predict(point, task.max_t, 0)
        ratio = max(seconds, predicted) / min(seconds, predicted)
        note = f" ({tuning.note})" if tuning.note else ""
        recorded = tuning._steps[tuning._images.is_divided].is_recorded or bench.device.type == "cpu"
        note += "" if recorded else " (its steps could not be recorded)"
        yield Row(
            f"{name}, freeze depth {depth}",
            f"loss {losses[-1]:.2f}, {seconds:.1f} s, predicted {predicted:.1f} s{note}",
            f"a number, within {FACTOR:g} times",
            bool(np.isfinite(losses[1:]).all()) and ratio <= FACTOR and recorded,
        )


def first_trial(bench: Bench, name: str) -> Iterator[Row]:
    """The first trial of a process, in which libraries choose their kernels."""
    task = bench.task(name, measured=True)
    point = config(name, task.backbones[name].n_stages // 2)
    predicted = predictor(task)(point, task.max_t, 0) + task.backbones[name].stages.first
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds = pool.submit(_seconds_of_a_trial, task.to_plain(), point).result()
    ratio = max(seconds, predicted) / min(seconds, predicted)
    found = f"{seconds:.1f} s, predicted {predicted:.1f} s"
    yield Row(f"{name}, the first trial of a process", found, f"within {FACTOR:g} times", ratio <= FACTOR)


def _seconds_of_a_trial(plain: dict[str, Any], point: dict[str, Any]) -> float:
    begun = time.perf_counter()
    tuning = FineTuning(TrainingTask.from_plain(plain), point)
    tuning.start()
    for _ in range(tuning.task.max_t):
        tuning.train_epoch()
    return time.perf_counter() - begun


def averaging(bench: Bench, name: str) -> Iterator[Row]:
    """Two kept trials and their start."""
    task = bench.task(name)
    run = RunDir(Path(task.run_dir))
    run.path.mkdir(exist_ok=True)
    n_stages = task.backbones[name].n_stages
    tuning = FineTuning(task, config(name, n_stages // 2))
    report = tuning.train_epoch()
    card = tuning.card(report, "one")
    save_model(run.model, tuning.backbone.model.state_dict(), card)
    for trial in ("one", "two"):
        keep_finished(run.finished, replace(card, trial_id=trial), tuning.trained())
    probe = TrialRecord(0, "probe", config(name, n_stages), Status.COMPLETED, card.score, 0, 1.0, origin="probe")
    said = average_winner(task, run, probe)
    yield Row(f"{name}, averaging", said, "no error", said.startswith(("averaged", "averages")))


def little_memory(bench: Bench, name: str) -> Iterator[Row]:
    """An epoch of the whole model where a batch does not fit the memory that is allowed."""
    task = bench.task(name)
    fraction = FRACTION
    try:
        while fraction > SMALLEST:
            tuning = None
            gc.collect()  # a trial is part of a cycle of references
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(fraction)
            tuning = FineTuning(task, config(name, 0))
            loss = tuning.train_epoch().train_loss
            if tuning._part < BATCH_SIZE:
                break
            fraction *= 0.8
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    found = f"loss {loss:.2f} in parts of {tuning._part} with {fraction:.4f} of the memory"
    yield Row(f"{name}, little memory", found, f"parts under {BATCH_SIZE}", tuning._part < BATCH_SIZE)


def speed(bench: Bench, name: str) -> Iterator[Row]:
    """Against a plain loop."""
    model = timm.create_model(name, num_classes=0).eval().to(bench.device, memory_format=torch.channels_last)
    pixels, rows = bench.store.open(), np.arange(bench.store.n_images)

    def images_of(some: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(pixels[some][:, 16:-16, 16:-16]).to(bench.device).permute(0, 3, 1, 2).float() / 255
        return images.contiguous(memory_format=torch.channels_last)

    number_format = torch.float16 if bench.device.type == "cuda" else torch.bfloat16

    def plain_embedding() -> None:
        with torch.inference_mode(), torch.autocast(bench.device.type, dtype=number_format):
            for some in batches(rows, PLAIN_BATCH):
                model(images_of(some)).float().cpu()

    ours, plain = bench.embedding_rate(name), bench.rate(plain_embedding, len(rows))
    found = f"{ours:.0f} against {plain:.0f} images/s: {ours / plain:.2f}"
    yield Row(f"{name}, embedding", found, "at least 1.0 times", ours >= plain)
    yield _training_speed(bench, name, images_of)


def _training_speed(bench: Bench, name: str, images_of: Callable[[np.ndarray], torch.Tensor]) -> Row:
    task = bench.task(name)
    depth = min(4, task.backbones[name].n_stages - 1)
    tuning = FineTuning(replace(task, max_t=10**6), config(name, depth))
    for _ in range(task.n_views):  # views are made once
        tuning.train_epoch()
    n_images = len(tuning._images.train_rows)
    ours = bench.rate(tuning.train_epoch, n_images)
    backbone = create(name, len(CLASSES), None)
    backbone.model.to(bench.device, memory_format=torch.channels_last)
    backbone.freeze(depth)
    optimizer = torch.optim.AdamW([p for p in backbone.model.parameters() if p.requires_grad], 1e-4, fused=True)
    labels = torch.from_numpy(tuning._images.labels).to(bench.device)

    def plain_epoch() -> None:
        backbone.train_mode(keep_statistics=True)
        for some in batches(tuning._images.train_rows, BATCH_SIZE):
            optimizer.zero_grad(set_to_none=True)
            with compute(bench.device, bench.precision):
                logits = backbone.model(images_of(some))
            torch.nn.functional.cross_entropy(logits.float(), labels[torch.from_numpy(some)]).backward()
            optimizer.step()
        backbone.model.eval()
        with torch.inference_mode(), compute(bench.device, bench.precision):
            for some in batches(tuning._images.val_rows, BATCH_SIZE):
                backbone.model(images_of(some))

    plain = bench.rate(plain_epoch, n_images)
    found = f"{ours:.0f} against {plain:.0f} images/s: {ours / plain:.2f}"
    return Row(f"{name}, training at freeze depth {depth}", found, "at least 2.0 times", ours >= 2 * plain)


def fitting(bench: Bench) -> Iterator[Row]:
    """A whole fit, with Ray."""
    command = [sys.executable, "-m", "autotl.cli"]
    environment = os.environ | {"AUTOTL_CACHE_DIR": str(bench.folder / "fit-cache"), "HF_HUB_OFFLINE": "1"}
    for arguments in (
        ["example", "digits", str(bench.folder / "digits")],
        ["fit", str(bench.folder / "digits"), "--timeout", "60", "--json", "--output", str(bench.folder / "fit")],
    ):
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            yield Row("a fit of digits", f"exit code {done.returncode}: {done.stderr[-300:]}", "0", False)
            return
    result = json.loads(done.stdout)
    found = f"validation {result['validation']['value']:.3f}, {result['trials']}, {result['seconds']:.0f} s"
    yield Row("a fit of digits", found, "above 0.9", result["validation"]["value"] > 0.9)


# -- the table -------------------------------------------------------------------------------------------------------


def collect(name: str, rows: Callable[[], Iterator[Row]]) -> list[Row]:
    """The rows, or one that says what went wrong."""
    found: list[Row] = []
    try:
        found.extend(rows())
    except Exception as error:
        found.append(Row(name, f"{type(error).__name__}: {error}".splitlines()[0][:200], "no error", False))
    for row in found:
        print(f"| {row.what} | {row.found} | {row.wanted} | {'yes' if row.holds else 'NO'} |", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--families", nargs="+", default=FAMILIES, metavar="NAME")
    parser.add_argument("--cpu", action="store_true", help="without a GPU: only to see that the command works")
    chosen = parser.parse_args()
    if not torch.cuda.is_available() and not chosen.cpu:
        print("no CUDA device is to be seen", file=sys.stderr)
        return 2
    if chosen.cpu:
        device_module.pick_device = lambda: torch.device("cpu")
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    print(f"{card}, {time.strftime('%Y-%m-%d')}, torch {torch.__version__}, timm {timm.__version__}\n")
    print("| what | found | wanted | holds |\n|---|---|---|---|")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        bench = Bench(Path(folder), chosen.images, chosen.epochs)
        for name in chosen.families:
            rows += collect(name, partial(training, bench, name))
        first = chosen.families[0]
        if not chosen.cpu:
            rows += collect("the first trial", partial(first_trial, bench, first))
        rows += collect("averaging", partial(averaging, bench, first))
        if not chosen.cpu:
            rows += collect("little memory", partial(little_memory, bench, first))
        rows += collect("speed", partial(speed, bench, first))
        if importlib.util.find_spec("ray") and not chosen.cpu:
            rows += collect("a fit", partial(fitting, bench))
    short = [row.what for row in rows if not row.holds]
    print(f"\n{len(rows) - len(short)} of {len(rows)} hold" + (f"; not: {', '.join(short)}" if short else ""))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
