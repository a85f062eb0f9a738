"""The types of what a call was given, checked before anything is made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from autotl.errors import Problem, raise_if_any
from autotl.predicates import Predicate, is_number, is_whole, or_none, shown
from autotl.settings import Resources, parse_duration
from autotl.space.search_space import SearchSpace


def is_text(value: Any) -> bool:
    """A text that says something."""
    return isinstance(value, str) and value.strip() != ""


def is_path(value: Any) -> bool:
    """A path that is not empty: Python takes an empty one for the current folder."""
    return isinstance(value, str | os.PathLike) and os.fspath(value) not in ("", b"") and "\0" not in str(value)


def is_duration(value: Any) -> bool:
    """Seconds, or a text such as 90s."""
    with suppress(ValueError):
        return is_number(parse_duration(value) if isinstance(value, str) else value)
    return False


def is_space(value: Any) -> bool:
    """A name, a path, or a space."""
    return is_path(value) or isinstance(value, SearchSpace)


def _several(fits: Predicate) -> Predicate:
    """One, or a sequence of these."""
    return lambda value: (
        fits(value) or (isinstance(value, Sequence) and not isinstance(value, str | bytes) and all(map(fits, value)))
    )


PATH = (is_path, "a path that is not empty")
WHOLE = (is_whole, "a whole number")
FLAG = (lambda value: isinstance(value, bool), "True or False")
TEXT = (is_text, "a text that is not empty")

KINDS: dict[str, tuple[Predicate, str]] = {
    "dataset_dir": PATH,
    "timeout": (is_duration, "seconds as a number, or 90s, 10m, 1.5h"),
    "n_trials": (or_none(is_whole), "a whole number from 1, or None for as many as the time allows"),
    "metric": TEXT,
    "search_space": (is_space, "auto, the name of a space, a TOML file that is not empty, or a space"),
    "backbones": (_several(is_text), "auto, a name, or several names"),
    "reuse": (_several(is_path), "a run folder, or several"),
    "output_dir": (or_none(is_path), "a path that is not empty, or None"),
    "seed": WHOLE,
    "val_fraction": (is_number, "a number"),
    "skip_unreadable": FLAG,
    "allow_download": FLAG,
    "resources": (or_none(lambda value: isinstance(value, Resources)), "autotl.Resources, or None"),
    "resources.address": (or_none(is_text), 'host:port, "auto", or None'),
    "resources.slots": (or_none(is_whole), "a whole number, or None"),
    "resources.cpus_per_trial": (or_none(is_whole), "a whole number, or None"),
    "resources.gpus_per_trial": (or_none(is_number), "a number, or None"),
    "reference": (or_none(is_path), "a file, or None"),
    "measure_benefit": FLAG,
    "device": TEXT,
    "callbacks": (lambda value: isinstance(value, Sequence) and not isinstance(value, str), "a list of callbacks"),
    "quiet": FLAG,
    "run_dir": PATH,
    "images": PATH,
    "backbone": TEXT,
    "output": PATH,
    "name": (or_none(is_text), "a text that is not empty, or None"),
}
"""What the arguments of the public functions may be, and that in words. Ranges are looked at later."""


def check_types(given: Mapping[str, Any]) -> None:
    """Check the arguments of a call, by name.

    Raises:
        SettingsError: with all that are of a wrong type, empty, or no duration.
    """
    values = dict(given)
    if isinstance(given.get("resources"), Resources):
        resources = given["resources"]
        values |= {f"resources.{name}": getattr(resources, name) for name in Resources.__slots__}
    wrong = [
        Problem("settings", name, shown(value, 100), KINDS[name][1])
        for name, value in values.items()
        if not KINDS[name][0](value)
    ]
    raise_if_any(wrong)
