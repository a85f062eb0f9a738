"""Whoever reads the output may go away, the disk behind it may be full, and it may know few characters."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any


def in_shell(commands: Any, line: str, *arguments: object, cwd: Path, **changes: str) -> Any:
    """`autotl ARGUMENTS` followed by `line`, in a shell that gives the exit code of autotl."""
    command = shlex.join([*map(str, commands.AUTOTL), *map(str, arguments)])
    return commands.run_program("bash", "-c", f"{command} {line}; exit ${{PIPESTATUS[0]}}", cwd=cwd, **changes)


def test_a_fit_goes_on_when_nobody_reads_it_any_more(commands: Any, dataset: Path, tmp_path: Path) -> None:
    """In an encoding that lacks half of what it prints."""
    arguments = ("fit", dataset, *commands.QUICK, "--timeout", "5m", "--n-trials", 1, "--output", "run")
    done = in_shell(commands, "| head -1", *arguments, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert result["interrupted"] is False
    assert result["trials"] == {"completed": 1}


class TestPredictions:
    def test_a_full_disk_behind_them_is_an_error(self, commands: Any, json_fit: Any, dataset: Path) -> None:
        run, _ = json_fit
        done = in_shell(commands, "> /dev/full", "predict", run, dataset / "test", cwd=run.parent)
        assert done.returncode == 1
        assert done.stderr.startswith("autotl: No space left on device")

    def test_a_pipe_that_is_closed_is_none(self, commands: Any, json_fit: Any, dataset: Path) -> None:
        run, _ = json_fit
        done = in_shell(commands, "| true", "predict", run, dataset / "test", cwd=run.parent)
        assert done.returncode in (0, 141)
        assert done.stderr == ""

    def test_names_that_the_output_lacks_are_escaped(self, commands: Any, json_fit: Any, dataset: Path) -> None:
        run, _ = json_fit
        odd = run.parent / "café.png"
        odd.write_bytes(next((dataset / "test").rglob("*.png")).read_bytes())
        done = in_shell(commands, "", "predict", run, odd, cwd=run.parent, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert "caf\\xe9.png" in done.stdout
        done = in_shell(commands, "", "predict", run, odd, "--format", "json", cwd=run.parent, PYTHONIOENCODING="ascii")
        assert Path(json.loads(done.stdout)[0]["path"]).name == "café.png"
