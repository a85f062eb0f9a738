"""How many trials at once a machine's memory allows, and what is said where that is fewer than its cores do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.pipeline import search
from autotl.settings import Resources
from autotl.tune.session import Slots, slot_choices

GIB = 2**30
ALL = slot_choices(Slots(8, 1, 0.0), 8)


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: the choices that are left with so many bytes free, and what was printed."""
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"0" * 1000)
    task = SimpleNamespace(backbones={"net": SimpleNamespace(state=str(state))})

    def choose(free: float, choices: tuple[Slots, ...] = ALL, address: str | None = None) -> tuple[Any, str]:
        monkeypatch.setattr(search, "available_bytes", lambda: free)
        said: list[str] = []
        console = SimpleNamespace(line=lambda text, style: said.append(text))
        context: Any = SimpleNamespace(settings=SimpleNamespace(resources=Resources(address=address)), console=console)
        return search._with_room_in_memory(context, task, choices), "".join(said)  # type: ignore[arg-type]

    return choose


@pytest.mark.parametrize("free", [64 * GIB, float("inf")])
def test_with_enough_memory_nothing_changes_and_nothing_is_said(limited: Any, free: float) -> None:
    assert limited(free) == (ALL, "")


def test_with_little_fewer_run_at_once_and_that_is_said(limited: Any) -> None:
    choices, text = limited(4 * GIB)
    assert [slots.count for slots in choices] == [1, 2]
    assert "at most 2 at once: 4.0 GiB are free, and a trial takes about 1.1 GiB" in text


def test_one_is_always_tried(limited: Any) -> None:
    choices, _ = limited(0.1 * GIB)
    assert choices == (Slots(1, 8, 0.0),)


def test_what_was_asked_for_is_cut_to_what_there_is(limited: Any) -> None:
    choices, text = limited(4 * GIB, (Slots(6, 1, 0.0),))
    assert choices == (Slots(2, 1, 0.0),)
    assert "at most 2 at once" in text


def test_memory_of_a_cluster_or_of_a_gpu_is_not_known_here(limited: Any) -> None:
    gpus = (Slots(4, 2, 1.0),)
    assert limited(0.1 * GIB, gpus) == (gpus, "")
    assert limited(0.1 * GIB, address="head:6379") == (ALL, "")
