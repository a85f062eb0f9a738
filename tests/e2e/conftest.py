"""Helpers for tests that run autotl as its users do: in processes of its own, on a pipe or a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

LITE0 = "tf_efficientnet_lite0.in1k"
AUTOTL = (sys.executable, "-m", "autotl.cli")
QUICK = ("--backbone", LITE0, "--space", "quick")
# Puts itself into the foreground of the terminal on its standard input, so that Ctrl-C reaches the whole group.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
_COLOUR_SWITCHES = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "PYTHONPATH")


def environment(**changes: str) -> dict[str, str]:
    """That of the tests (without the network), on a terminal that knows colours."""
    kept = {name: value for name, value in os.environ.items() if name not in _COLOUR_SWITCHES}
    return kept | {"HF_HUB_OFFLINE": "1", "TERM": "xterm-256color"} | changes


def wait_for(
    condition: Callable[[], Any],
    what: str,
    seconds: float = 120,
    process: Any = None,
    output: Callable[[], str] = str,
) -> Any:
    """Ask `condition` ten times a second until it gives something true, which is returned.

    `process` is what has to go on running meanwhile, and `output` gives what it printed.
    """
    pause = threading.Event()
    for _ in range(int(seconds * 10)):
        found = condition()
        if found:
            return found
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} while waiting for {what}:\n{output()[-4000:]}")
        pause.wait(0.1)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


def records(run: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's trials so far."""
    path = run / "trials.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


def searched(run: Path) -> list[dict[str, Any]]:
    """Those without the linear probes."""
    return [record for record in records(run) if record["origin"] != "probe"]


def _stat(pid: int) -> tuple[int, str, str] | None:
    """Parent, state and start time of a process, or None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0], fields[19]


def descendants(pid: int) -> dict[int, str]:
    """Process ids below `pid`, with their start times (an id that is given away anew is another process).

    Without Ray's two idle agents, which notice only after a minute that the daemon above them was killed.
    """
    stats = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        children = {child: stat[2] for child, stat in stats.items() if stat is not None and stat[0] in parents}
        parents = set(children) - set(found)
        found |= children
    return {child: started for child, started in found.items() if not _is_agent(child)}


def _is_agent(pid: int) -> bool:
    try:
        return "Agent" in Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")
    except OSError:
        return False


def alive(processes: dict[int, str]) -> list[int]:
    """Which of them still run."""
    stats = {pid: _stat(pid) for pid in processes}
    return [pid for pid, stat in stats.items() if stat is not None and stat[1] != "Z" and stat[2] == processes[pid]]


def _take_signals() -> None:
    """In a process that is about to begin: the tests may run where a signal is ignored, as with `nohup`."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, command: Sequence[str], cwd: Path, **changes: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=environment(**changes),
            start_new_session=True,
            preexec_fn=_take_signals,
        )
        os.close(slave)
        self._closed = False
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error
            while chunk := os.read(self._master, 65536):
                self._chunks.append(chunk)

    def press_ctrl_c(self) -> None:
        """What the key does: SIGINT to everything in the foreground."""
        os.write(self._master, b"\x03")

    def hang_up(self) -> None:
        """Close it, as a window is closed or a connection breaks: what runs on it gets SIGHUP, and cannot print."""
        self._closed = True
        os.killpg(self.process.pid, signal.SIGHUP)
        os.close(self._master)

    def wait(self, seconds: float) -> str:
        """All output, once the command has ended."""
        self.process.wait(seconds)
        self._reader.join(10)
        return self.text

    @property
    def text(self) -> str:
        """The output so far."""
        return b"".join(self._chunks).decode("utf-8", "replace")

    def close(self) -> None:
        """End the command if it still runs."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
        if not self._closed:
            os.close(self._master)


class Commands:
    """Runs autotl and other programs, and ends those that a failed test left running."""

    LITE0 = LITE0
    QUICK = QUICK
    AUTOTL = AUTOTL
    environment = staticmethod(environment)
    wait_for = staticmethod(wait_for)
    searched = staticmethod(searched)
    descendants = staticmethod(descendants)
    alive = staticmethod(alive)

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._terminals: list[Terminal] = []

    def run(self, *arguments: object, cwd: Path, seconds: float = 180, **changes: str) -> Any:
        """`autotl ARGUMENTS` to its end, with what it printed."""
        return self.run_program(*AUTOTL, *arguments, cwd=cwd, seconds=seconds, **changes)

    def run_program(self, *command: object, cwd: Path, seconds: float = 180, **changes: str) -> Any:
        """Any program to its end, with what it printed."""
        return subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=environment(**changes),
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *arguments: object, cwd: Path, output: Path) -> subprocess.Popen[str]:
        """`autotl ARGUMENTS`, left running, with its standard output and errors in a file."""
        with open(output, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [*AUTOTL, *(str(word) for word in arguments)],
                cwd=cwd,
                env=environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                preexec_fn=_take_signals,
            )
        self._started.append(process)
        return process

    def on_terminal(self, *arguments: object, cwd: Path, **changes: str) -> Terminal:
        """`autotl ARGUMENTS` on a terminal."""
        self._terminals.append(Terminal([*AUTOTL, *(str(word) for word in arguments)], cwd, **changes))
        return self._terminals[-1]

    def close(self) -> None:
        """End what still runs."""
        for terminal in self._terminals:
            terminal.close()
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait(30)


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Runs programs."""
    started = Commands()
    yield started
    started.close()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]) -> Path:
    """60 coloured shapes for training and 18 for the test. Read-only."""
    root = tmp_path_factory.mktemp("e2e-data")
    write_shapes(root / "train", 20, seed=0)
    write_shapes(root / "test", 6, seed=1)
    return root


@pytest.fixture(scope="session")
def json_fit(commands: Commands, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run folder made on the command line with `fit --json`, and what that printed. Read-only."""
    folder = tmp_path_factory.mktemp("json-fit")
    done = commands.run(
        "fit", dataset, *QUICK, "--n-trials", 2, "--timeout", "10m", "--output", "run", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "run", done
