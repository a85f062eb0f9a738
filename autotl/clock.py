"""The time by which deadlines are kept: seconds since 1970 that go on evenly when somebody sets the clock.

A process notes once how far the machine's monotonic clock is from the time of day, and counts with the monotonic clock
from there. The workers of a fit take that over from it on the same machine; those on other machines, whose monotonic
clocks began at another time, look at their own time of day once, so between machines clocks have to agree.
"""

from __future__ import annotations

import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Linux's name for the time since the machine was started, the same in all of its containers."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a machine's monotonic clock means.

    Attributes:
        machine: stands for the machine, and for its start.
        offset: seconds since 1970 when its monotonic clock was 0.
    """

    machine: str
    offset: float


def _this_machine() -> str:
    with suppress(OSError):
        return BOOT_ID.read_text("ascii").strip()
    return platform.node()


_anchor = Anchor(_this_machine(), time.time() - time.monotonic())


def now() -> float:
    """Seconds since 1970, as the time of day had it when this process began."""
    return time.monotonic() + _anchor.offset


def adopt(anchor: Anchor) -> None:
    """Count as the fit does that this worker is for."""
    global _anchor
    here = _this_machine()
    _anchor = anchor if anchor.machine == here else Anchor(here, time.time() - time.monotonic())


def current() -> Anchor:
    """What `now` counts by."""
    return _anchor
