"""Memory of the driver over a long search: it has to be flat.

    python benchmarks/driver_memory.py [--trials 300]

Trials train nothing and end at once, so that what grows is what the driver keeps of them: Ray Tune's tables, Optuna's
study and autotl's records. Prints anonymous memory (without files and what libraries share) every 50 trials, and the
growth a trial from the 50th on.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from autotl import clock
from autotl.records import TrialRecord
from autotl.settings import Resources
from autotl.space.files import load_space
from autotl.storage.rundir import create
from autotl.tune.runner import SearchPlan, run_search
from autotl.tune.session import RaySession

EVERY = 50
EPOCHS = 10


def main() -> None:
    """Search, and look at the memory as trials end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    chosen = parser.parse_args()
    seen: dict[int, float] = {}

    def look(record: TrialRecord) -> None:
        if (record.number + 1) % EVERY == 0:
            seen[record.number + 1] = anonymous_mib()
            print(f"after {record.number + 1:4} trials: {seen[record.number + 1]:7.1f} MiB", flush=True)

    with tempfile.TemporaryDirectory() as folder, RaySession(Resources(slots=2, cpus_per_trial=1)) as ray:
        run = create(Path(folder) / "run")
        run.cache.mkdir()
        task: Any = SimpleNamespace(seed=0, max_t=EPOCHS, deadline=clock.now() + 3600, to_plain=dict)
        plan = SearchPlan(
            run=run,
            task=task,
            space=load_space("default").narrow(backbone=("pretended",)),
            n_stages={"pretended": 8},
            start_points=[],
            n_trials=chosen.trials,
            slots=ray.wait(),
            trainable=pretended(),
            predict=lambda config, epochs, views_from: 0.01 * epochs,
        )
        run_search(plan, look)
    first, last = min(seen), max(seen)
    grown = 1024 * (seen[last] - seen[first]) / max(1, last - first)
    print(f"{grown:.0f} KiB a trial of {EPOCHS} epochs, from the {first}th to the {last}th")


def anonymous_mib() -> float:
    """Of this process."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text("ascii"))
    return int(found.group(1)) / 1024 if found else math.nan


def pretended() -> type:
    """A trainable without training; local, so that Ray sends it by value."""
    import os
    import random

    from ray import tune

    class Pretended(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, config: dict[str, Any]) -> bool:
            self.epoch, self.goal = -1, random.random()
            return True

        def step(self) -> dict[str, Any]:
            self.epoch += 1
            score = self.goal * self.epoch / EPOCHS
            done = self.epoch == EPOCHS
            return {
                "score": score,
                "train_loss": 1.0,
                "epoch": self.epoch,
                "best_score": score if self.epoch else float("nan"),
                "best_epoch": self.epoch,
                "best_metrics": {"accuracy": score},
                "status": "completed" if done else "stopped",
                "error": "",
                "elapsed": 0.01 * (self.epoch + 1),
                "worker": f"here:{os.getpid()}",
                "done": done,
            }

    return Pretended


if __name__ == "__main__":
    main()
