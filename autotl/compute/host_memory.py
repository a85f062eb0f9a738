"""How much memory this process and those it starts may still take: of the machine, or of the container around them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MEMINFO, OWN_GROUPS, GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files of the limit and of what is used, and the line of memory.stat that says what of it the kernel would give up, in
version 2 and version 1 of control groups."""


def available_bytes() -> float:
    """Bytes that can be taken without swapping or being killed; infinite where that cannot be found out."""
    return min((_of_the_machine(), *_of_containers()))


def _of_the_machine() -> float:
    with suppress(OSError, ValueError, IndexError):
        for line in MEMINFO.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return math.inf


def _of_containers() -> Iterator[float]:
    """What is left of the limit of each control group that this process is in, and of those around it."""
    try:
        lines = OWN_GROUPS.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            yield from _left(GROUPS, path, *_V2)
        elif "memory" in controllers.split(","):
            yield from _left(GROUPS / "memory", path, *_V1)


def _left(root: Path, path: str, limit: str, used: str, reclaimable: str) -> Iterator[float]:
    # Inside a container the path is that of the host, and the group itself is mounted as the root.
    inside = root / path.lstrip("/")
    for group in (inside, *inside.parents):
        if not group.is_relative_to(root):
            return
        with suppress(OSError, ValueError):
            most = int((group / limit).read_text("ascii"))  # "max" is no number: there is no limit
            taken = int((group / used).read_text("ascii"))
            yield max(0.0, most - taken + _stat(group, reclaimable))


def _stat(group: Path, name: str) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in (group / "memory.stat").read_text("ascii").splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
    return 0
