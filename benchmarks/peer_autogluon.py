"""AutoGluon's MultiModalPredictor on timm's lite0; run by peers.py with the Python of an environment that has it.

    PYTHON benchmarks/peer_autogluon.py WORK TIMEOUT

Uses nothing of autotl. WORK/manifest.csv holds path, label and split of every image; timm finds the weights in the
model hub's cache below HF_HOME.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from autogluon.multimodal import MultiModalPredictor


def main() -> None:
    """Fit within the time and evaluate on the test split; prints {"accuracy": ...}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("timeout", type=float, metavar="TIMEOUT")
    chosen = parser.parse_args()
    work, timeout = chosen.work, chosen.timeout
    frame = pd.read_csv(work / "manifest.csv", dtype=str, keep_default_na=False).rename(columns={"path": "image"})
    parts = {name: part[["image", "label"]].reset_index(drop=True) for name, part in frame.groupby("split")}
    problem = "binary" if frame["label"].nunique() == 2 else "multiclass"
    predictor = MultiModalPredictor(
        label="label", problem_type=problem, eval_metric="accuracy", path=str(work / "autogluon"), verbosity=1
    )
    predictor.fit(
        train_data=parts["train"],
        tuning_data=parts["val"],
        time_limit=int(timeout),
        hyperparameters={
            "model.names": ["timm_image"],
            "model.timm_image.checkpoint_name": "tf_efficientnet_lite0.in1k",
        },
    )
    print(json.dumps({"accuracy": float(predictor.evaluate(parts["test"], metrics=["accuracy"])["accuracy"])}))


if __name__ == "__main__":
    main()
