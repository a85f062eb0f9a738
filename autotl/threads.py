"""How many threads may compute at once, and that they sleep while they wait on a machine that others use as well.

OpenMP's threads spin: they keep a core busy until the last of them is done. On a machine of one's own that is fastest,
by up to a third. Beside a program that uses one core, on two cores, the thread that shares this core is late at every
barrier, the other spins, and a step of training takes up to twice as long as with sleeping threads
(benchmarks/waiting.py).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import joblib

VARIABLE, SLEEP = "OMP_WAIT_POLICY", "PASSIVE"
"""Read by libgomp and by Intel's and LLVM's OpenMP when they are loaded."""
SECONDS = 0.1
"""For so long it is looked what the machine does."""
CORES = 0.5
"""So many cores in use are another program at work."""
STAT = Path("/proc/stat")


def local_cpus() -> int:
    """Cores this process may use: those it is bound to, or fewer by a container's quota or `LOKY_MAX_CPU_COUNT`."""
    return int(joblib.cpu_count())


def sleep_if_others_work(*, starts_workers: bool = False) -> None:
    """Take effect in this process, if torch is not loaded yet, and in those it starts; what the user set stays.

    Args:
        starts_workers: whether there will be such processes: else nothing is looked at where torch is loaded.
    """
    if VARIABLE in os.environ or ("torch" in sys.modules and not starts_workers):
        return
    if cores_in_use() > CORES:
        os.environ[VARIABLE] = SLEEP


def cores_in_use() -> float:
    """How many cores of the machine compute for others, looked at for `SECONDS`; 0 where Linux's /proc is missing."""
    try:
        before = _busy_ticks()
        time.sleep(SECONDS)
        ticks = _busy_ticks() - before
    except (OSError, ValueError, IndexError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK") / SECONDS


def _busy_ticks() -> int:
    """Of all cores since the start of the machine: user, nice and system, the first three of the first line."""
    return sum(map(int, STAT.read_text("ascii").split("\n", 1)[0].split()[1:4]))
