"""Threads that share a computation sleep while they wait for one another.

By default OpenMP's threads spin: they keep a core busy until the last of them is done. On a machine that has nothing
else to do that costs nothing. Beside a program that uses one core, on two cores, the thread that shares this core is
late at every barrier, the other spins, and a step of training takes up to four times as long (benchmarks/waiting.py).
"""

from __future__ import annotations

import os

SLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Read by libgomp and by Intel's and LLVM's OpenMP when they are loaded."""


def sleep_while_waiting() -> None:
    """Take effect in this process, where torch is not loaded yet, and in those it starts; what the user set stays."""
    for name, value in SLEEP.items():
        os.environ.setdefault(name, value)
