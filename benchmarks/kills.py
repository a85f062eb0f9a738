"""SIGKILL at random moments of a long fit, and what is left of it.

    python benchmarks/kills.py DIR [--kills 20] [--longest 40] [--seed 0] [--quiet-fit SECONDS]

A run is begun and then gone on with, again and again (`autotl fit --resume`). In every session, at a random moment, the
driver or one of Ray's workers is killed; a session whose worker was killed goes on to its end. After every kill: no
trial that had ended is lost, there is a model, it predicts, and the next session begins from what there is. The last
session is left alone. With --quiet-fit, a fit of so many seconds that nothing befalls follows, for its score.
Ends with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fit import with_test_split
from torture_cases import AUTOTL, QUICK, workers_below

LAST_SECONDS = 60


def main() -> int:
    """Kill, go on, and look; 1 if a trial or the model was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=40.0, help="seconds after which a kill comes at the latest")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of who is killed")
    parser.add_argument(
        "--quiet-fit", type=float, metavar="SECONDS", help="a fit that nothing befalls, to compare with"
    )
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, with_test_split(chosen.data) as data:
        run = Path(folder) / "run"
        print(" kill  what    after s  trials  resumed  best score  lost")
        for number in range(1, chosen.kills + 1):
            before = lines(run)
            what, seconds = befallen(command(data, run, 120), run, chance, chosen.longest)
            found = list(lost(before, run, data))
            problems += [f"kill {number}: {problem}" for problem in found]
            show(number, what, seconds, run, found)
        subprocess.run(command(data, run, LAST_SECONDS), check=True, stdout=subprocess.DEVNULL)
        problems += lost(lines(run), run, data)
        scores = {"after all kills": tested(run)}
        if chosen.quiet_fit:
            quiet = Path(folder) / "quiet"
            subprocess.run(command(data, quiet, chosen.quiet_fit), check=True, stdout=subprocess.DEVNULL)
            scores["left alone"] = tested(quiet)
    for name, score in scores.items():
        print(f"{name}: test accuracy {100 * score:.2f}%")
    print("\n".join(problems) or f"{chosen.kills} kills: nothing lost")
    return int(bool(problems))


def command(data: Path, run: Path, seconds: float) -> list[str]:
    """A fit, or one more session of the run that there is."""
    time_limit = ("--timeout", f"{seconds:g}s")
    if (run / "model" / "model.json").exists():
        return [*AUTOTL, "fit", "--resume", str(run), *time_limit]
    return [*AUTOTL, "fit", str(data), *QUICK, *time_limit, "--output", str(run)]


def befallen(words: list[str], run: Path, chance: random.Random, longest: float) -> tuple[str, float]:
    """Begin a session, kill one of its processes at a random moment after it has a model, and see it end."""
    begun = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    moment = begun + chance.uniform(3.0, longest)
    of_a_worker = chance.random() < 0.5
    while process.poll() is None and (time.monotonic() < moment or not (run / "model" / "model.json").exists()):
        time.sleep(0.05)
    victims = workers_below(process) if of_a_worker else []
    seconds = time.monotonic() - begun
    if victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(victims), signal.SIGKILL)
        time.sleep(chance.uniform(2.0, 15.0))
        process.send_signal(signal.SIGINT)  # the worker's death is looked at, the rest of the session is not
        process.wait(60)
        return "worker", seconds
    process.kill()
    process.wait()
    return "driver", seconds


def lines(run: Path) -> list[str]:
    """The records of trials that are whole."""
    path = run / "trials.jsonl"
    text = path.read_text("utf-8") if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def lost(before: list[str], run: Path, data: Path) -> list[str]:
    """What should be there and is not."""
    problems = []
    if lines(run)[: len(before)] != before:
        problems.append("records of trials are lost or changed")
    image = next((data / "test").rglob("*.*"))
    done = subprocess.run([*AUTOTL, "predict", str(run), str(image)], capture_output=True, text=True)
    if done.returncode:
        problems.append(f"the model does not predict: {done.stderr.strip()[:300]}")
    return problems


def show(number: int, what: str, seconds: float, run: Path, found: list[str]) -> None:
    """A row of the table."""
    records = [json.loads(line) for line in lines(run)]
    searched = [record for record in records if record["origin"] != "probe"]
    resumed = sum(bool(record.get("resumes")) for record in searched)
    best = max((record["score"] for record in records if record["score"] is not None), default=float("nan"))
    row = (
        f"{number:5}  {what:7} {seconds:7.1f}  {len(searched):6}  {resumed:7}  {best:10.4f}  {'; '.join(found) or '-'}"
    )
    print(row, flush=True)


def tested(run: Path) -> float:
    """Accuracy on the test images."""
    return float(json.loads((run / "result.json").read_text("utf-8"))["test"]["value"])


if __name__ == "__main__":
    sys.exit(main())
