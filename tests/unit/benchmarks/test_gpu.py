"""The command that proves GPUs: what goes wrong is a row, and the exit code says whether all holds."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import gpu
import pytest
import torch
from gpu import Row, collect


def test_an_error_is_a_row_that_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[Row]:
        yield Row("training", "loss 1.2", "a number", True)
        raise RuntimeError("expected all tensors to be on the same device\nand more")

    found = collect("a family", rows)
    assert [row.holds for row in found] == [True, False]
    assert found[1].found == "RuntimeError: expected all tensors to be on the same device"
    assert "| training | loss 1.2 | a number | yes |" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_what_fell_short_is_named(
    holds: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--images", "10", "--families", "net"])
    monkeypatch.setattr(gpu, "device_module", type("Module", (), {}))
    for name in ("training", "averaging", "speed"):
        monkeypatch.setattr(gpu, name, lambda bench, name: iter([Row("a check", "1", "2", holds)]))
    assert gpu.main() == code
    assert ("not: a check, a check, a check" in capsys.readouterr().out) is not holds
