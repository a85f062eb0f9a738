"""What the user sees. The only file that prints: live on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from autotl import clock
from autotl.records import TrialRecord, interval_text
from autotl.result import FitResult
from autotl.streams import SteadyStream

if TYPE_CHECKING:
    from autotl.advice.advisor import Advice
    from autotl.advice.benefit import Benefit
    from autotl.result import Reproduction

log = logging.getLogger("autotl")

_COLUMNS = (
    ("trial", 5),
    ("status", 9),
    ("score", 7),
    ("best", 7),
    ("depth", 7),
    ("rate", 7),
    ("augmentation", 12),
    ("epochs", 6),
    ("time", 6),
    ("planned", 7),
    ("left", 6),
)


class Console:
    """Prints to standard output, and everything into the log of the run as well.

    Args:
        quiet: print nothing but errors.
        deadline: clock.now() at which the fit has to be done, for "time left".
    """

    def __init__(self, *, quiet: bool = False, deadline: float = 0.0) -> None:
        # soft_wrap leaves the breaking of lines to the terminal, so that output in a file can be searched.
        output = cast(IO[str], SteadyStream("stdout"))
        self._rich = RichConsole(file=output, quiet=quiet, highlight=False, soft_wrap=True, emoji=False)
        self._live = self._rich.is_terminal and not quiet
        self._deadline = deadline
        self._best = float("-inf")
        self._notes: set[str] = set()  # each reason is shown once
        self._n_stages: dict[str, int] = {}  # by backbone

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line of text."""
        self._rich.print(text, style=style, markup=False)
        if text:
            log.info(text)

    def heading(self, text: str) -> None:
        """A heading above a block of lines."""
        self.line()
        self.line(text, style="bold")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for work with a known number of items; on a terminal only. Gives the function that moves it."""
        if not self._live:
            yield lambda done: None
            return
        columns = (TextColumn("  {task.description}"), BarColumn(30), TextColumn("{task.completed}/{task.total}"))
        with Progress(*columns, console=self._rich, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)

    @contextmanager
    def countdown(self, total: float) -> Iterator[None]:
        """A bar of the time that the search has left, below the table; on a terminal only."""
        if not self._live or total <= 0:
            yield
            return
        columns = (TextColumn("  searching"), BarColumn(30), TextColumn("{task.fields[left]} left"))
        end = clock.now() + total
        with _Countdown(*columns, end=end, total=total, console=self._rich, transient=True):
            yield

    # -- as a callback of a fit ----------------------------------------------------------------------------------

    def on_advice(self, advice: Advice) -> None:
        """All statements of the advice."""
        self._n_stages = {backbone.name: backbone.n_stages for backbone in advice.backbones}
        self.heading("Advice")
        for statement in advice.statements:
            self.line(f"  {statement.text}", "yellow" if statement.severity == "warning" else None)

    def on_trial(self, trial: TrialRecord) -> None:
        """A row of the table of trials; a probe only counts for the best score, and others were shown as they ran."""
        if trial.searched:
            self._row(trial)
        elif trial.origin == "probe" and trial.score is not None:
            self._best = max(self._best, trial.score)

    def on_end(self, result: FitResult) -> None:
        """The best model, its score with the interval, and where everything is."""
        card = result.predictor.card
        self.heading("Winner")
        self.line(f"  {result.winner}")
        if "average" in card.provenance:
            self.line(f"  averaged: {', '.join(card.provenance['average'])}")
        self.line(f"  validation {result.metric} {interval_text(result.validation, result.metric)}")
        if result.test is not None:
            self.line(f"  test {result.metric} {interval_text(result.test, result.metric)}", style="bold green")
            others = {name: value for name, value in result.test_metrics.items() if name != result.metric}
            self.line("  test " + ", ".join(f"{name} {value:.4f}" for name, value in others.items()))
        if result.hindsight is not None:
            self.line(f"  {result.hindsight.text}")
        ended = "interrupted after" if result.interrupted else "in"
        trials = "1 trial" if result.n_searched == 1 else f"{result.n_searched} trials"
        self.line(f"  {trials} {ended} {result.seconds:.0f} s; everything is in {result.run_dir}")
        self.line(f"  next: autotl predict {result.run_dir} IMAGES...")

    def reproduction(self, result: Reproduction) -> None:
        """Both scores, and what is not as it was."""
        self.heading("Reproduced")
        for sentence in result.changed:
            self.line(f"  {sentence}", "yellow")
        self.line(f"  {result.text}", "bold green" if result.agrees else "red")
        self.line(f"  {len(result.trained)} trained in {result.seconds:.0f} s")

    def go_on(self, records: Sequence[TrialRecord]) -> None:
        """Trials of earlier sessions of the run, where there are any: the best score is theirs, so far."""
        scores = [record.score for record in records if record.score is not None]
        if not scores:
            return
        self._best = max(scores)
        searched = sum(record.searched for record in records)
        self.line(f"Going on from {searched} {'trial' if searched == 1 else 'trials'}, the best score {self._best:.4f}")

    def trial_header(self) -> None:
        """The head of the table of trials."""
        cells = [f"{name:>{width}}" for name, width in _COLUMNS]
        self.line("  " + " ".join(cells) + "  backbone", style="dim")

    def _row(self, record: TrialRecord) -> None:
        """A row of the table of trials, as one ends."""
        config = record.config
        better = record.score is not None and record.score > self._best
        self._best = max(self._best, record.score if record.score is not None else self._best)
        values = (
            str(record.number),
            str(record.status).replace("_", " "),
            "-" if record.score is None else f"{record.score:.4f}",
            f"{self._best:.4f}" if self._best > float("-inf") else "-",
            "scratch"
            if config.get("initial_weights") == "scratch"
            else f"{config['freeze_depth']} of {self._n_stages[config['backbone']]}",
            f"×{config['learning_rate_factor']:.3f}" if "learning_rate_factor" in config else "-",
            str(config.get("augmentation", "-")),
            str(record.epochs),
            f"{record.seconds:.1f}s",
            "-" if record.expected_seconds is None else f"{record.expected_seconds:.0f}s",
            f"{max(0.0, self._deadline - clock.now()):.0f}s",
        )
        cells = [f"{value:>{width}}" for value, (_, width) in zip(values, _COLUMNS, strict=True)]
        self.line("  " + " ".join(cells) + f"  {config['backbone']}", style="green" if better else None)
        if record.note and record.note not in self._notes:
            self._notes.add(record.note)
            self.line(f"        {config['backbone']}, depth {config['freeze_depth']}: {record.note}", style="yellow")
        if record.error:
            self.line("        " + record.error.strip().splitlines()[-1], style="red")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; the first column is text, numbers are aligned to the right."""
        table = Table(box=None, pad_edge=False)
        for place, name in enumerate(columns):
            numeric = all(_is_number(row[place]) for row in rows) and place > 0
            table.add_column(Text(name), justify="right" if numeric else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._rich.width = max(self._rich.width, 200)  # the terminal may wrap rows; cells are never cut
        self._rich.print(table, soft_wrap=False, crop=False)

    def benefit(self, benefit: Benefit) -> None:
        """Both learning curves as rows of bars on one scale, and what they say."""
        self.heading("Pretrained or from scratch")
        curves = {"pretrained": benefit.pretrained, "scratch": benefit.scratch}
        finite = [score for curve in curves.values() for score in curve if math.isfinite(score)]
        for name, curve in curves.items():
            bars = sparkline(curve, min(finite), max(finite))
            self.line(f"  {name:<10}  {bars}  {curve[0]:.4f} to {curve[-1]:.4f}, epochs 0 to {len(curve) - 1}")
        for sentence in benefit.sentences:
            self.line(f"  {sentence}", "yellow" if sentence.startswith("Negative") else None)


class _Countdown(Progress):
    """A bar that moves with the clock instead of with calls."""

    def __init__(
        self, *columns: TextColumn | BarColumn, end: float, total: float, console: RichConsole, transient: bool
    ) -> None:
        self._end, self._total = end, total
        self._clock: TaskID | None = None  # rich asks for renderables before there is a task
        super().__init__(*columns, console=console, transient=transient)
        self._clock = self.add_task("", total=total, left="")

    def get_renderables(self) -> Iterator[object]:  # type: ignore[override]
        """Called at every refresh."""
        left = max(0.0, self._end - clock.now())
        if self._clock is not None:
            self.update(self._clock, completed=self._total - left, left=f"{int(left // 60)}:{int(left % 60):02d}")
        yield from super().get_renderables()


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """A bar a value, from the lowest at `low` to the highest at `high`; a blank for what is not finite."""
    bars = "▁▂▃▄▅▆▇█"
    step = (high - low) / (len(bars) - 1) or 1.0
    return "".join(bars[round((value - low) / step)] if math.isfinite(value) else " " for value in values)


def _is_number(text: str) -> bool:
    return text.strip("-%×. ").replace(".", "", 1).isdigit() or text == "-"


def print_error(text: str) -> None:
    """An error message, on standard error."""
    output = cast(IO[str], SteadyStream("stderr"))
    RichConsole(file=output, highlight=False, soft_wrap=True, emoji=False).print(text, style="red", markup=False)


class _SilentFileHandler(logging.FileHandler):
    """A log file that may fill the disk: what does not fit is not logged, and nothing is said of it a line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Nothing."""


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Write the log of a run into `path`, with time stamps."""
    handler = _SilentFileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    level, log.propagate = log.level, False
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = True
        handler.close()
