"""A fit that joins a Ray cluster with pretended GPUs, and leaves it running."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys
import ray
from ray.cluster_utils import Cluster
import autotl

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2})
try:
    result = autotl.fit(
        sys.argv[1], backbones=sys.argv[2], search_space="quick", n_trials=2, timeout="10m", output_dir="run",
        resources=autotl.Resources(address=cluster.address), quiet=True,
    )
    left = not ray.is_initialized()
    ray.init(address=cluster.address, log_to_driver=False)
    seen = ray.cluster_resources()
    free = ray.available_resources()
    ray.shutdown()
    print(json.dumps({
        "left": left, "cpus": seen["CPU"], "gpus": seen["GPU"], "free_gpus": free.get("GPU", 0),
        "trials": [[str(trial.status), trial.error] for trial in result.trials if trial.origin != "probe"],
    }))
finally:
    cluster.shutdown()
"""


def test_a_fit_joins_a_cluster_and_leaves_it_running(commands: Any, dataset: Path, tmp_path: Path) -> None:
    done = commands.run_program(sys.executable, "-c", PROGRAM, dataset, commands.LITE0, cwd=tmp_path, seconds=240)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["left"]
    assert (seen["cpus"], seen["gpus"]) == (2, 2)
    assert len(seen["trials"]) == 2
    assert all(status == "completed" for status, _ in seen["trials"]), seen["trials"]
    assert "2 at once with one GPU each" in (tmp_path / "run" / "fit.log").read_text("utf-8")  # one a GPU
