"""What the user sees: plain lines away from a terminal, nothing when quiet, everything in the log."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.console import Console, log, log_to_file, print_error, sparkline
from autotl.records import Estimate, Status, TrialRecord
from autotl.result import FitResult

Capture = pytest.CaptureFixture[str]
ODD = "[bold]photos[/bold] [/x] :cat: 50% \\[red]"
CONFIG = {"backbone": "resnet18", "freeze_depth": 2, "learning_rate_factor": 0.1, "augmentation": "light"}
STATEMENTS = (
    SimpleNamespace(text="It is small [odd].", severity="info"),
    SimpleNamespace(text="Copies.", severity="warning"),
)
BACKBONES = tuple(SimpleNamespace(name=name, n_stages=5) for name in ("resnet18", "birds/resnet18"))
ADVICE: Any = SimpleNamespace(backbones=BACKBONES, statements=STATEMENTS)


def a_trial(score: float | None = 0.5, number: int = 1, **changes: Any) -> TrialRecord:
    values = {"config": CONFIG, "status": Status.COMPLETED, "epochs": 3, "seconds": 4.25}
    return TrialRecord(number=number, trial_id="t", score=score, **(values | changes))


def a_result(**changes: Any) -> FitResult:
    card = SimpleNamespace(config={"backbone": "resnet18"}, freeze_depth=2, trial_id="a1b2", provenance={})
    values: dict[str, Any] = {
        "predictor": SimpleNamespace(card=card),
        "advice": ADVICE,
        "trials": (a_trial(origin="probe"), a_trial(), a_trial()),
        "metric": "accuracy",
        "validation": Estimate(0.98039, 0.9437, 0.99333, 153),
        "test": Estimate(0.9, 0.85, 0.94, 200),
        "test_metrics": {"accuracy": 0.9, "f1_macro": 0.875},
        "run_dir": Path("/runs/one"),
        "seconds": 61.26,
    }
    return FitResult(**(values | changes))


@pytest.fixture
def console(capsys: Capture) -> Console:
    """One that has shown the advice, whose lines are read."""
    shown = Console()
    shown.on_advice(ADVICE)
    capsys.readouterr()
    return shown


def test_lines_come_out_plain_and_whole_away_from_a_terminal(capsys: Capture) -> None:
    text = "a long line " * 40
    Console().line(text, style="bold red")
    assert capsys.readouterr().out == text + "\n"


def test_brackets_in_a_line_are_not_markup(capsys: Capture) -> None:
    Console().line("photos [bold]x[/bold] [/y]")
    assert capsys.readouterr().out == "photos [bold]x[/bold] [/y]\n"


def test_a_line_is_printed_as_it_is(capsys: Capture) -> None:
    Console().line(ODD)
    assert capsys.readouterr().out == ODD + "\n"


def test_a_heading_stands_apart(capsys: Capture) -> None:
    Console().heading("Advice")
    assert capsys.readouterr().out == "\nAdvice\n"


def test_a_quiet_console_prints_nothing_at_all(capsys: Capture) -> None:
    console = Console(quiet=True)
    console.heading("Advice")
    console.on_advice(ADVICE)
    console.trial_header()
    console.on_trial(a_trial(error="Boom"))
    console.table(("a",), [("b",)])
    console.on_end(a_result())
    with console.progress("decoding", 3) as move, console.countdown(5.0):
        move(1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_quiet_console_still_fills_the_log(tmp_path: Path) -> None:
    with log_to_file(tmp_path / "fit.log"):
        Console(quiet=True).heading("Größe :cat:")
    (line,) = (tmp_path / "fit.log").read_text("utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO Größe :cat:", line)


def test_the_log_ends_with_the_run_even_when_it_fails(tmp_path: Path) -> None:
    before = (log.level, list(log.handlers))
    with pytest.raises(TypeError), log_to_file(tmp_path / "fit.log"):
        len(3)  # type: ignore[arg-type]
    assert (log.level, list(log.handlers)) == before
    assert log.propagate
    log.error("after the run")
    assert (tmp_path / "fit.log").read_text() == ""


def test_info_is_logged_only_during_a_run(tmp_path: Path) -> None:
    log.setLevel(logging.NOTSET)
    with log_to_file(tmp_path / "fit.log"):
        assert log.isEnabledFor(logging.INFO)
        assert not log.propagate
    assert log.level == logging.NOTSET


def test_progress_shows_nothing_away_from_a_terminal(capsys: Capture) -> None:
    with Console().progress("decoding", 3) as move, Console().countdown(5.0):
        move(3)
    assert capsys.readouterr().out == ""


def test_progress_counts_on_a_terminal_and_goes_away(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Console().progress("decoding images", 3) as move:
        move(3)
    assert "decoding images" in capsys.readouterr().out


def test_the_advice_is_shown_statement_by_statement(capsys: Capture) -> None:
    Console().on_advice(ADVICE)
    assert capsys.readouterr().out == "\nAdvice\n  It is small [odd].\n  Copies.\n"


def test_the_head_of_the_table_of_trials_stands_above_its_columns(console: Console, capsys: Capture) -> None:
    console.trial_header()
    console.on_trial(a_trial())
    head, row = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "trial status score best depth rate augmentation epochs time planned left backbone"
    assert " ".join(row.split()) == "1 completed 0.5000 0.5000 2 of 5 ×0.100 light 3 4.2s - 0s resnet18"
    for name, value in [("score", "0.5000"), ("depth", "2 of 5"), ("rate", "×0.100"), ("time", "4.2s")]:
        assert head.index(name) + len(name) == row.index(value) + len(value)
    assert head.index("backbone") == row.index("resnet18")


def test_the_best_score_is_kept_from_row_to_row(console: Console, capsys: Capture) -> None:
    for score in (None, -0.9, -1.5, None, -0.25):
        console.on_trial(a_trial(score))
    cells = [line.split()[2:4] for line in capsys.readouterr().out.splitlines()]
    assert cells == [
        ["-", "-"],
        ["-0.9000", "-0.9000"],
        ["-1.5000", "-0.9000"],
        ["-", "-0.9000"],
        ["-0.2500", "-0.2500"],
    ]


def test_a_probe_is_not_in_the_table_and_counts_as_the_best_so_far(console: Console, capsys: Capture) -> None:
    for score in (0.9, 0.7, None):
        console.on_trial(a_trial(score, origin="probe"))
    console.on_trial(a_trial(0.5))
    assert capsys.readouterr().out.split()[2:4] == ["0.5000", "0.9000"]


def test_a_trial_after_the_search_neither_shows_nor_counts(console: Console, capsys: Capture) -> None:
    console.on_trial(a_trial(0.9, origin="benefit"))
    console.on_trial(a_trial(0.5))
    assert capsys.readouterr().out.split()[2:4] == ["0.5000", "0.5000"]


def test_a_status_is_shown_in_words(console: Console, capsys: Capture) -> None:
    console.on_trial(a_trial(status=Status.TIMED_OUT))
    assert " timed out " in capsys.readouterr().out


def test_a_trial_from_scratch_has_no_depth(console: Console, capsys: Capture) -> None:
    console.on_trial(a_trial(config={"backbone": "resnet18", "initial_weights": "scratch"}))
    assert capsys.readouterr().out.split()[4:7] == ["scratch", "-", "-"]


def test_a_failed_trial_shows_the_last_line_of_its_traceback(console: Console, capsys: Capture) -> None:
    error = "Traceback:\n  File x\nRuntimeError: [enforce fail] out of memory\n"
    console.on_trial(a_trial(None, status=Status.FAILED, error=error))
    row, reason = capsys.readouterr().out.splitlines()
    assert row.split()[:4] == ["1", "failed", "-", "-"]
    assert reason == "        RuntimeError: [enforce fail] out of memory"


def test_a_table_aligns_numbers_to_the_right_and_words_to_the_left(capsys: Capture) -> None:
    Console().table(("name", "size", "word"), [("a", "1.5", "x"), ("bcd", "10", "yz")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["name  size  word", "a      1.5  x", "bcd     10  yz"]


def test_a_table_without_rows_is_its_head(capsys: Capture) -> None:
    Console().table(("name", "size"), [])
    assert capsys.readouterr().out.split() == ["name", "size"]


def test_a_table_prints_cells_as_they_are(capsys: Capture) -> None:
    Console().table(("space", "for"), [("mine", "images [bold] of [/x] :cat:")])
    assert "images [bold] of [/x] :cat:" in capsys.readouterr().out


def test_a_wide_table_keeps_its_columns_on_a_narrow_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    names = ("backbone", "here", "weights", "params M", "licence")
    Console().table(names, [("mobilenetv3_large_100.miil_in21k_ft_in1k" * 2, "yes", "bundled", "4.7", "apache-2.0")])
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert all(word in printed for word in (*names, "yes", "bundled", "4.7"))


def test_the_winner_is_shown_with_scores_and_what_to_do_next(capsys: Capture) -> None:
    Console().on_end(a_result())
    assert capsys.readouterr().out.splitlines() == [
        "",
        "Winner",
        "  resnet18, freeze depth 2 of 5",
        "  validation accuracy 98.04% (95% interval 94.4 to 99.3%, 153 images)",
        "  test accuracy 90.00% (95% interval 85.0 to 94.0%, 200 images)",
        "  test f1_macro 0.8750",
        "  2 trials in 61 s; everything is in /runs/one",
        "  next: autotl predict /runs/one IMAGES...",
    ]


@pytest.mark.parametrize(
    ("freeze_depth", "trial_id", "words"),
    [
        (0, "a1b2", "freeze depth 0 of 5"),
        (None, "a1b2", "trained from scratch"),
        (5, "probe-resnet18", "linear probe on frozen features"),
    ],
)
def test_the_winner_says_how_it_was_trained(
    capsys: Capture, freeze_depth: int | None, trial_id: str, words: str
) -> None:
    card = SimpleNamespace(config={"backbone": "resnet18"}, freeze_depth=freeze_depth, trial_id=trial_id, provenance={})
    Console().on_end(a_result(predictor=SimpleNamespace(card=card)))
    assert f"  resnet18, {words}\n" in capsys.readouterr().out


def test_a_winner_without_test_split_shows_no_test_score(capsys: Capture) -> None:
    Console().on_end(a_result(test=None, test_metrics={}, interrupted=True))
    printed = capsys.readouterr().out
    assert "test" not in printed
    assert "  2 trials interrupted after 61 s; everything is in /runs/one\n" in printed


def test_a_small_log_loss_is_not_shown_in_per_cent(capsys: Capture) -> None:
    result = a_result(metric="log_loss", validation=Estimate(0.05, 0.03, 0.08, 153), test=None, test_metrics={})
    Console().on_end(result)
    assert "  validation log_loss 0.0500 (95% interval 0.0300 to 0.0800, 153 images)\n" in capsys.readouterr().out


def test_errors_go_to_standard_error(capsys: Capture) -> None:
    print_error("autotl: [red] " + "long " * 60)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "autotl: [red] " + "long " * 60 + "\n"


def test_an_error_is_printed_as_it_is(capsys: Capture) -> None:
    print_error(ODD)
    assert capsys.readouterr().err == ODD + "\n"


def test_a_winner_that_is_an_average_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    provenance = {"average": ["a1", "b2", "probe-resnet18"]}
    config = {"backbone": "resnet18"}
    card = SimpleNamespace(config=config, freeze_depth=2, trial_id="average", provenance=provenance)
    Console().on_end(a_result(predictor=SimpleNamespace(card=card)))
    shown = "  resnet18, freeze depth 2 of 5, average of 3 models\n  averaged: a1, b2, probe-resnet18\n"
    assert shown in capsys.readouterr().out


def test_a_winner_says_what_became_of_the_advice(capsys: Capture) -> None:
    Console().on_end(a_result(hindsight=SimpleNamespace(text="Advised: a; best: b.")))
    assert "\n  Advised: a; best: b.\n  2 trials in 61 s" in capsys.readouterr().out


def test_trials_after_the_search_are_not_counted_as_searched(capsys: Capture) -> None:
    Console().on_end(a_result(trials=(a_trial(origin="probe"), a_trial(), a_trial(origin="benefit"))))
    assert "  1 trial in 61 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ((0.0, 0.5, 1.0), "▁▅█"),
        ((0.0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1.0), "▁▂▃▄▅▆▇█"),
        ((0.9, float("nan"), 1.0), "▇ █"),
        ((), ""),
    ],
)
def test_a_sparkline_has_a_bar_a_value(values: tuple[float, ...], bars: str) -> None:
    assert sparkline(values, 0.0, 1.0) == bars


def test_a_sparkline_of_equal_values_is_flat() -> None:
    assert sparkline((0.3, 0.3), 0.3, 0.3) == "▁▁"


def test_the_benefit_is_two_curves_on_one_scale_and_sentences(capsys: Capture) -> None:
    benefit: Any = SimpleNamespace(
        pretrained=(0.8, 0.9, 0.9), scratch=(0.2, 0.5), sentences=("Start: much.", "Negative transfer: [odd].")
    )
    Console().benefit(benefit)
    assert capsys.readouterr().out.splitlines() == [
        "",
        "Pretrained or from scratch",
        "  pretrained  ▇██  0.8000 to 0.9000, epochs 0 to 2",
        "  scratch     ▁▄  0.2000 to 0.5000, epochs 0 to 1",
        "  Start: much.",
        "  Negative transfer: [odd].",
    ]


def test_a_winner_from_an_earlier_run_is_shown_under_the_name_that_the_search_used(capsys: Capture) -> None:
    config = {"backbone": "birds/resnet18"}
    card = SimpleNamespace(backbone="resnet18", config=config, freeze_depth=2, trial_id="a1b2", provenance={})
    Console().on_end(a_result(predictor=SimpleNamespace(card=card)))
    assert "  birds/resnet18, freeze depth 2 of 5\n" in capsys.readouterr().out
