"""autotl against its neighbours: the same splits, the same weights (lite0), the same cores.

    python benchmarks/peers.py DIR [DIR ...] [--timeout 300] [--peers probe ray autotl]
        [--with autogluon fastai --autogluon-python PATH --fastai-python PATH]

probe      logistic regression on lite0's embeddings, written by hand (fit.py)
ray        Ray Tune, Optuna and ASHA over what is trained, rates and batch size, as documented (peer_ray.py)
autotl     `autotl fit` with lite0 alone
autogluon  AutoGluon's MultiModalPredictor on timm's lite0 (peer_autogluon.py), in an environment of its own
fastai     fastai's `fine_tune` with timm's lite0 (peer_fastai.py), in an environment of its own

A row a peer: test accuracy, wall seconds from the start of its process to its end, and peak memory without memory maps
(memory.py). Every peer gets the same time limit, except the probe, which needs none. Nothing is downloaded: the
bundled weights are laid into a model hub's cache for those that look there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fit import AUTOTL, BACKBONE, linear_probe, with_test_split
from memory import MemoryWatch

HERE = Path(__file__).resolve().parent
REVISION = "0" * 40
PEERS = ("probe", "ray", "autotl")
EXTERNAL = ("autogluon", "fastai")
PATIENCE = 4.0
"""A peer that takes so many times the time limit, and ten minutes, is ended."""


def write_work(root: Path, work: Path) -> None:
    """What the peers are given: manifest.csv (path, label, split) with autotl's own splits, and weights in a hub cache.

    The splits are those of `autotl fit` with its default settings.
    """
    from autotl.data.folder import list_folder
    from autotl.data.splits import make_dataset

    dataset = make_dataset(list_folder(root)[0], 0.2, seed=0)
    with open(work / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        for path, label, split in zip(dataset.paths, dataset.labels, dataset.split, strict=True):
            writer.writerow((str((root / path).absolute()), dataset.classes[label], split))
    _write_hub_cache(work / "hub" / "hub")


def _write_hub_cache(hub: Path) -> None:
    """The bundled weights under timm's names, where `timm.create_model(pretrained=True)` finds them offline."""
    import timm
    import torch
    from safetensors.torch import save_file

    from autotl.models.catalog import find_entry
    from autotl.models.weights import locate

    names = timm.create_model(BACKBONE, pretrained=False).state_dict()
    tensors = torch.load(locate(find_entry(BACKBONE)), map_location="cpu", weights_only=True).values()
    snapshot = hub / f"models--timm--{BACKBONE}" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    state = {name: tensor.contiguous() for name, tensor in zip(names, tensors, strict=True)}
    save_file(state, snapshot / "model.safetensors")
    config = {"architecture": BACKBONE.partition(".")[0], "num_classes": 1000}
    (snapshot / "config.json").write_text(json.dumps(config), "utf-8")
    references = snapshot.parent.parent / "refs"
    references.mkdir()
    (references / "main").write_text(REVISION, "utf-8")


def command_of(peer: str, root: Path, work: Path, timeout: float, pythons: dict[str, Path]) -> list[str]:
    """How a peer is called; its last line of output is JSON."""
    if peer == "probe":
        return [sys.executable, str(HERE / "peers.py"), str(root), "--probe-only"]
    if peer == "autotl":
        options = ["--timeout", str(timeout), "--metric", "accuracy", "--backbone", BACKBONE, "--json"]
        return [*AUTOTL, "fit", str(root), *options, "--output", str(work / "run")]
    python = str(pythons.get(peer, sys.executable))
    return [python, str(HERE / f"peer_{peer}.py"), str(work), str(timeout)]


def run(peer: str, root: Path, timeout: float, pythons: dict[str, Path]) -> tuple[str, float, int]:
    """One peer in a process of its own: what it reached or why not, wall seconds, peak bytes."""
    with tempfile.TemporaryDirectory(prefix=f"{peer}-") as temporary:
        work = Path(temporary)
        write_work(root, work)
        environment = os.environ | {
            "HF_HOME": str(work / "hub"),
            "HF_HUB_OFFLINE": "1",
            "AUTOTL_CACHE_DIR": str(work / "cache"),  # nobody finds anything that an earlier run left
        }
        begun = time.perf_counter()
        with (
            open(work / "errors", "w+", encoding="utf-8") as errors,
            subprocess.Popen(
                command_of(peer, root, work, timeout, pythons),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=work,
            ) as process,
            MemoryWatch(process.pid) as watch,
        ):
            try:
                printed, _ = process.communicate(timeout=PATIENCE * timeout + 600)
            except subprocess.TimeoutExpired:
                process.terminate()
                printed, _ = process.communicate()
            seconds = time.perf_counter() - begun
            errors.seek(0)
            complaint = errors.read().strip().splitlines()
    return _outcome(peer, process.returncode, printed, complaint), seconds, watch.peak()


def _outcome(peer: str, returncode: int, printed: str, complaint: list[str]) -> str:
    if returncode:
        cause = next((line for line in complaint if re.match(r"[\w.]*(Error|Exception)\b", line)), "no exception named")
        return f"ended with {returncode}: {cause[:100]}"
    result: dict[str, Any] = json.loads(printed[printed.index("{") :] if peer == "autotl" else printed.splitlines()[-1])
    accuracy = result["test"]["value"] if peer == "autotl" else result["accuracy"]
    return "no model in time" if accuracy is None else f"{100 * accuracy:.2f}%"


def compare(folder: Path, peers: list[str], timeout: float, pythons: dict[str, Path]) -> None:
    """A row a peer."""
    with with_test_split(folder.resolve()) as root:
        for peer in peers:
            outcome, seconds, peak = run(peer, root, timeout, pythons)
            print(f"{folder.name:<14} {peer:<10} {seconds:8.1f} {peak / 2**20:10.0f}  {outcome}", flush=True)


def main() -> None:
    """Check what was asked for, then run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--with", dest="external", nargs="+", choices=EXTERNAL, default=[])
    for name in EXTERNAL:
        parser.add_argument(f"--{name}-python", type=Path, help=f"Python of an environment that has {name}")
    parser.add_argument("--probe-only", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.probe_only:
        print(json.dumps({"accuracy": linear_probe(chosen.folders[0])}))
        return
    pythons = {}
    for name in chosen.external:
        path = getattr(chosen, f"{name}_python")
        if path is None:
            parser.error(f"--with {name} needs --{name}-python PATH, the Python of an environment that has {name}")
        if not os.access(path, os.X_OK):
            parser.error(f"--{name}-python {path}: no such program")
        if subprocess.run([path, "-c", f"import {name}"], capture_output=True).returncode:
            parser.error(f"--{name}-python {path}: that environment does not have {name}")
        pythons[name] = path.absolute()
    print(f"{'data':<14} {'peer':<10} {'seconds':>8} {'peak MB':>10}  test accuracy   ({chosen.timeout:g} s given)")
    for folder in chosen.folders:
        compare(folder, [*chosen.peers, *chosen.external], chosen.timeout, pythons)


if __name__ == "__main__":
    main()
