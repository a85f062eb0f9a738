"""The winner of a fit, trained once more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autotl
from autotl.cli import main
from autotl.errors import RunFolderError

LITE0 = "tf_efficientnet_lite0.in1k"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]) -> Path:
    """A run of two trials, and its data beside it."""
    folder = tmp_path_factory.mktemp("reproduce")
    options: dict[str, Any] = {"backbones": LITE0, "search_space": "quick", "seed": 5, "quiet": True}
    resources = autotl.Resources(slots=1, cpus_per_trial=1)
    data = write_shapes(folder / "data", 12)
    autotl.fit(data, n_trials=2, timeout="10m", output_dir=folder / "run", resources=resources, **options)
    return folder / "run"


def state_of(run: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in run.rglob("*"))


def test_the_score_is_reached_again_and_the_run_is_left_as_it_was(run: Path) -> None:
    before = state_of(run)
    result = autotl.reproduce(run, quiet=True)
    assert result.agrees
    assert result.recorded == autotl.load(run).card.validation
    assert result.again.value == pytest.approx(result.recorded.value, abs=1.5 / result.recorded.n_images)
    assert result.changed == ()
    assert state_of(run) == before


def test_the_command_says_so_and_what_has_changed(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.pipeline.reproduce._fitted", _nothing_trained)
    monkeypatch.setattr("autotl.pipeline.reproduce._average_estimate", lambda *given, **named: _lower(run))
    settings = json.loads((run / "settings.json").read_text("utf-8"))
    settings["versions"]["timm"] = "0.9"
    (run / "settings.json").write_text(json.dumps(settings), "utf-8")
    assert main(["reproduce", str(run), "--json"]) == 1
    plain = json.loads(capsys.readouterr().out)
    assert plain["agrees"] is False
    assert plain["changed"][0].startswith("made with timm 0.9, now it is")
    assert "outside its interval" in plain["text"]


def _lower(run: Path) -> autotl.Estimate:
    return autotl.Estimate(0.0, 0.0, 0.1, 6)


def _nothing_trained(context: Any, task: Any, chain: Any, card: Any, trained: Any) -> Any:
    from autotl.pipeline.reproduce import Fitted

    return Fitted(chain[-1], {}, autotl.Estimate(0.0, 0.0, 0.1, 6))


def test_data_that_has_changed_is_refused(run: Path) -> None:
    image = next((run.parent / "data").rglob("*.png"))
    image.unlink()
    with pytest.raises(RunFolderError, match="its data is another now"):
        autotl.reproduce(run, quiet=True)
