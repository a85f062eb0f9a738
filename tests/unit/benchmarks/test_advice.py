"""What the advice amounts to in the table's strategies, and what is printed of a table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import advice
import pytest
from oracle import FEATURES, STRATEGIES
from ready import LITE0, LITE2
from regret import Draw, Row

from autotl.advice.scenario import choose_scenario


def advised(strategy: str, backbone: str = LITE0) -> Any:
    backbones = [SimpleNamespace(name=backbone, n_stages=8)]
    return SimpleNamespace(strategy=strategy, scenario=choose_scenario(False, False), backbones=backbones)


def test_features_are_those_of_the_advised_backbone_and_depths_those_of_lite0() -> None:
    assert advice.advised_strategy(advised("feature extraction", LITE2)) == f"{FEATURES}, lite2"
    assert advice.advised_strategy(advised("freeze the first stages, train the rest", LITE2)) == "freeze 5"
    assert advice.advised_strategy(advised("fine-tune everything", LITE2)) == "full fine-tuning"


def rows() -> list[Row]:
    """Three sets; the farther, the more fine-tuning all stages gains over 80%."""
    found = []
    for place, name in enumerate("abc"):
        test = {strategy.name: 0.8 for strategy in STRATEGIES} | {"full fine-tuning": 0.8 + 0.05 * place}
        draw = Draw(
            name, "600 images", 0, 600, 120, dict(test), test, {4: 0.7, 8: 0.8}, {4: 0.1, 8: 0.1}, distance=0.1 * place
        )
        found.append(Row((draw, replace(draw, seed=1))))
    return found


def test_regret_of_advice_and_plain_rules(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(advice, "rows_of", lambda folders, table: rows())
    monkeypatch.setattr(advice, "read_draws", lambda folders: [])
    monkeypatch.setattr(advice, "ask_about", lambda rows, sets: defaultdict(lambda: "freeze 6"))
    advice.print_regret([Path("a"), Path("b"), Path("c")], Path("cells.jsonl"))
    printed = capsys.readouterr().out.splitlines()
    mean, worst = (
        next(line.split()[3:8] for line in printed if line.startswith(f"{name} ")) for name in ("mean", "worst")
    )
    assert mean == ["5.00", "5.00", "0.00", "5.00", "0.00"]
    assert worst == ["10.00", "10.00", "0.00", "10.00", "0.00"]
    assert next(line.split()[4:9] for line in printed if line.startswith("fair mean")) == mean
    assert any("Kendall's tau -1.00" in line and "gain +0.0 to +10.0" in line for line in printed)


def test_thresholds_need_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "rows_of", lambda folders, table: rows()[:1])
    with pytest.raises(SystemExit, match="two sets or more"):
        advice.print_thresholds([Path("a")], Path("cells.jsonl"))


def test_thresholds_are_printed_with_what_they_are_worth_on_unseen_sets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(advice, "rows_of", lambda folders, table: rows())
    advice.print_thresholds([Path("a")], Path("cells.jsonl"))
    printed = capsys.readouterr().out
    assert (
        "shipped    far from 0.075, large from 4000 images, stage probes not followed, headroom from 10% missed: 5.00"
        in printed
    )
    assert "large from 500 images" in next(line for line in printed.splitlines() if line.startswith("fitted"))
    assert "leave one set out: " in printed
