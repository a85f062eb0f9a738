"""The subsets of a data set made ready for `oracle.py`: pixels, weights, embeddings, heads on disk, computed once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from subsets import SUBSETS, SubsetData

from autotl.compute.device import measure_device, pick_device
from autotl.data.pixels import PixelStore, build_store
from autotl.frozen.activations import ImageLoader, batches
from autotl.frozen.prepare import PreparedBackbone, prepare
from autotl.models.backbone import create, preprocessing_named
from autotl.models.catalog import find_entry
from autotl.models.partition import divide
from autotl.storage.cache import DiskCache, default_folder
from autotl.storage.rundir import fingerprint, read_json, write_json
from autotl.train.metrics import all_metrics
from autotl.train.probe import SPREAD_FLOOR, START_FLOOR, Probe, fit_probe, save_head
from autotl.train.task import BackboneFiles, save_manifest

LITE0, LITE1, LITE2 = BACKBONES = tuple(f"tf_efficientnet_lite{number}.in1k" for number in range(3))
Rows = NDArray[np.int64]
Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ReadySet:
    """A set with its pixels, weights and embeddings on disk in `folder`; `facts` is what `ready.json` holds."""

    data: SubsetData
    folder: Path
    facts: dict[str, Any]

    def embeddings(self, backbone: str) -> Features:
        """Of all images of the set, shape (images, dimensions)."""
        loaded: Features = np.load(self.folder / f"{backbone}.npy")
        return loaded

    def stages(self) -> dict[int, Features]:
        """Pooled output of lite0's stages by freeze depth, shape (images, channels); test images have none (zeros)."""
        with np.load(self.folder / "stages.npz") as arrays:
            return {int(depth): arrays[depth] for depth in arrays.files}

    def probe(self, subset: str, features: Features, floor: float = SPREAD_FLOOR) -> Probe:
        """The linear probe on the subset's training images; `floor` as for `fit_probe`."""
        train, val = (np.flatnonzero(self.data.splits[subset] == name) for name in ("train", "val"))
        labels = self.data.labels
        return fit_probe(
            features[train], labels[train], features[val], labels[val], len(self.data.classes), floor=floor
        )

    def manifest(self, subset: str, evaluated: str) -> Path:
        """Labels and split of a subset for `TrainingTask`, with the split `evaluated` in the place of validation."""
        return self.folder / f"{subset}-{evaluated}.npz"

    def head(self, subset: str) -> Path:
        """A head on lite0's features on a subset, where fine-tuning starts from."""
        return self.folder / f"{subset}-head.npz"

    def metrics(self, subset: str, split: str, probabilities: Features) -> dict[str, float]:
        """All metrics of the probabilities of a split's images."""
        return all_metrics(probabilities, self.data.labels[self.data.splits[subset] == split])


def make_ready(data: SubsetData, work: Path) -> ReadySet:
    """Decode, embed with the three backbones and pool lite0's stages, once for all subsets and processes.

    Raises:
        SystemExit: if the folder is no longer what the table was begun with.
    """
    folder = work / f"{data.name}-{data.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [(data.root / path).stat().st_size for path in data.paths]
    splits = {subset: split.tolist() for subset, split in data.splits.items()}
    stands_for = fingerprint([data.name, data.paths, sizes, splits])
    with FileLock(folder / "ready.lock"):
        if not (folder / "ready.json").exists():
            facts = _build(data, folder) | {"fingerprint": stands_for}
            _write_subsets(ReadySet(data, folder, facts))
            write_json(folder / "ready.json", facts)  # last: a killed process leaves none, and all is made again
    facts = read_json(folder / "ready.json")
    if facts["fingerprint"] != stands_for:
        raise SystemExit(f"{data.root} or its subsets have changed since {folder} was made: begin a new table")
    return ReadySet(data, folder, facts)


def _build(data: SubsetData, folder: Path) -> dict[str, Any]:
    precision = measure_device(pick_device()).precision
    size = max(preprocessing_named(name).store_size for name in BACKBONES)
    store, decoded = build_store(data.root, data.paths, size, folder / "pixels.u8", workers=1)
    if decoded.unreadable:
        raise SystemExit(f"cannot be decoded: {decoded.unreadable}")
    facts: dict[str, Any] = {"precision": precision, "backbones": {}}
    for name in BACKBONES:
        prepared = prepare(
            find_entry(name),
            store,
            np.arange(len(data.paths)),
            folder / "weights",
            precision,
            allow_download=False,
            workers=1,
            passes=4 if name == LITE0 else 1,
            cache=DiskCache(default_folder()),
            on_progress=lambda done: None,
        )
        np.save(folder / f"{name}.npy", prepared.embeddings)
        facts["backbones"][name] = _facts_of(prepared)
        if name == LITE0:
            stages = pool_stages(store, prepared, np.flatnonzero(data.splits[next(iter(SUBSETS))] != "test"))
            by_name: dict[str, Any] = {str(depth): pooled for depth, pooled in stages.items()}
            np.savez(folder / "stages.npz", **by_name)
    return facts


def _write_subsets(ready: ReadySet) -> None:
    for subset, split in ready.data.splits.items():
        for evaluated in ("val", "test"):
            own = np.where(split == evaluated, "val", np.where(split == "train", "train", ""))
            save_manifest(ready.manifest(subset, evaluated), ready.data.labels, own)
        save_head(ready.probe(subset, ready.embeddings(LITE0), START_FLOOR), ready.head(subset))


def _facts_of(prepared: PreparedBackbone) -> dict[str, Any]:
    files = BackboneFiles(
        weights_sha256=prepared.weights_sha256,
        state=str(prepared.state),
        converted=str(prepared.converted or ""),
        head="",
        source_learning_rate=prepared.entry.adamw_lr,
        n_stages=prepared.n_stages,
        seconds_per_image=1 / prepared.images_per_second,
        timm_name=prepared.entry.timm_name,
    )
    return asdict(files)


def pool_stages(store: PixelStore, prepared: PreparedBackbone, rows: Rows) -> dict[int, Features]:
    """The input of every stage's boundary, averaged over its positions; zeros for images that are not in `rows`."""
    backbone = create(prepared.entry.name, 0, prepared.state)
    backbone.model.eval().to(memory_format=torch.channels_last)
    preprocessing = replace(backbone.preprocessing, store_size=store.size)
    loader = ImageLoader(store.open(), preprocessing, torch.device("cpu"), seed=0)
    pooled: dict[int, Features] = {}
    partitions = [divide(backbone, depth, loader.batch(rows[:2], None, 0)) for depth in range(1, backbone.n_stages)]
    for places in batches(rows):
        reached: dict[int, torch.Tensor] = {}
        handles = [partition.observe(partial(reached.__setitem__, partition.depth)) for partition in partitions]
        with torch.inference_mode():
            backbone.model(loader.batch(places, None, 0))
        for handle in handles:
            handle.remove()
        for depth, tensor in reached.items():
            everything = pooled.setdefault(depth, np.zeros((store.n_images, tensor.shape[1]), dtype=np.float32))
            everything[places] = tensor.mean(dim=(2, 3)).numpy()
    return pooled
