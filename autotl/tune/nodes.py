"""Whether the nodes of a cluster can work for a run: asked of each before the first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autotl.data.pixels import open_store
from autotl.errors import SearchError
from autotl.storage.rundir import RunDir
from autotl.train.task import TrainingTask

ANSWER_SECONDS = 60.0
"""A node that does not answer for so long is not waited for."""
PACKAGES = ("autotl", "torch", "timm")
"""Have to be of the same version on every node: a model that one of them saves is loaded by another."""


def check_nodes(run: RunDir, task: TrainingTask) -> None:
    """Ask every node of a cluster of several whether it sees the run and has the same packages.

    Args:
        run: its folder has to be shared.
        task: names the files that trials read.

    Raises:
        SearchError: with everything that is wrong, by node.
    """
    import ray

    nodes = working_nodes(ray)
    if len(nodes) < 2:
        return
    files = [str(run.path), task.store, task.manifest, *(files.state for files in task.backbones.values())]
    images = open_store(Path(task.store)).root
    files += [] if images is None else [str(images)]
    pending = {named(node): _ask(ray, node, files) for node in nodes}
    answers: dict[str, Any] = {}
    ready, _ = ray.wait(list(pending.values()), num_returns=len(pending), timeout=ANSWER_SECONDS)
    for name, answer in pending.items():
        try:
            answers[name] = ray.get(answer) if answer in ready else None
        except Exception as error:
            answers[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
    here = {package: version(package) for package in PACKAGES}
    wrong = problems_of(answers, here)
    if wrong:
        raise SearchError("\n".join(["these nodes of the cluster cannot work for this run:", *wrong]))


def problems_of(answers: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """What is wrong, a line each.

    Args:
        answers: by node; None of one that did not answer, and what went wrong of one that could not.
        here: the versions of the driver.
    """
    wrong = []
    for name, answer in answers.items():
        if answer is None:
            wrong.append(f"  - {name}: did not answer in {ANSWER_SECONDS:.0f} s")
            continue
        if isinstance(answer, str):
            wrong.append(f"  - {name}: {answer}")
            continue
        if answer["missing"]:
            found = ", ".join(answer["missing"][:3])
            wrong.append(f"  - {name}: does not see {found} → put it on storage that all nodes share, at the same path")
        elif not answer["writable"]:
            wrong.append(f"  - {name}: cannot write to the run folder → give the user that Ray runs as the right to")
        for package, own in here.items():
            other = answer["versions"].get(package, "none")
            if other != own:
                wrong.append(f"  - {name}: has {package} {other}, here it is {own} → install the same")
    return wrong


def working_nodes(ray: Any) -> list[Mapping[str, Any]]:
    """Ray's description of the nodes that are alive and have cores to work with."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def named(node: Mapping[str, Any]) -> str:
    """A node in messages: its name and address, and the beginning of Ray's id, as two may share a machine."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def _ask(ray: Any, node: Mapping[str, Any], files: Sequence[str]) -> Any:
    """A task on a node; it is sent as it stands, so that it runs where there is no autotl, too."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def look(files: Sequence[str], packages: Sequence[str]) -> dict[str, Any]:
        import importlib.metadata
        import os

        versions = {}
        for package in packages:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        missing = [file for file in files if not os.path.exists(file)]
        return {"missing": missing, "writable": os.access(files[0], os.W_OK), "versions": versions}

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=there)(look).remote(list(files), PACKAGES)
