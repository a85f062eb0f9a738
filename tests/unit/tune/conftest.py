"""A wide search space with two backbones, and searches of it with a journal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotl.space.files import load_space
from autotl.space.search_space import SearchSpace
from autotl.tune.pace import Pace
from autotl.tune.study import StudySearch

STAGES = {"shallow": 5, "deep": 9}
FAR_AWAY = math.inf


@pytest.fixture(scope="session")
def space() -> Callable[..., SearchSpace]:
    """A function that gives a shipped space with two backbones and both kinds of weights."""

    def widened(scratch_share: float = 0.15, name: str = "default") -> SearchSpace:
        wide = load_space(name).narrow(backbone=tuple(STAGES), initial_weights=("pretrained", "scratch"))
        return dataclasses.replace(wide, scratch_share=scratch_share)

    return widened


@pytest.fixture
def make(tmp_path: Path, space: Callable[..., SearchSpace]) -> Callable[..., StudySearch]:
    """A function that builds a search, with changes, whose journal is study.journal in the test's folder."""

    def build(**changes: Any) -> StudySearch:
        plain: dict[str, Any] = {
            "space": space(),
            "n_stages": STAGES,
            "journal": tmp_path / "study.journal",
            "study_name": "run-1",
            "seed": 0,
            "start_points": (),
            "deadline": FAR_AWAY,
            "constants": {},
            "pace": Pace(lambda config, epochs, views_from: 0.0, max_t=4),
        }
        return StudySearch(**(plain | changes))

    return build
