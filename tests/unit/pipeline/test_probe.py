"""Which backbones are probed in the time given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from autotl.pipeline import probe
from autotl.pipeline.probe import ProbedBackbone, probe_backbones


class Line:
    """A console that keeps its lines, and a clock that only embedding moves."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 0.0

    def heading(self, text: str) -> None:
        self.lines.append(text)

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("similar", "recall", "probed", "left"),
    [
        (True, 0.95, ["first", "second"], 0),
        (True, 0.9, ["first"], 0),  # there is headroom for fine-tuning
        (False, 0.95, ["first"], 0),
        (None, 0.95, ["first"], 0),  # nobody knows yet
    ],
)
def test_more_backbones_are_probed_where_frozen_features_serve_well(
    similar: bool | None, recall: float, probed: list[str], left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Line()
    first, second, third = (SimpleNamespace(name=name) for name in ("first", "second", "third"))

    def embedded(context: Any, prepared: Any, data: Any) -> ProbedBackbone:
        console.now += 15.0
        found: Any = None if similar is None or prepared != "first" else SimpleNamespace(similar=similar)
        evidence: Any = SimpleNamespace(recall=recall)
        return ProbedBackbone(prepared, evidence, cast(Any, None), found)

    monkeypatch.setattr(probe, "clock", SimpleNamespace(now=lambda: console.now))
    monkeypatch.setattr(probe, "candidates", lambda context: ((first,), (second, third)))
    monkeypatch.setattr(probe, "expected_seconds", lambda entry, known: 15.0 if known else 0.0)
    monkeypatch.setattr(probe, "_embed", lambda context, entry, *rest: entry.name)
    monkeypatch.setattr(probe, "_probe", embedded)
    monkeypatch.setattr(probe, "_keep_probe", lambda *arguments: None)
    settings = SimpleNamespace(budget=SimpleNamespace(timeout=60.0))
    context: Any = SimpleNamespace(console=console, begun=0.0, settings=settings, earlier=None)
    data: Any = SimpleNamespace(first="first", optional=(second, third))
    assert [found.prepared for found in probe_backbones(context, data, lambda record: None)] == probed
    assert console.lines[-1] == f"  third: left out, probing would take 15 s of {left} s left"


def test_a_backbone_that_the_images_were_not_decoded_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Line()
    first, second = (SimpleNamespace(name=name) for name in ("first", "second"))
    evidence: Any = SimpleNamespace(recall=0.5)
    monkeypatch.setattr(probe, "clock", SimpleNamespace(now=lambda: 0.0))
    monkeypatch.setattr(probe, "candidates", lambda context: ((first,), (second,)))
    monkeypatch.setattr(probe, "expected_seconds", lambda entry, known: 1.0)
    monkeypatch.setattr(
        probe, "_probe", lambda context, prepared, data: ProbedBackbone(prepared, evidence, cast(Any, 0))
    )
    context: Any = SimpleNamespace(
        console=console, begun=0.0, settings=SimpleNamespace(budget=SimpleNamespace(timeout=60.0))
    )
    data: Any = SimpleNamespace(first="first", optional=())
    assert [found.prepared for found in probe_backbones(context, data)] == ["first"]
    assert console.lines[-1] == "  second: left out, probing would take 1 s of 48 s left"
