"""Wrong input, damaged run folders, odd environments and faults: what is said, what happens, what is left behind.

    python benchmarks/torture.py [--only KIND ...] [--without-fits] [--table FILE]

Every case is a process of its own (torture_cases.py). It is right if it ends within its time with an exit code that it
may have, says what it should, shows no traceback, and leaves nothing behind: no process, no temporary file, no run
folder without a model, and a data set as it was. Prints what was wrong, and a table by kind; ends with 1 if a case was.
Some cases need Linux, some root (another user, a small disk); what cannot be tried here is counted as such.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from torture_cases import AUTOTL, Case, Skipped, Stage, all_cases

MARK = "AUTOTL_TORTURE"
"""A variable in the environment of a case's processes, by which they are found."""
PATIENCE = 15.0
"""Seconds in which processes that were below the command have to be gone."""
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^\w*Error:|Segmentation fault|Bus error|core dumped", re.M)


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: Case
    code: int | None
    output: str
    seconds: float
    wrong: tuple[str, ...]
    skipped: str = ""


def main() -> int:
    """Run the cases; 1 if one of them was not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="KIND", help="kinds of cases, or beginnings of their names")
    parser.add_argument("--without-fits", action="store_true", help="leave out what takes longer than a few seconds")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table there as well")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    folder.chmod(0o755)
    try:
        stage = Stage(folder)
        outcomes = []
        for case in all_cases(stage):
            wanted = not chosen.only or any(f"{case.kind}: {case.name}".startswith(some) for some in chosen.only)
            if wanted and not (chosen.without_fits and case.fits):
                outcomes.append(tried(case, stage))
                show(outcomes[-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = table(outcomes)
    print("\n" + text)
    if chosen.table is not None:
        chosen.table.write_text(text + "\n", "utf-8")
    return int(any(outcome.wrong for outcome in outcomes))


def tried(case: Case, stage: Stage) -> Outcome:
    """Run a case in a folder of its own."""
    place = stage.new_place()
    mark = uuid.uuid4().hex
    begun = time.monotonic()
    try:
        if case.wrapped and subprocess.run([*case.wrapped, "true"], capture_output=True).returncode:
            raise Skipped(f"{case.wrapped[0]} is not allowed")
        prepared = case.prepare(stage, place)
    except (Skipped, FileNotFoundError) as reason:
        return Outcome(case, None, "", 0.0, (), str(reason))
    try:
        environment = stage.environment(place) | {MARK: mark} | prepared.environment
        environment = {name: value for name, value in environment.items() if value is not None}
        data_before = stage.fingerprint()
        code, output = run(case, prepared.command, prepared.cwd or place / "cwd", environment, prepared.fault)
        wrong = list(judge(case, code, output))
        wrong += [f"processes left: {', '.join(left)}" for left in [processes_left(mark)] if left]
        left = [name for name in names(place / "tmp") if name not in output]  # a list of all problems is named
        wrong += [f"left in the temporary folder: {', '.join(left)}"] if left else []
        if stage.fingerprint() != data_before:
            wrong.append("the data set has changed")
        wrong += prepared.check(output) if prepared.check is not None else []
    finally:
        prepared.undo()
        end_all(mark)
    return Outcome(case, code, output, time.monotonic() - begun, tuple(wrong))


def run(case: Case, command, cwd: Path, environment, fault) -> tuple[int | None, str]:
    """The exit code (None if it did not end) and all output."""
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            [*case.wrapped, *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_take_signals,
        )
        end = time.monotonic() + case.seconds
        try:
            if fault is not None:
                fault(process, end)
            code: int | None = process.wait(max(1.0, end - time.monotonic()))
        except (subprocess.TimeoutExpired, TimeoutError):
            code = None
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        file.seek(0)
        return code, file.read().decode("utf-8", "replace")


def _take_signals() -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def judge(case: Case, code: int | None, output: str) -> list[str]:
    """What is wrong with how a command ended and what it said."""
    wrong = []
    if code is None:
        wrong.append(f"hung: not over after {case.seconds:g} s")
    elif code not in case.codes:
        wrong.append(f"exit code {code}, allowed {', '.join(map(str, case.codes))}")
    if TRACEBACK.search(output):
        wrong.append("traceback")
    text = " ".join(output.split())
    wrong += [f"does not say {pattern!r}" for pattern in case.says if not re.search(pattern, text, re.IGNORECASE)]
    if len(output) > case.longest:
        wrong.append(f"{len(output):,} characters")
    return wrong


def marked(mark: str) -> dict[int, str]:
    """Processes of a case that still run, with their commands."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                found[int(entry.name)] = command[:60].strip()
    return found


def processes_left(mark: str) -> list[str]:
    """What still runs after a while."""
    end = time.monotonic() + PATIENCE
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.2)
    return list(left.values())


def end_all(mark: str) -> None:
    """End what a case left running, by its ids."""
    for process in marked(mark):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def names(folder: Path) -> list[str]:
    """What lies in a folder; nothing if it is gone. torch makes a folder for its compiler as soon as it is imported."""
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in found if not name.startswith("torchinductor_")]


def show(outcome: Outcome) -> None:
    """A line for a case, and what it said where it was wrong."""
    verdict = f"skipped ({outcome.skipped})" if outcome.skipped else "WRONG" if outcome.wrong else "right"
    print(f"{verdict:8} {outcome.seconds:6.1f} s  {outcome.case.kind}: {outcome.case.name}", flush=True)
    for line in outcome.wrong:
        print(f"    {line}")
    if outcome.wrong:
        print("    | " + "\n    | ".join(outcome.output.strip()[-1500:].splitlines()), flush=True)


def table(outcomes: list[Outcome]) -> str:
    """Cases, and what was wrong, by kind."""
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        kinds[outcome.case.kind].append(outcome)

    def row(name: str, some: list[Outcome]) -> str:
        ran = [outcome for outcome in some if not outcome.skipped]
        texts = [" ".join(outcome.wrong) for outcome in ran]
        counts = (
            len(ran),
            sum(not text for text in texts),
            sum("traceback" in text for text in texts),
            sum("hung" in text for text in texts),
            sum("left" in text or "has changed" in text for text in texts),
            len(some) - len(ran),
        )
        return f"| {name} | " + " | ".join(map(str, counts)) + " |"

    names_of_columns = ("kind", "cases", "right", "tracebacks", "hangs", "left or lost", "not tried here")
    head = f"| {' | '.join(names_of_columns)} |\n|{'---|' * len(names_of_columns)}"
    rows = [row(name, some) for name, some in kinds.items()]
    return "\n".join([head, *rows, row("**all**", outcomes)])


if __name__ == "__main__":
    assert AUTOTL[0] == sys.executable
    sys.exit(main())
