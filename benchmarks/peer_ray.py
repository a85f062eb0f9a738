"""Fine-tuning searched with Ray Tune, Optuna and ASHA, as their documentation shows it; run by peers.py.

    python benchmarks/peer_ray.py WORK TIMEOUT

A function trainable in eager float32 with a DataLoader and timm's transforms; what is trained (the head, the last two
stages, everything), learning rate, batch size and weight decay are searched; every epoch reports its accuracy with a
checkpoint; the best checkpoint predicts the test split. Uses nothing of autotl. WORK/manifest.csv holds path, label and
split of every image.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from ray import init, tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch.utils.data import DataLoader, Dataset

BACKBONE = "tf_efficientnet_lite0.in1k"
EPOCHS = 10
CLOSING_SHARE = 0.1
"""Of the time, for the start of Ray and the test split."""


class Images(Dataset):  # type: ignore[type-arg]
    """The images of a split; `names` are those of the classes (called `classes`, Ray would pickle torch's)."""

    def __init__(self, work: str, split: str, training: bool) -> None:
        with open(Path(work, "manifest.csv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.names = sorted({row["label"] for row in rows})
        self.rows = [row for row in rows if row["split"] == split]
        data = timm.data.resolve_data_config({}, model=timm.create_model(BACKBONE))
        self.transform = timm.data.create_transform(**data, is_training=training)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        row = self.rows[place]
        with Image.open(row["path"]) as image:
            return self.transform(image.convert("RGB")), self.names.index(row["label"])


def accuracy(model: torch.nn.Module, images: Images) -> float:
    """Share of the images that are classified correctly."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for batch, labels in DataLoader(images, batch_size=64, num_workers=1):
            right += int((model(batch).argmax(1) == labels).sum())
    return right / len(images)


def freeze(model: torch.nn.Module, trained: str) -> None:
    """Leave the gradients of what is trained: the "head", the "last" two stages and the head, or "all"."""
    if trained != "all":
        model.requires_grad_(False)
        parts = [model.get_classifier()]
        if trained == "last":
            parts += [*model.blocks[-2:], model.conv_head, model.bn2]
        for part in parts:
            part.requires_grad_(True)


def train(config: dict[str, Any]) -> None:
    """A trial."""
    training, validation = Images(config["work"], "train", True), Images(config["work"], "val", False)
    model = timm.create_model(BACKBONE, pretrained=True, num_classes=len(training.names))
    freeze(model, config["trained"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config["lr"], weight_decay=config["weight_decay"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    loader = DataLoader(training, batch_size=config["batch_size"], shuffle=True, num_workers=1)
    for _ in range(EPOCHS):
        model.train()
        for batch, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder, "model.pt"))
            reached = {"accuracy": accuracy(model, validation)}
            tune.report(reached, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    """Search, then predict the test split; prints {"accuracy": ...}, null where no trial had an epoch in time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("timeout", type=float, metavar="TIMEOUT")
    chosen = parser.parse_args()
    work, timeout = str(chosen.work.absolute()), chosen.timeout
    init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={
            "work": work,
            "trained": tune.choice(["head", "last", "all"]),
            "lr": tune.loguniform(1e-5, 1e-2),
            "batch_size": tune.choice([16, 32, 64]),
            "weight_decay": tune.loguniform(1e-5, 1e-1),
        },
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=2),
            num_samples=-1,
            time_budget_s=(1 - CLOSING_SHARE) * timeout,
        ),
        run_config=tune.RunConfig(storage_path=f"{work}/ray", verbose=0),
    )
    results = tuner.fit()
    with_model = [result for result in results if result.checkpoint is not None]
    if not with_model:
        print(json.dumps({"accuracy": None, "trials": len(results)}))
        return
    best = results.get_best_result(scope="all")
    checkpoint = best.get_best_checkpoint("accuracy", "max")
    images = Images(work, "test", False)
    model = timm.create_model(BACKBONE, num_classes=len(images.names))
    with checkpoint.as_directory() as folder:
        model.load_state_dict(torch.load(Path(folder, "model.pt"), weights_only=True))
    print(json.dumps({"accuracy": accuracy(model, images), "trials": len(results)}))


if __name__ == "__main__":
    main()
