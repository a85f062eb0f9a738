"""How fast each stage of the work is, against the plain way to do it, in one run and on one machine.

    python benchmarks/throughput.py frozen DIR [--images 1000]   embedding, decoding included, against timm + DataLoader
    python benchmarks/throughput.py training                     an epoch from cached activations against a live prefix
    python benchmarks/throughput.py depthwise                    gradients of depthwise convolutions in bfloat16

All with EfficientNet-Lite0 at 224 pixels. Take the ratios, not the images a second.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from autotl.compute.device import compute
from autotl.compute.memory import keep_freed_memory
from autotl.data.augment import recipe_named
from autotl.data.decode import IMAGE_SUFFIXES
from autotl.data.pixels import PixelStore, build_store
from autotl.frozen.activations import BATCH, ImageLoader
from autotl.frozen.engines import Forward, torch_forward
from autotl.frozen.openvino import OpenVinoModel
from autotl.frozen.prepare import PreparedBackbone, prepare
from autotl.models.backbone import Backbone, create, preprocessing_of
from autotl.models.catalog import find_entry
from autotl.models.partition import divide
from autotl.models.weights import load_pretrained, locate
from autotl.storage.cache import DiskCache
from autotl.threads import local_cpus

BACKBONE = "tf_efficientnet_lite0.in1k"
CPU = torch.device("cpu")
PLAIN_BATCH = 32
"""Of the DataLoader, and of training."""
ROUNDS = 3


def best_seconds(work: Callable[[], Any], rounds: int = 5) -> float:
    """The fastest of several runs after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def frozen(folder: Path, n_images: int) -> None:
    """Decode and embed, as a fit does; the bare forward pass of the engine it chose; timm with a DataLoader.

    All three use every core. Loading weights, converting them and choosing an engine are not counted for any.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)[:n_images]
    entry = find_entry(BACKBONE)
    with tempfile.TemporaryDirectory() as temporary:
        cache, rows = DiskCache(Path(temporary, "cache")), np.arange(len(paths))

        def decode() -> Any:
            names = [path.relative_to(folder).as_posix() for path in paths]
            return build_store(folder, names, 256, Path(temporary, "pixels.u8"), local_cpus())[0]

        def embed(store: Any) -> Any:
            return prepare(
                entry,
                store,
                rows,
                Path(temporary, "weights"),
                "bf16",
                allow_download=False,
                workers=local_cpus(),
                passes=4,
                cache=cache,
                on_progress=lambda done: None,
            )

        prepared = embed(decode())  # converts the model, which is kept, and leaves files and pages warm for all
        ways = {name: (round(speed), f"{100 * error:.2f}%") for name, (speed, error) in prepared.engines.items()}
        print(f"engines, images/s one batch at a time and error: {ways}; chosen: {prepared.engine}")
        decoding, embedding, bare = [], [], []
        for _ in range(ROUNDS):  # in turn, the fastest of each: other programs slow all of them down
            begun = time.perf_counter()
            store = decode()
            decoding.append(time.perf_counter() - begun)
            embedding.append(embed(store).seconds)
            bare.append(_bare_seconds(prepared, store, n_images))
        speeds = [len(paths) / min(seconds) for seconds in (decoding, embedding, bare)]
        print("decoding {:.0f} images/s, embedding {:.0f}, bare forward pass {:.0f}".format(*speeds))
        whole = 1 / (1 / speeds[0] + 1 / speeds[1])
        print(f"decoding and embedding {whole:.0f} images/s: {whole / speeds[2]:.2f} of the bare forward pass")
    plain = _plain_embedding(paths)
    print(f"timm and a DataLoader {plain:.0f} images/s: autotl is {whole / plain:.1f} times as fast")


def _bare_seconds(prepared: PreparedBackbone, store: PixelStore, n_images: int) -> float:
    """Seconds for `n_images` of the chosen engine on batches that lie ready, in as many one-core streams as `embed`."""
    model = load_pretrained(prepared.entry, locate(prepared.entry)).eval().to(memory_format=torch.channels_last)
    loader = ImageLoader(store.open(), replace(preprocessing_of(model), store_size=store.size), CPU, seed=0)
    engine, _, precision = prepared.engine.partition("-")
    if engine == "openvino":
        assert prepared.converted is not None
        streams = local_cpus()
        forward: Forward = OpenVinoModel(prepared.converted, "output", calls=streams, threads=streams)
    else:
        forward = torch_forward(model, CPU, "bf16" if precision == "bf16" else "fp32")
    ready = [loader.batch(np.arange(BATCH) % store.n_images, None, 0) for _ in range(local_cpus())]
    batches = [ready[number % len(ready)] for number in range(math.ceil(n_images / BATCH))]
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(local_cpus(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(forward, batches[: 2 * local_cpus()]))  # not counted
        begun = time.perf_counter()
        list(pool.map(forward, batches))
        seconds = time.perf_counter() - begun
    torch.set_num_threads(threads)
    return seconds


class _Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, paths: list[Path], transform: Callable[[Any], torch.Tensor]) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        from PIL import Image

        return self._transform(Image.open(self._paths[place]).convert("RGB"))


def _plain_embedding(paths: list[Path]) -> float:
    """Images a second of timm's own transform, a DataLoader and an eager model in float32."""
    from timm.data import create_transform, resolve_data_config

    entry = find_entry(BACKBONE)
    model = load_pretrained(entry, locate(entry)).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    loader = torch.utils.data.DataLoader(_Files(paths, transform), batch_size=PLAIN_BATCH, num_workers=local_cpus())
    begun = time.perf_counter()
    with torch.inference_mode():
        for batch in loader:
            model(batch)
    return len(paths) / (time.perf_counter() - begun)


