"""How often do 95% intervals hold the truth? By simulation; see `autotl.train.intervals`.

    python benchmarks/coverage.py [--repeats 400]

Prints for every metric, layout of classes and number of images the share of intervals that hold the true value: the
mean over recalls from 0.5 to 0.995, the smallest of them, and the mean width. The truth is what up to a thousand times
as many images of the same kind give.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import mean

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from autotl.train.metrics import estimate

RECALLS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
SIZES = (10, 30, 100, 300, 1000)
METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc")
TRUTH_TIMES = 1000


def layouts(n: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Names and images a class, of layouts that `n` images are enough for."""
    yield "2 even", np.array([n - n // 2, n // 2])
    yield "2 at 20:1", np.array([n - max(1, n // 21), max(1, n // 21)])
    if n >= 10:
        yield "10 even", np.full(10, n // 10)
        shares = np.geomspace(20, 1, 10)
        yield "10 at 20:1", np.maximum(1, np.round(n * shares / shares.sum())).astype(np.int64)
    if n >= 100:
        yield "100 even", np.full(100, n // 100)


def simulate(
    counts: NDArray[np.int64], recall: float, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities and labels: one logit is normal around a shift for the image's class, all others around zero."""
    size = len(counts)
    labels = np.repeat(np.arange(size), counts)
    shifts = shift_for(recall, size) * (1 + 0.05 * np.linspace(-1, 1, size))
    logits = generator.normal(size=(len(labels), size))
    logits[np.arange(len(labels)), labels] += shifts[labels]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels


def shift_for(recall: float, size: int) -> float:
    """The shift with which the largest of `size` logits is the image's own with this probability."""
    grid = np.linspace(-8, 12, 4001)
    others = norm.cdf(grid) ** (size - 1)
    low, high = -2.0, 12.0
    for _ in range(40):
        middle = (low + high) / 2
        found = float((norm.pdf(grid - middle) * others).sum() * (grid[1] - grid[0]))
        low, high = (middle, high) if found < recall else (low, middle)
    return low


def coverage(
    metric: str, counts: NDArray[np.int64], repeats: int, recalls: tuple[float, ...] = RECALLS, seed: int = 0
) -> tuple[list[float], float]:
    """The share of intervals that hold the truth, for each of these recalls, and their mean width."""
    generator = np.random.default_rng(seed)
    shares, widths = [], []
    for recall in recalls:
        times = max(1, min(TRUTH_TIMES, 200_000 // int(counts.sum())))
        truth = estimate(metric, *simulate(counts * times, recall, generator)).value
        held = 0
        for _ in range(repeats):
            found = estimate(metric, *simulate(counts, recall, generator))
            held += found.low <= truth <= found.high
            widths.append(found.high - found.low)
        shares.append(held / repeats)
    return shares, mean(widths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400, help="a recall (default: 400)")
    repeats = parser.parse_args().repeats
    print("| metric | images | classes | coverage, mean | smallest | width |\n|---|---|---|---|---|---|")
    for metric in METRICS:
        for n in SIZES:
            for name, counts in layouts(n):
                shares, width = coverage(metric, counts, repeats)
                print(
                    f"| {metric} | {n} | {name} | {100 * mean(shares):.1f}% | {100 * min(shares):.1f}% | "
                    f"{100 * width:.1f} points |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
