"""What a search makes of its time: fits by this checkout and by an older one, alternating, on the same data and limits.

    python benchmarks/spend.py DIR [DIR ...] --old CHECKOUT --times 60 300 --seeds 0 1 2 --table spend.jsonl
    python benchmarks/spend.py --table spend.jsonl --show

CHECKOUT is a working tree of the older version, for example made by `git worktree add CHECKOUT COMMIT`; both run in
this environment, each with an empty cache. A line of JSON is added to the table as each fit ends; fits that are there
are not repeated. A folder without a test split gets one, always the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from fit import with_test_split
from oracle import append_line, read_table

HERE = Path(__file__).resolve().parents[1]
GRACE = 60.0
"""Seconds beyond the limit after which a fit is ended, and counts as one without a model."""


def run_fit(checkout: Path, folder: Path, seconds: int, seed: int) -> dict[str, Any]:
    """One fit as a process of its own; what is kept of it."""
    with tempfile.TemporaryDirectory(prefix="spend-") as temporary:
        run = Path(temporary, "run")
        command = [sys.executable, "-m", "autotl.cli", "fit", str(folder), "--timeout", str(seconds)]
        command += ["--seed", str(seed), "--json", "--output", str(run)]
        environment = os.environ | {
            "PYTHONPATH": str(checkout),
            "AUTOTL_CACHE_DIR": f"{temporary}/cache",
            "HF_HUB_OFFLINE": "1",
        }
        begun = time.perf_counter()
        try:
            done = subprocess.run(
                command, env=environment, cwd=temporary, capture_output=True, text=True, timeout=seconds + GRACE
            )
        except subprocess.TimeoutExpired:
            return {"test": None, "seconds": seconds + GRACE, "error": "did not end"}
        if done.returncode:
            return {"test": None, "seconds": time.perf_counter() - begun, "error": done.stderr[-500:]}
        trials = [json.loads(line) for line in (run / "trials.jsonl").read_text("utf-8").splitlines()]
        return summary(json.loads(done.stdout), trials, time.perf_counter() - begun)


def summary(result: dict[str, Any], trials: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What matters of a fit.

    Args:
        result: what `autotl fit --json` printed.
        trials: lines of its trials.jsonl.
        seconds: wall time of the process.
    """
    probes = [trial["score"] for trial in trials if trial["origin"] == "probe"]
    searched = [trial for trial in trials if trial["origin"] not in ("probe", "benefit")]
    schedule = result.get("schedule") or {}
    return {
        "metric": result["metric"],
        "test": result["test_metrics"]["accuracy"],
        "validation": result["validation"]["value"],
        "interval": [result["validation"]["low"], result["validation"]["high"]],
        "test_score": None if result["test"] is None else result["test"]["value"],
        "probe": max(probes),
        "best_trial": max((trial["score"] for trial in searched if trial["score"] is not None), default=None),
        "trials": result["trials"],
        "trial_seconds": round(sum(trial["seconds"] for trial in searched), 1),
        "winner": result["winner"]["trial_id"],
        "depth": result["winner"]["config"]["freeze_depth"],
        "plan": schedule.get("sentence", ""),
        "seconds": round(seconds, 1),
    }


def measure(folders: list[Path], versions: dict[str, Path], times: list[int], seeds: list[int], table: Path) -> None:
    """Fill the table, the versions in turn for every set, limit and seed."""
    there = {key_of(row) for row in read_table(table)}
    for seed in seeds:
        for seconds in times:
            for folder in folders:
                with with_test_split(folder) as root:
                    for version, checkout in versions.items():
                        head = {"set": folder.name, "limit": seconds, "seed": seed, "version": version}
                        if key_of(head) in there:
                            continue
                        row = head | run_fit(checkout, root, seconds, seed)
                        print(json.dumps(row), flush=True)
                        append_line(table, row)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row is about."""
    return row["set"], row["limit"], row["seed"], row["version"]


def show(rows: list[dict[str, Any]]) -> None:
    """Mean test accuracy by set and limit, the difference, and how much of the time was spent in trials."""
    cells: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["test"] is not None:
            cells[row["set"], row["limit"]][row["version"]].append(row)
    print("| set | limit | fits | linear probe (val) | old | new | difference | seconds old | new | plan of the last |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    differences = defaultdict(list)
    for (name, limit), versions in sorted(cells.items(), key=lambda item: (item[0][1], item[0][0])):
        if len(versions) < 2:
            continue
        old, new = (mean(100 * row["test"] for row in versions[version]) for version in ("old", "new"))
        differences[limit].append(new - old)
        last = versions["new"][-1]
        seconds = " | ".join(f"{mean(row['seconds'] for row in versions[version]):.0f}" for version in ("old", "new"))
        print(
            f"| {name} | {limit} s | {len(versions['old'])} + {len(versions['new'])} | {100 * last['probe']:.1f} | "
            f"{old:.2f} | {new:.2f} | {new - old:+.2f} | {seconds} | {last['plan']} |"
        )
    held = [row["interval"][0] <= row["test_score"] <= row["interval"][1] for row in rows if row.get("test_score")]
    if held:
        print(f"\nvalidation intervals that hold the test score: {sum(held)} of {len(held)}")
    for limit, values in differences.items():
        print(f"\nmean difference at {limit} s: {mean(values):+.2f} points over {len(values)} sets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="data sets")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="a working tree of the older version")
    parser.add_argument("--times", type=int, nargs="+", default=[300], help="limits in seconds (default: 300)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    parser.add_argument("--table", type=Path, required=True, help="file of JSON lines")
    parser.add_argument("--show", action="store_true", help="print what is in the table")
    chosen = parser.parse_args()
    versions = {"new": HERE} | ({"old": chosen.old.resolve()} if chosen.old else {})
    folders = [folder.resolve() for folder in chosen.folders]
    measure(folders, versions, chosen.times, chosen.seeds, chosen.table)
    if chosen.show:
        show(read_table(chosen.table))


if __name__ == "__main__":
    main()
