"""Fixtures that several folders or files of unit tests share.

Unit tests run on one thread: their models are small, and the machine is shared.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Hold torch to one thread where the tests at hand use it at all."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def _fitting() -> None:
    """Everything that fit and advise import, outside the time of a test."""
    import_module("autotl.pipeline.fit")
    import_module("autotl.tune.runner")


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each command in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def no_thread_is_left() -> Callable[[], bool]:
    """A function that says whether every thread that decodes images has ended."""
    return lambda: not any(thread.name.startswith("autotl-decode") for thread in threading.enumerate())
