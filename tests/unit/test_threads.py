"""As many threads as there are cores to use; they sleep while they wait where others use the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from joblib.externals.loky.backend import context as loky_context

from autotl import threads
from autotl.threads import VARIABLE, local_cpus, sleep_if_others_work


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 9}, raising=False)
    assert local_cpus() == 3


def test_the_quota_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(loky_context, "_cpu_count_cgroup", lambda os_cpu_count: 2)  # what docker run --cpus=2 sets
    assert local_cpus() == 2


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_if_others_work()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(("ticks", "sleeps"), [(0, False), (4, False), (6, True), (20, True)])
def test_they_sleep_where_half_a_core_or_more_is_in_use(
    ticks: int, sleeps: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  1000 20 300 99 5 1 1 0 0 0\ncpu0 1 1 1 1\n")

    def others_work(seconds: float) -> None:
        assert seconds == threads.SECONDS
        stat.write_text(f"cpu  {1000 + ticks - 1} 20 301 999 5 1 1 0 0 0\ncpu0 1 1 1 1\n")

    monkeypatch.setattr(threads, "STAT", stat)
    monkeypatch.setattr(threads.time, "sleep", others_work)
    monkeypatch.setattr(threads.os, "sysconf", lambda name: 100)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    sleep_if_others_work(starts_workers=True)
    assert os.environ.get("OMP_WAIT_POLICY") == ("PASSIVE" if sleeps else None)


def test_nothing_is_looked_at_where_it_would_have_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setitem(sys.modules, "torch", threads)
    monkeypatch.setattr(threads, "cores_in_use", lambda: pytest.fail("the machine was looked at"))
    sleep_if_others_work()


def test_where_nobody_knows_they_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(threads, "STAT", tmp_path / "nothing")
    assert threads.cores_in_use() == 0.0


@pytest.mark.parametrize("call", ["fit", "advise", "load"])
def test_it_is_said_before_torch_is_loaded(call: str) -> None:
    code = f"""
import os, sys, autotl
from autotl import api
def told(**arguments):
    assert "torch" not in sys.modules
    print("told")
    sys.exit()
api.sleep_if_others_work = told
autotl.{call}("no such folder")
"""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "told\n", done.stderr
