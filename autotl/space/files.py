"""Search spaces as TOML files: finding them, reading them with every problem reported, writing them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from autotl.errors import Problem, SpaceError, raise_if_any
from autotl.space.parameters import Categorical, Depth, Float, Parameter, resolve_depth
from autotl.space.search_space import AUGMENTATIONS, INITIAL_WEIGHTS, PARAMETERS, SCRATCH_VALUES, SearchSpace

_RANGES = {
    "learning_rate_factor": (1e-6, 10.0),
    "head_learning_rate_factor": (1e-6, 100.0),
    "layer_decay": (0.01, 1.0),
    "weight_decay": (0.0, 1.0),
    "label_smoothing": (0.0, 0.5),
}
"""Float parameters and the values that make sense for them."""

LARGEST = 1_000_000
"""Bytes of a file that may be a search space: a TOML parser takes minutes for hostile ones."""

_MANY_STAGES = 10_000
"""More than any backbone has: bounds are compared as if it had so many."""

_CHOICES: dict[str, Callable[[Any], bool]] = {
    "backbone": lambda value: isinstance(value, str) and value != "",
    "initial_weights": lambda value: value in INITIAL_WEIGHTS,
    "augmentation": lambda value: value in AUGMENTATIONS,
    "batch_size": lambda value: isinstance(value, int) and 2 <= value <= 4096,
}
_CHOICES_TEXT = {
    "backbone": 'names, or "auto"',
    "initial_weights": ", ".join(INITIAL_WEIGHTS),
    "augmentation": ", ".join(AUGMENTATIONS),
    "batch_size": "whole numbers from 2 to 4096",
}

_HEAD: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str) and value != "", "a text"),
    "description": (lambda value: isinstance(value, str), "a text"),
    "max_t": (lambda value: value == "auto" or _whole(value, 1), '"auto" or a whole number from 1'),
    "scratch_share": (lambda value: _number(value) and 0 <= value <= 1, "0 to 1"),
}


def _whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def spaces_dir() -> Path:
    """The folder of the shipped spaces: beside the modules in a wheel, at the top of a checkout otherwise."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"


def shipped_names() -> tuple[str, ...]:
    """The names of the shipped spaces, sorted."""
    return tuple(sorted(path.stem for path in spaces_dir().glob("*.toml")))


def find_space(name_or_path: str) -> Path:
    """The file of a shipped space by its name, or the file at a path.

    Raises:
        SpaceError: if there is neither.
    """
    shipped = spaces_dir() / f"{name_or_path}.toml"
    if name_or_path in shipped_names():
        return shipped
    path = Path(name_or_path)
    with suppress(OSError, ValueError):  # a name that is too long, or holds a zero byte
        if path.is_file():
            return path
    allowed = f"{', '.join(shipped_names())}, or the path of a TOML file"
    raise SpaceError([Problem("space", f"search_space {name_or_path!r}", "no such space", allowed)])


def load_space(name_or_path: str) -> SearchSpace:
    """Read and check a space.

    Raises:
        SpaceError: if there is no such space, or with everything that is wrong in the file.
    """
    path = find_space(name_or_path)
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise SpaceError([Problem("space", str(path), f"has {size} bytes", f"at most {LARGEST}: a search space")])
        plain = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpaceError([Problem("space", str(path), f"is not a TOML file ({error})")]) from error
    return space_from_plain(plain, where=str(path))


def space_from_plain(plain: dict[str, Any], where: str) -> SearchSpace:
    """The space described by `plain`; `where` says in messages where it came from.

    Raises:
        SpaceError: with every unknown, missing or unfitting key.
    """
    problems = [*_check_head(plain, where), *_check_keys(plain, where)]
    parameters: list[Parameter] = []
    for name in PARAMETERS:
        if isinstance(plain.get(name), dict):
            found, parameter = _read_parameter(name, plain[name], f"{where}: [{name}]")
            problems += found
            parameters += [parameter] if parameter is not None else []
    raise_if_any(problems)
    head = {key: plain[key] for key in _HEAD if key in plain}
    return SearchSpace(parameters=tuple(parameters), **head)


def _check_head(plain: dict[str, Any], where: str) -> Iterable[Problem]:
    for key, (fits, allowed) in _HEAD.items():
        if key in plain and not fits(plain[key]):
            yield Problem("space", f"{where}: {key}", repr(plain[key]), allowed)
    for key in ("name", "description"):
        if key not in plain:
            yield Problem("space", where, f"{key} is missing", _HEAD[key][1])


def _check_keys(plain: dict[str, Any], where: str) -> Iterable[Problem]:
    known = (*_HEAD, *PARAMETERS)
    for key in plain:
        if key not in known:
            yield Problem("space", f"{where}: {key}", "unknown key", ", ".join(known))
    for name in PARAMETERS:
        if name not in plain:
            yield Problem("space", where, f"[{name}] is missing", remedy="copy it from `autotl spaces show default`")
        elif not isinstance(plain[name], dict):
            yield Problem("space", f"{where}: {name}", repr(plain[name]), f"a table [{name}]")


