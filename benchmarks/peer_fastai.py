"""fastai's `fine_tune` with timm's lite0; run by peers.py with the Python of an environment that has it.

    PYTHON benchmarks/peer_fastai.py WORK TIMEOUT

One epoch with a frozen body and five with all of it, the documented way; fastai keeps no time limit, so that training
is ended when the time is up. Uses nothing of autotl. WORK/manifest.csv holds path, label and split of every image;
timm finds the weights in the model hub's cache below HF_HOME.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
from fastai.vision.all import (
    Callback,
    CancelFitException,
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    vision_learner,
)

EPOCHS = 5
CLOSING_SHARE = 0.1
"""Of the time, for the test split."""


class Deadline(Callback):  # type: ignore[misc]
    """Ends training at a time."""

    def __init__(self, at: float) -> None:
        self.at = at

    def before_batch(self) -> None:
        """Asked before every batch."""
        if time.monotonic() > self.at:
            raise CancelFitException


def main() -> None:
    """Fine-tune and predict the test split; prints {"accuracy": ...}."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("timeout", type=float, metavar="TIMEOUT")
    chosen = parser.parse_args()
    work, timeout = chosen.work, chosen.timeout
    frame = pd.read_csv(work / "manifest.csv", dtype=str, keep_default_na=False)
    known = frame[frame["split"] != "test"].assign(is_valid=lambda rows: rows["split"] == "val")
    test = frame[frame["split"] == "test"]
    columns: dict[str, Any] = {"fn_col": "path", "label_col": "label", "valid_col": "is_valid"}
    loaders = ImageDataLoaders.from_df(
        known, path="/", item_tfms=Resize(256), batch_tfms=aug_transforms(size=224), bs=32, num_workers=2, **columns
    )
    learner = vision_learner(loaders, "tf_efficientnet_lite0.in1k", metrics=accuracy)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS, cbs=Deadline(begun + (1 - CLOSING_SHARE) * timeout))
        predictions, targets = learner.get_preds(dl=loaders.test_dl(test, with_labels=True))
    print(json.dumps({"accuracy": float((predictions.argmax(1) == targets).float().mean())}))


if __name__ == "__main__":
    main()
