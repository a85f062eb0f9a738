"""How long a fit takes against the time it was given, from the start of its process to its end.

    python benchmarks/overrun.py DIR [DIR ...] [--times 30 60] [--beside 0 1] [--table FILE]

Every fit has an empty cache of its own, and runs alone or beside programs that keep so many cores busy. At most 5% and
5 s more than was given are allowed, and there has to be a model. A data set "classes:N" is one of N classes of five
small coloured pictures, made here. Prints a row a fit; ends with 1 if one took longer, or has no model.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from torture_cases import AUTOTL
from waiting import busy

SHARE, SECONDS = 0.05, 5.0
"""Of the time given, and beside that, may be taken more."""
IMAGES_A_CLASS = 5


def main() -> int:
    """Fit and time; 1 if a fit overran or has no model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DIR")
    parser.add_argument("--times", nargs="+", type=int, default=[30, 60])
    parser.add_argument("--beside", nargs="+", type=int, default=[0], metavar="CORES")
    parser.add_argument("--table", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    rows = ["| data | given | beside | taken | over the limit | trials | validation |", "|---|---|---|---|---|---|---|"]
    bad = 0
    print("\n".join(rows), flush=True)
    for name in chosen.data:
        with folder_of(name) as data:
            for given in chosen.times:
                for cores in chosen.beside:
                    with busy(cores):
                        row, fine = timed(data, Path(name).name, given, cores)
                    rows.append(row)
                    bad += not fine
                    print(row, flush=True)
    if chosen.table is not None:
        chosen.table.write_text("\n".join(rows) + "\n", "utf-8")
    print(f"{len(rows) - 2} fits, {bad} over their limit or without a model")
    return int(bad > 0)


@contextmanager
def folder_of(name: str) -> Iterator[Path]:
    """The data set, or one that is made here."""
    if not name.startswith("classes:"):
        yield Path(name)
        return
    rng, count = np.random.default_rng(0), int(name.removeprefix("classes:"))
    with tempfile.TemporaryDirectory(prefix="classes-") as folder:
        for number in range(count):
            (Path(folder) / f"{number:04d}").mkdir()
            colour = np.array(colorsys.hsv_to_rgb(number / count, 0.5 + 0.5 * (number % 2), 1.0)) * 180
            for place in range(IMAGES_A_CLASS):
                pixels = (colour + rng.integers(0, 70, (96, 96, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(Path(folder) / f"{number:04d}" / f"{place}.png")
        yield Path(folder)


def timed(data: Path, name: str, given: int, cores: int) -> tuple[str, bool]:
    """A row of the table, and whether the limit held."""
    with tempfile.TemporaryDirectory(prefix="overrun-") as folder:
        run = Path(folder) / "run"
        environment = os.environ | {"AUTOTL_CACHE_DIR": str(Path(folder) / "cache")}
        begun = time.monotonic()
        command = [*AUTOTL, "fit", str(data), "--timeout", f"{given}s", "--output", str(run), "--quiet"]
        code = subprocess.run(command, env=environment).returncode
        taken = time.monotonic() - begun
        result = json.loads((run / "result.json").read_text("utf-8")) if code == 0 else {}
    over = taken - given * (1 + SHARE) - SECONDS
    beside = "nothing" if not cores else "a busy core" if cores == 1 else f"{cores} busy cores"
    trials = sum(result.get("trials", {}).values())
    score = f"{result['validation']['value']:.4f}" if result else f"none (exit code {code})"
    late = f"{over:.1f} s" if over > 0 else "-"
    return f"| {name} | {given} s | {beside} | {taken:.1f} s | {late} | {trials} | {score} |", code == 0 and over <= 0


if __name__ == "__main__":
    sys.exit(main())
