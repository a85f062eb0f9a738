"""Fixtures for all tests: no network, no GPU, one thread, a small folder of coloured shapes, and a config."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing above imports huggingface_hub; child processes inherit it
os.environ["AUTOTL_CACHE_DIR"] = tempfile.mkdtemp(prefix="autotl-test-cache-")  # never the user's own
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # they say what happens on CPUs; benchmarks/gpu.py proves the rest
atexit.register(shutil.rmtree, os.environ["AUTOTL_CACHE_DIR"], ignore_errors=True)
# A shell starts what runs in the background with Ctrl-C ignored, and all that is started from there inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time, as many as take a second or two, and no folder for those that failed.
settings.register_profile("autotl", max_examples=100, deadline=None, derandomize=True, database=None)
settings.load_profile("autotl")

SHAPES = {"circle": (220, 40, 40), "square": (40, 60, 220), "triangle": (40, 200, 60)}


def _draw(kind: str, generator: np.random.Generator, side: int = 48) -> Image.Image:
    """A shape of its class's colour, anywhere on a noisy grey background."""
    image = Image.fromarray(generator.integers(100, 156, (side, side, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    size = int(generator.integers(side // 3, side // 2))
    left, top = (int(value) for value in generator.integers(1, side - size - 1, 2))
    box = (left, top, left + size, top + size)
    if kind == "circle":
        pen.ellipse(box, fill=SHAPES[kind])
    elif kind == "square":
        pen.rectangle(box, fill=SHAPES[kind])
    else:
        pen.polygon([(left, top + size), (left + size, top + size), (left + size // 2, top)], fill=SHAPES[kind])
    return image


@pytest.fixture(scope="session")
def write_shapes() -> Callable[..., Path]:
    """A function that writes `per_class` images of each class as root/CLASS/NN.png and returns root."""

    def write(root: Path, per_class: int = 12, seed: int = 0) -> Path:
        generator = np.random.default_rng(seed)
        for kind in SHAPES:
            (root / kind).mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                _draw(kind, generator).save(root / kind / f"{number:02d}.png")
        return root

    return write


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]) -> Path:
    """A learnable data set of 3 classes with 12 images each, in class folders. Read-only: copy it to change it."""
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def point() -> dict[str, Any]:
    """A config of the default space, for a backbone called deep with more than four stages."""
    return {
        "backbone": "deep",
        "initial_weights": "pretrained",
        "freeze_depth": 4,
        "learning_rate_factor": 0.1,
        "head_learning_rate_factor": 0.2,
        "layer_decay": 0.8,
        "weight_decay": 0.02,
        "augmentation": "medium",
        "label_smoothing": 0.05,
        "batch_size": 32,
    }
