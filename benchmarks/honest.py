"""Are validation intervals honest for a winner? The best of several models on the validation images is partly luck.

    python benchmarks/honest.py [--table benchmarks/table/cells.jsonl]

From the cells of the oracle table: for every set, subset and seed the winner among its cells, chosen as a search
chooses (by accuracy, then by log loss), and every cell for itself. Printed for both:

- by how much the validation score is above the test score, with its standard error over the groups;
- the share of 95% intervals that hold the score of the test images;
- the share that would hold it without any luck, by simulation: test images are a sample as well.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotl.train.intervals import wilson_interval

TABLE = Path(__file__).parent / "table" / "cells.jsonl"
DRAWS = 2000

Cell = dict[str, Any]


def groups_of(cells: Sequence[Cell]) -> dict[tuple[str, str, int], list[Cell]]:
    """The cells that compete with one another, by set, subset and seed."""
    groups: dict[tuple[str, str, int], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell["set"], cell["subset"], cell["seed"]].append(cell)
    return {key: rivals for key, rivals in groups.items() if len(rivals) > 1}


def winner_of(rivals: Sequence[Cell]) -> Cell:
    """The cell that a search would choose."""
    return max(rivals, key=lambda cell: (cell["val_accuracy"], -cell["val_log_loss"]))


def holds(cell: Cell) -> bool:
    """Whether the interval of the validation accuracy holds the accuracy on the test images."""
    low, high = wilson_interval(cell["val_accuracy"] * cell["n_val"], cell["n_val"])
    return bool(low <= cell["test_accuracy"] <= high)


def expected_share(cells: Sequence[Cell], seed: int = 0) -> float:
    """The share of intervals that would hold if validation and test images were drawn from one accuracy."""
    generator, held = np.random.default_rng(seed), 0
    for cell in cells:
        n_val, n_test = cell["n_val"], cell["n_test"]
        right = cell["val_accuracy"] * n_val + cell["test_accuracy"] * n_test
        truth = (right + 0.5) / (n_val + n_test + 1)
        for val, test in zip(
            *(generator.binomial(n, truth, DRAWS // len(cells) + 1) for n in (n_val, n_test)), strict=True
        ):
            low, high = wilson_interval(float(val), n_val)
            held += low <= test / n_test <= high
    return held / (len(cells) * (DRAWS // len(cells) + 1))


def report(name: str, groups: Sequence[Sequence[Cell]]) -> str:
    """A line: groups are independent, cells of a group are not."""
    cells = [cell for group in groups for cell in group]
    above = [100 * float(np.mean([cell["val_accuracy"] - cell["test_accuracy"] for cell in group])) for group in groups]
    error = float(np.std(above, ddof=1)) / len(above) ** 0.5
    share = float(np.mean([np.mean([holds(cell) for cell in group]) for group in groups]))
    return (
        f"{name:<28}{len(groups):>6} groups {np.mean(above):+6.2f} ± {error:.2f} points "
        f"{100 * share:6.1f}% hold, {100 * expected_share(cells):.1f}% would without luck"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    cells = [json.loads(line) for line in parser.parse_args().table.read_text("utf-8").splitlines()]
    groups = groups_of(cells)
    for subset in ("600 images", "20 a class"):
        chosen = [rivals for (_, of, _), rivals in groups.items() if of == subset]
        print(report(f"{subset}, winners", [[winner_of(rivals)] for rivals in chosen]))
        print(report(f"{subset}, all", chosen))


if __name__ == "__main__":
    main()
