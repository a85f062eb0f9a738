"""Every exception autotl raises on purpose.

    AutotlError
    ├── InputError              the input cannot be used; exit code 2 on the command line
    │   ├── SettingsError       an argument of a call or an option of a command
    │   ├── DatasetError        the folder of images
    │   ├── SpaceError          a search-space file
    │   ├── BackboneError       an unknown backbone, or weights that cannot be found or do not fit
    │   └── RunFolderError      a run folder: in use, not a run folder, not writable, or not fit to be reused
    ├── MachineError            a full disk, a file that vanished, no permission: what the machine refused
    ├── ModelFileError          a saved model that is damaged or was written by a newer autotl
    └── SearchError             the search could not be carried out (Ray did not start)

An `InputError` holds *all* the problems found, not just the first. When every problem lies in one area the
exception is of that area's class; problems from several areas come together as a plain `InputError`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

Area = Literal["settings", "dataset", "space", "backbone", "run folder"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the input.

    Attributes:
        area: which part of the input; decides the class of the exception.
        where: the argument, file, or key at fault.
        found: what was there.
        allowed: what may be there ("" when that is plain from `remedy`).
        remedy: what to do about it ("" when that is plain from `allowed`).
    """

    area: Area
    where: str
    found: str
    allowed: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.found}"]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.remedy:
            parts.append(f"→ {self.remedy}")
        return "\n    ".join(parts)


class AutotlError(Exception):
    """Root of the tree: catch this to catch everything autotl raises on purpose."""


SHOWN_PROBLEMS = 20
"""So many are in the message of an `InputError`; all are in its `problems`."""


class InputError(AutotlError):
    """The input cannot be used.

    Attributes:
        problems: everything that was found wrong, in the order found; never empty.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        count = len(self.problems)
        lines = [f"Found {count} {'problem' if count == 1 else 'problems'} in the input:"]
        # A remedy is told once for all in a row that it is the same for.
        for remedy, alike in groupby(self.problems[:SHOWN_PROBLEMS], lambda problem: problem.remedy):
            *others, last = alike
            lines += [f"  - {replace(other, remedy='', allowed='') if remedy else other}" for other in others]
            lines.append(f"  - {last}")
        if count > SHOWN_PROBLEMS:
            lines.append(f"  - and {count - SHOWN_PROBLEMS} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class SettingsError(InputError):
    """An argument of a call or an option of a command."""


class DatasetError(InputError):
    """The folder of images."""


class SpaceError(InputError):
    """A search-space file."""


class BackboneError(InputError):
    """An unknown backbone, or weights that cannot be found or do not fit."""


class RunFolderError(InputError):
    """A run folder: in use, not a run folder, not writable, or with a model that cannot be reused."""


class ModelFileError(AutotlError):
    """A saved model that is damaged or was written by a newer autotl."""


class MachineError(AutotlError):
    """The machine refused something: a full disk, a file that vanished, no permission."""


class SearchError(AutotlError):
    """The search could not be carried out."""


_REMEDIES = {
    errno.ENOSPC: "free some room there, or use another disk: `output_dir` (--output) for the run, AUTOTL_CACHE_DIR "
    "for the cache, TMPDIR for temporary files",
    errno.EDQUOT: "your quota there is used up: name another folder (`output_dir`, --output; AUTOTL_CACHE_DIR)",
    errno.EACCES: "give this user the right to, or name another folder",
    errno.EPERM: "give this user the right to, or name another folder",
    errno.EROFS: "that disk cannot be written to: name another folder (`output_dir`, --output; AUTOTL_CACHE_DIR)",
    errno.ENOENT: "it was there before: leave the data and the run folder as they are while autotl works on them",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
    errno.ENAMETOOLONG: "shorten the path",
    errno.EIO: "look after that disk: its hardware reports an error",
}


def refused(error: OSError) -> MachineError:
    """What the machine refused, in words: what, where, and what to do."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    found = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "")
    return MachineError(f"{where}{found}" + (f"\n    → {remedy}" if remedy else ""))


_CLASS_OF_AREA: dict[Area, type[InputError]] = {
    "settings": SettingsError,
    "dataset": DatasetError,
    "space": SpaceError,
    "backbone": BackboneError,
    "run folder": RunFolderError,
}


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Raise one exception for all `problems`; do nothing when there are none.

    Raises:
        InputError: if there is any problem; its subclass when all lie in one area.
    """
    if not problems:
        return
    areas = {problem.area for problem in problems}
    kind = _CLASS_OF_AREA[areas.pop()] if len(areas) == 1 else InputError
    raise kind(problems)
