"""What is wrong with the plain data of a model card: a run folder may come from anybody."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from autotl.predicates import Predicate, is_number, is_whole, or_none, shown
from autotl.settings import METRICS

LARGEST_SIDE = 4096
"""Pixels of an input; more would only be a way to fill the memory."""
MOST_CLASSES = 1_000_000


def _whole(low: int, high: float = math.inf) -> Predicate:
    return lambda value: is_whole(value) and low <= value <= high


def _number(low: float = -math.inf, high: float = math.inf) -> Predicate:
    return lambda value: is_number(value) and low <= value <= high


def _text(pattern: str = r"[\s\S]{1,1000}") -> Predicate:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _three(fits: Predicate) -> Predicate:
    return lambda value: isinstance(value, list | tuple) and len(value) == 3 and all(map(fits, value))


def _classes(value: Any) -> bool:
    fine = isinstance(value, list | tuple) and 2 <= len(value) <= MOST_CLASSES
    return fine and all(isinstance(name, str) and name for name in value) and len(set(value)) == len(value)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


Rules = Mapping[str, tuple[Predicate, str]]

CARD: Rules = {
    "backbone": (_text(r"[\w.-]{1,200}"), "the name of a timm model"),
    "classes": (_classes, "two or more different names"),
    "preprocessing": (_is_dict, "an object"),
    "freeze_depth": (or_none(_whole(0, 10_000)), "a whole number from 0, or null"),
    "metric": (lambda value: value in METRICS, ", ".join(METRICS)),
    "score": (_number(), "a finite number"),
    "log_loss": (or_none(_number()), "a finite number, or null"),
    "validation": (_is_dict, "an object"),
    "trial_id": (_text(), "a text"),
    "epoch": (_whole(0), "a whole number from 0"),
    "config": (_is_dict, "an object"),
    "provenance": (_is_dict, "an object"),
    "weights": (_text(r"[\w-][\w.-]{0,200}\.safetensors"), "the name of a safetensors file beside it, without a path"),
    "sha256": (_text(r"[0-9a-f]{64}"), "64 hexadecimal digits"),
    "format_version": (_whole(1), "a whole number from 1"),
    "finished": (lambda value: isinstance(value, bool), "true or false"),
}
PREPROCESSING: Rules = {
    "input_size": (_whole(8, LARGEST_SIDE), f"8 to {LARGEST_SIDE} pixels"),
    "crop": (_number(0.01, 1.0), "0.01 to 1"),
    "mean": (_three(_number(-1000, 1000)), "three finite numbers"),
    "std": (_three(_number(1e-6, 1000)), "three numbers above 0"),
    "store_size": (_whole(8, 2 * LARGEST_SIDE), f"8 to {2 * LARGEST_SIDE} pixels"),
}
VALIDATION: Rules = {
    "value": (or_none(_number()), "a finite number, or null"),
    "low": (or_none(_number()), "a finite number, or null"),
    "high": (or_none(_number()), "a finite number, or null"),
    "n_images": (_whole(0), "a whole number from 0"),
}
MAY_BE_MISSING = {"finished"}
"""Not in cards of older versions."""


def problems_of_card(plain: Any) -> list[str]:
    """Everything that is wrong with what a `model.json` holds, a line each; nothing where it can be used."""
    if not isinstance(plain, dict):
        return ["holds no JSON object"]
    problems = _wrong(plain, CARD, "")
    if not problems:
        problems += _wrong(plain["preprocessing"], PREPROCESSING, "preprocessing.")
        problems += _wrong(plain["validation"], VALIDATION, "validation.")
    return problems


def _wrong(plain: Mapping[str, Any], rules: Rules, prefix: str) -> list[str]:
    problems = [f"{prefix}{name}: missing" for name in rules if name not in plain and name not in MAY_BE_MISSING]
    problems += [f"{prefix}{name}: unknown" for name in plain if name not in rules]
    for name, (fits, allowed) in rules.items():
        if name in plain and not fits(plain[name]):
            problems.append(f"{prefix}{name}: {shown(plain[name], 60)}, allowed: {allowed}")
    return problems