def _read_parameter(name: str, plain: dict[str, Any], where: str) -> tuple[list[Problem], Parameter | None]:
    kind = "choices" if name in _CHOICES else "depth" if name == "freeze_depth" else "float"
    allowed = {"choices": ("choices",), "depth": ("low", "high", "when"), "float": ("low", "high", "log", "when")}[kind]
    problems = [
        Problem("space", where, f"unknown key {key!r}", ", ".join(allowed)) for key in plain if key not in allowed
    ]
    needed = ("choices",) if kind == "choices" else ("low", "high")
    problems += [Problem("space", where, f"{key} is missing") for key in needed if key not in plain]
    when, wrong = _read_when(name, plain.get("when"), where)
    problems += wrong
    if any(key not in plain for key in needed):
        return problems, None
    if kind == "choices":
        problems += _check_choices(name, plain["choices"], where)
        return problems, None if problems else Categorical(name, tuple(plain["choices"]))
    if kind == "depth":
        problems += _check_depth(plain, where)
        return problems, None if problems else Depth(name, plain["low"], plain["high"], when)
    problems += _check_float(name, plain, where)
    log = bool(plain.get("log", False))
    return problems, None if problems else Float(name, float(plain["low"]), float(plain["high"]), log, when)


def _read_when(name: str, plain: Any, where: str) -> tuple[tuple[str, tuple[Any, ...]] | None, list[Problem]]:
    if plain is None:
        return None, []
    allowed = 'when.initial_weights = ["pretrained"], for freeze_depth and layer_decay'
    fine = isinstance(plain, dict) and plain == {"initial_weights": ["pretrained"]} and name in SCRATCH_VALUES
    if not fine:
        return None, [Problem("space", f"{where} when", repr(plain), allowed)]
    return ("initial_weights", ("pretrained",)), []


def _check_choices(name: str, choices: Any, where: str) -> list[Problem]:
    allowed = _CHOICES_TEXT[name]
    if choices == "auto" and name == "backbone":
        return [Problem("space", f"{where} choices", repr(choices), 'a list: ["auto"] or names')]
    if not isinstance(choices, list) or not choices:
        return [Problem("space", f"{where} choices", repr(choices), f"a list of one or more of: {allowed}")]
    problems = [
        Problem("space", f"{where} choices", repr(choice), allowed) for choice in choices if not _CHOICES[name](choice)
    ]
    if len({json.dumps(choice, default=str) for choice in choices}) < len(choices):
        problems.append(Problem("space", f"{where} choices", f"{choices} has repeats", "each choice once"))
    return problems


def _check_depth(plain: dict[str, Any], where: str) -> list[Problem]:
    problems = []
    for key in ("low", "high"):
        value = plain[key]
        try:
            fine = isinstance(value, str) or _whole(value, 0)
            resolve_depth(value if fine else "", _MANY_STAGES)
        except ValueError:
            allowed = 'a whole number from 0, "all" or "all-N"'
            problems.append(Problem("space", f"{where} {key}", repr(value), allowed))
    # Two of a kind compare whatever the backbone; a number and "all-N" as with a typical large one.
    stages = _MANY_STAGES if type(plain["low"]) is type(plain["high"]) else 100
    if not problems and resolve_depth(plain["low"], stages) > resolve_depth(plain["high"], stages):
        problems.append(Problem("space", where, f"low {plain['low']!r} is deeper than high {plain['high']!r}"))
    return problems


def _check_float(name: str, plain: dict[str, Any], where: str) -> list[Problem]:
    least, most = _RANGES[name]
    problems = [
        Problem("space", f"{where} {key}", repr(plain[key]), f"a number from {least:g} to {most:g}")
        for key in ("low", "high")
        if not (_number(plain[key]) and least <= plain[key] <= most)
    ]
    if not isinstance(plain.get("log", False), bool):
        problems.append(Problem("space", f"{where} log", repr(plain["log"]), "true or false"))
    if not problems and plain["low"] > plain["high"]:
        problems.append(Problem("space", where, f"low {plain['low']:g} is above high {plain['high']:g}"))
    if not problems and plain.get("log") and plain["low"] <= 0:
        problems.append(Problem("space", f"{where} low", f"{plain['low']:g}", "above 0 on a log scale"))
    return problems


def _toml_value(value: Any) -> str:
    """JSON's numbers, lists and texts are TOML's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def to_toml(space: SearchSpace) -> str:
    """The space as TOML text, which `load_space` reads back to an equal space."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in space.to_plain().items():
        if not isinstance(value, dict):
            lines.append(f"{key} = {_toml_value(value)}")
            continue
        tables.append(f"\n[{key}]")
        for inner, item in value.items():
            if isinstance(item, dict):
                tables += [f"{inner}.{name} = {_toml_value(values)}" for name, values in item.items()]
            else:
                tables.append(f"{inner} = {_toml_value(item)}")
    return "\n".join([*lines, *tables]) + "\n"
