"""Every exception autotl raises on purpose.

    AutotlError
    ├── InputError              the input cannot be used; exit code 2 on the command line
    │   ├── SettingsError       an argument of a call or an option of a command
    │   ├── DatasetError        the folder of images
    │   ├── SpaceError          a search-space file
    │   ├── BackboneError       an unknown backbone, or weights that cannot be found or do not fit
    │   └── RunFolderError      a run folder: in use, not a run folder, not writable, or not fit to be reused
    ├── ModelFileError          a saved model that is damaged or was written by a newer autotl
    └── SearchError             the search could not be carried out (Ray did not start)

An `InputError` holds *all* the problems found, not just the first. When every problem lies in one area the
exception is of that area's class; problems from several areas come together as a plain `InputError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


class InputError(AutotlError):
    """The input cannot be used.

    Attributes:
        problems: everything that was found wrong, in the order found; never empty.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        count = len(self.problems)
        head = f"Found {count} {'problem' if count == 1 else 'problems'} in the input:"
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))

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


class SearchError(AutotlError):
    """The search could not be carried out."""


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
