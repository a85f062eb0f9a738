"""The oracle table: its order, what a killed writer leaves, and that a cell is never computed twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from oracle import Cell, append_line, epochs_of, key_of, plan, read_table, strategy_named
from subsets import SubsetData

CELL = Cell("set", "subset", "freeze 6", 0.1, 0)


def line_of(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in Cell.__slots__} | {
        "epochs": 1,
        "seconds": 0.0,
        "val_accuracy": 1.0,
        "test_accuracy": 1.0,
    }


def subset_data(name: str, n_train: int, seed: int = 0) -> SubsetData:
    split = np.array(["train"] * n_train + ["val", "test"])
    labels = np.zeros(len(split), dtype=np.int64)
    return SubsetData(name, Path(name), ("a",), tuple(map(str, range(len(split)))), labels, {"subset": split}, seed)


def test_epochs_make_enough_steps_on_small_sets() -> None:
    strategy = strategy_named("freeze 6")
    assert epochs_of(strategy, 480) == 6, "15 steps each"
    assert epochs_of(strategy, 160) == 9, "5 steps each: 45 in all"
    assert epochs_of(strategy, 30) == 45


def test_the_first_seed_and_the_cheapest_come_first() -> None:
    cells = plan([subset_data(name, n, seed) for seed in (1, 0) for name, n in (("large", 400), ("small", 40))])
    assert len(set(cells)) == len(cells)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    first = [cell for cell in cells if cell.seed == 0]
    assert {cell.strategy for cell in first[:6]} == {strategy.name for strategy in oracle.STRATEGIES[:3]}
    assert (first[6].set, first[6].strategy) == ("small", "freeze 6")
    assert (first[-1].set, first[-1].strategy) == ("large", "from scratch")
    assert [cell.strategy for cell in first[-4:]] == 4 * ["from scratch"]  # two sets and rates
    assert [replace(cell, seed=0) for cell in cells[len(first) :]] == first


def test_a_line_comes_back_with_its_key(tmp_path: Path) -> None:
    append_line(tmp_path / "cells.jsonl", line_of(CELL))
    assert [key_of(line) for line in read_table(tmp_path / "cells.jsonl")] == [CELL]


def test_no_table_yet_has_no_lines(tmp_path: Path) -> None:
    assert read_table(tmp_path / "cells.jsonl") == []


def test_half_a_line_is_computed_again_and_spoils_no_other(tmp_path: Path) -> None:
    table = tmp_path / "cells.jsonl"
    append_line(table, line_of(CELL))
    whole = table.read_bytes()
    table.write_bytes(whole + whole[:30])
    second = Cell("set", "subset", "freeze 4", 0.1, 0)
    assert [key_of(line) for line in read_table(table)] == [CELL]
    append_line(table, line_of(second))
    assert [key_of(line) for line in read_table(table)] == [CELL, second]


def test_work_computes_what_is_missing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[Cell] = []

    def compute(cell: Cell, ready: SubsetData) -> dict[str, Any]:
        assert ready.seed == cell.seed
        computed.append(cell)
        return line_of(cell)

    draws = [subset_data("set", 40, seed) for seed in oracle.SEEDS]
    monkeypatch.setattr(oracle, "read_set", lambda folder, seed: draws[seed])
    monkeypatch.setattr(oracle, "make_ready", lambda data, work: data)
    monkeypatch.setattr(oracle, "compute_cell", compute)
    table = tmp_path / "cells.jsonl"
    wanted = plan(draws)
    append_line(table, line_of(wanted[3]))
    oracle.work([Path("set")], table, until=float("inf"))
    assert computed == [cell for cell in wanted if cell != wanted[3]]
    oracle.work([Path("set")], table, until=float("inf"))
    assert len(read_table(table)) == len(wanted)


def test_no_cell_is_begun_when_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "read_set", lambda folder, seed: subset_data("set", 40, seed))
    oracle.work([Path("set")], tmp_path / "cells.jsonl", until=0.0)
    assert read_table(tmp_path / "cells.jsonl") == []
