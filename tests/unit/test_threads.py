"""Threads that wait for one another sleep, unless the user wants something else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from autotl.threads import SLEEP, sleep_while_waiting


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize("call", ["fit", "advise", "load"])
def test_it_is_said_before_torch_is_loaded(call: str) -> None:
    code = f"""
import os, sys, autotl
from autotl import api
def told():
    assert "torch" not in sys.modules
    print("told")
    sys.exit()
api.sleep_while_waiting = told
autotl.{call}("no such folder")
"""
    environment = {name: value for name, value in os.environ.items() if name not in SLEEP}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "told\n", done.stderr