def training() -> None:
    """Images a second of a training step on one core: cached, live prefix in bfloat16, and without fast depthwise."""
    keep_freed_memory()
    torch.set_num_threads(1)
    entry = find_entry(BACKBONE)
    with tempfile.TemporaryDirectory() as temporary:
        from autotl.models.weights import save_state

        state = Path(temporary, "state.safetensors")
        save_state(load_pretrained(entry, locate(entry)), state)
        backbone = create(BACKBONE, 10, state)
    backbone.model.to(memory_format=torch.channels_last)
    pixels = np.random.default_rng(0).integers(0, 256, (PLAIN_BATCH, 256, 256, 3), dtype=np.uint8)
    loader = ImageLoader(pixels, preprocessing_of(backbone.model), CPU, seed=0)
    rows = np.arange(PLAIN_BATCH)
    print("depth   cached  live prefix  ratio   images/s on one core, bfloat16, batch of 32")
    for depth in range(4, backbone.n_stages):
        cached, live = _training_speeds(backbone, depth, loader, rows)
        print(f"{depth:5d} {cached:8.0f} {live:12.0f} {cached / live:6.1f}")


def _training_speeds(backbone: Backbone, depth: int, loader: ImageLoader, rows: np.ndarray) -> tuple[float, float]:
    targets = torch.zeros(PLAIN_BATCH, dtype=torch.long)
    partition = divide(backbone, depth, loader.batch(rows[:2], None, 0))
    backbone.freeze(depth)
    backbone.train_mode(keep_statistics=True)
    with torch.inference_mode():
        stored = partition.prefix(loader.batch(rows, None, 0)).to(torch.bfloat16)
    stored = stored.clone().contiguous(memory_format=torch.channels_last)

    def step(forward: Callable[[], torch.Tensor]) -> None:
        with compute(CPU, "bf16"):
            loss = F.cross_entropy(forward().float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        backbone.model.zero_grad()

    views = iter(range(10**6))
    cached = best_seconds(lambda: step(lambda: partition.suffix(stored)))
    live = best_seconds(lambda: step(lambda: backbone.model(loader.batch(rows, recipe_named("light"), next(views)))))
    return PLAIN_BATCH / cached, PLAIN_BATCH / live


def depthwise() -> None:
    """Milliseconds of forward and backward of depthwise convolutions on one core, with and without the detours."""
    torch.set_num_threads(1)
    print("channels side kernel stride   native   detour  ratio   ms, 32 images in bfloat16")
    for channels, side, kernel, stride in ((672, 14, 5, 1), (240, 28, 3, 2), (672, 14, 5, 2), (144, 56, 5, 2)):
        x = torch.randn(32, channels, side, side).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, 1, kernel, kernel)
        x.requires_grad_()
        weight.requires_grad_()
        geometry = {"stride": stride, "padding": kernel // 2, "groups": channels}

        def native(x: Any = x, weight: Any = weight, geometry: Any = geometry) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                F.conv2d(x, weight, None, **geometry).sum().backward()

        def detour(x: Any = x, weight: Any = weight, geometry: Any = geometry) -> None:
            with compute(CPU, "bf16"):
                F.conv2d(x, weight, None, **geometry).sum().backward()

        slow, fast = 1000 * best_seconds(native, 3), 1000 * best_seconds(detour, 3)
        print(f"{channels:8d} {side:4d} {kernel:6d} {stride:6d} {slow:8.1f} {fast:8.1f} {slow / fast:6.1f}")


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="what", required=True)
    embedding = actions.add_parser("frozen")
    embedding.add_argument("folder", type=Path, metavar="DIR")
    embedding.add_argument("--images", type=int, default=1000)
    actions.add_parser("training")
    actions.add_parser("depthwise")
    chosen = parser.parse_args()
    if chosen.what == "frozen":
        frozen(chosen.folder, chosen.images)
    else:
        {"training": training, "depthwise": depthwise}[chosen.what]()


if __name__ == "__main__":
    main()
