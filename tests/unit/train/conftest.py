"""A run on noise with a small model of random weights, and a config for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from autotl.data.pixels import PixelStore, write_shape
from autotl.models.backbone import create
from autotl.models.weights import save_state
from autotl.train.task import BackboneFiles, TrainingTask, save_manifest

NAME = "test_resnet.r160_in1k"
N_IMAGES, SIDE = 12, 64


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    """Noise in two classes, eight images to train on and four to validate with."""
    root = tmp_path_factory.mktemp("task")
    torch.manual_seed(0)
    backbone = create(NAME, 2, None)
    save_state(backbone.model, root / "state.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (N_IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    pixels.tofile(root / "pixels.u8")
    write_shape(PixelStore(root / "pixels.u8", N_IMAGES, SIDE))
    save_manifest(root / "manifest.npz", np.arange(N_IMAGES) % 2, np.repeat(["train", "val"], [8, 4]))
    return TrainingTask(
        run_dir=str(root / "run"),
        store=str(root / "pixels.u8"),
        manifest=str(root / "manifest.npz"),
        classes=("a", "b"),
        metric="accuracy",
        balanced=False,
        backbones={
            NAME: BackboneFiles("0", str(root / "state.safetensors"), "", "", 1e-3, backbone.n_stages, 0.01, NAME)
        },
        precision="fp32",
        max_t=2,
        n_views=2,
        cache_dir=str(root / "cache"),
        cache_limit=2**30,
        data_fingerprint="noise",
        seed=0,
        deadline=1e12,
        threads=1,
        speed=1.0,
        provenance={},
    )


@pytest.fixture(scope="session")
def config() -> dict[str, Any]:
    """Two stages frozen, and no augmentation: a single view."""
    return {
        "backbone": NAME,
        "initial_weights": "pretrained",
        "freeze_depth": 2,
        "learning_rate_factor": 0.1,
        "head_learning_rate_factor": 0.5,
        "layer_decay": 0.8,
        "weight_decay": 0.01,
        "augmentation": "none",
        "label_smoothing": 0.0,
        "batch_size": 4,
    }
