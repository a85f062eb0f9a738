"""The smallest of all limits counts: the machine's, and those of the groups that the process is in."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from autotl.compute import host_memory
from autotl.compute.host_memory import available_bytes

GIB = 2**30


class Machine:
    """Files of a machine with 8 GiB available."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
        self.groups("")

    def groups(self, text: str) -> None:
        (self.root / "cgroup").write_text(text)

    def group(self, path: str, files: dict[str, str]) -> None:
        folder = self.root / "fs" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host_memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host_memory, "GROUPS", tmp_path / "fs")
    return Machine(tmp_path)


def test_without_a_group_it_is_what_the_machine_has(machine: Machine) -> None:
    assert available_bytes() == 8 * GIB


def test_a_group_of_version_2_limits_it_and_what_the_kernel_would_give_up_is_free(machine: Machine) -> None:
    machine.groups("0::/user/job\n")
    stat = f"anon 5\ninactive_file {GIB}\n"
    machine.group("user/job", {"memory.max": f"{4 * GIB}\n", "memory.current": f"{3 * GIB}\n", "memory.stat": stat})
    assert available_bytes() == 2 * GIB


def test_a_group_around_it_may_be_narrower(machine: Machine) -> None:
    machine.groups("0::/user/job\n")
    machine.group("user/job", {"memory.max": "max\n", "memory.current": "0\n"})
    machine.group("user", {"memory.max": f"{3 * GIB}\n", "memory.current": f"{GIB}\n"})
    assert available_bytes() == 2 * GIB


def test_in_a_container_its_own_group_is_the_root(machine: Machine) -> None:
    machine.groups("0::/docker/0123\n")
    machine.group("", {"memory.max": f"{GIB}\n", "memory.current": "0\n"})
    assert available_bytes() == GIB


def test_a_group_of_version_1(machine: Machine) -> None:
    machine.groups("5:cpu:/a\n4:memory:/a\n")
    files = {"memory.limit_in_bytes": str(2 * GIB), "memory.usage_in_bytes": str(GIB)}
    machine.group("memory/a", files | {"memory.stat": "total_inactive_file 0\n"})
    assert available_bytes() == GIB


def test_a_group_that_is_used_up_has_nothing_left(machine: Machine) -> None:
    machine.groups("0::/\n")
    machine.group("", {"memory.max": str(GIB), "memory.current": str(2 * GIB)})
    assert available_bytes() == 0


def test_where_nothing_can_be_found_out_there_is_no_limit(machine: Machine) -> None:
    for name in ("meminfo", "cgroup"):
        (machine.root / name).unlink()
    assert available_bytes() == math.inf


def test_this_machine_has_some() -> None:
    assert available_bytes() > 0
