"""Unit tests run on one thread: their models are small, and the machine is shared."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Hold torch to one thread where the tests at hand use it at all."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
