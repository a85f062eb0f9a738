"""Fits that join a Ray cluster of two nodes and leave it running; GPUs that are only pretended are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, os, sys
os.environ["CUDA_VISIBLE_DEVICES"] = "99"  # one that Ray believes in and torch does not see
import ray
from ray.cluster_utils import Cluster
import autotl

gpus = int(sys.argv[3])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": gpus})
cluster.add_node(num_cpus=1, num_gpus=gpus)
try:
    result = autotl.fit(
        sys.argv[1], backbones=sys.argv[2], search_space="quick", n_trials=2, timeout="10m", output_dir="run",
        resources=autotl.Resources(address=cluster.address), quiet=True,
    )
    left = not ray.is_initialized()
    ray.init(address=cluster.address, log_to_driver=False)
    seen = ray.cluster_resources()
    ray.shutdown()
    print(json.dumps({
        "left": left, "cpus": seen["CPU"],
        "trials": [[str(trial.status), trial.error] for trial in result.trials if trial.origin != "probe"],
    }))
finally:
    cluster.shutdown()
"""


def fit_on_cluster(commands: Any, dataset: Path, folder: Path, gpus: int) -> dict[str, Any]:
    arguments = (dataset, commands.LITE0, str(gpus))
    done = commands.run_program(sys.executable, "-c", PROGRAM, *arguments, cwd=folder, seconds=240)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert seen["left"]
    assert seen["cpus"] == 2
    assert len(seen["trials"]) == 2
    return seen


def test_a_fit_joins_a_cluster_and_leaves_it_running(commands: Any, dataset: Path, tmp_path: Path) -> None:
    seen = fit_on_cluster(commands, dataset, tmp_path, gpus=0)
    assert all(status == "completed" for status, _ in seen["trials"]), seen["trials"]
    log = (tmp_path / "run" / "fit.log").read_text("utf-8")
    assert "2 at once with one core each" in log  # one a node
    assert "2 nodes measured; the time is planned for the slowest" in log


def test_a_worker_that_sees_no_gpu_says_so_and_the_probe_is_kept(commands: Any, dataset: Path, tmp_path: Path) -> None:
    seen = fit_on_cluster(commands, dataset, tmp_path, gpus=1)
    assert all("promised a GPU and sees none" in error for _, error in seen["trials"]), seen["trials"]
    assert json.loads((tmp_path / "run" / "model" / "model.json").read_text("utf-8"))["trial_id"].startswith("probe")
    assert "2 at once with one GPU each" in (tmp_path / "run" / "fit.log").read_text("utf-8")
