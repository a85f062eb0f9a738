"""The model of a fit as a backbone of the next. Only the second fit searches; the others end after the advice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import autotl
from autotl.advice.reference_set import load_reference_set
from autotl.cli import main
from autotl.records import Status
from autotl.space.files import load_space, to_toml
from autotl.tune.session import Slots

LITE0 = "tf_efficientnet_lite0.in1k"
REUSED = f"first/{LITE0}"


class CtrlC:
    """Stands in for the session of Ray: the user ends the fit when the search is about to begin."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __enter__(self) -> CtrlC:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def choices(self) -> tuple[Slots, ...]:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def probe_only() -> Iterator[Callable[[Path, Path], Path]]:
    """A fit whose model is the linear probe: of a data set, into a run folder."""

    def run(dataset: Path, output: Path) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("autotl.tune.session.RaySession", CtrlC)
            result = autotl.fit(dataset, backbones=LITE0, output_dir=output, seed=1, quiet=True)
        assert result.interrupted
        return output

    return run


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory,
    write_shapes: Callable[..., Path],
    probe_only: Callable[[Path, Path], Path],
) -> Path:
    """The run that is reused. Read-only."""
    root = tmp_path_factory.mktemp("first")
    return probe_only(write_shapes(root / "data", 20), root / "first")


@pytest.fixture(scope="module")
def second(
    first: Path, tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]
) -> autotl.FitResult:
    """A fit that reuses a copy of that run, which is gone afterwards; its space knows no other backbone."""
    root = tmp_path_factory.mktemp("second")
    earlier = Path(shutil.copytree(first, root / "first"))
    space = root / "reused.toml"
    space.write_text(to_toml(load_space("quick").narrow(backbone=(REUSED,))), "utf-8")
    result = autotl.fit(
        write_shapes(root / "data", 8, seed=5),
        reuse=earlier,
        search_space=str(space),
        n_trials=1,
        timeout="10m",
        output_dir=root / "run",
        quiet=True,
    )
    shutil.rmtree(earlier)
    return result


def test_a_run_that_was_ended_early_leaves_a_reference_set_of_its_training_images(first: Path) -> None:
    reference = load_reference_set(first / "model" / "reference_set.npz")
    assert len(reference.embeddings) >= 32  # a batch a worker; there are 48
    assert set(reference.class_names) == {"circle", "square", "triangle"}
    card = autotl.load(first).card
    assert reference.weights_sha256 == card.sha256
    assert card.provenance["majority_score"] == pytest.approx(1 / 3)
    assert card.provenance["majority_score_test"] is None, "there are no test images"


def test_the_advice_names_the_earlier_run_and_follows_what_the_weights_learned_from(second: autotl.FitResult) -> None:
    advice = second.advice
    (similarity,) = advice.earlier_run_similarities
    assert (similarity.reference, similarity.backbone) == ("the data of first", REUSED)
    assert similarity.similarity > 0.9  # the same kind of shapes
    assert advice.similarity.reference == "ImageNet-1k"
    assert advice.similarity.similarity < 0.5
    assert not similarity.learned  # the first run's model is a linear probe: its backbone is as pretrained
    assert advice.decisive_similarity == advice.similarity
    assert advice.scenario.number == 2
    texts = {statement.code: statement.text for statement in advice.statements}
    assert texts["earlier_run_similarity"].startswith("It is similar to the data of first: similarity ")
    assert "the similarity to ImageNet-1k" in texts["scenario"]
    plain = json.loads((second.run_dir / "advice.json").read_text("utf-8"))
    assert plain["earlier_run_similarities"][0]["reference"] == "the data of first"


def test_it_is_searched_under_its_own_name(second: autotl.FitResult) -> None:
    assert [backbone.name for backbone in second.advice.backbones] == [REUSED]
    assert {trial.config["backbone"] for trial in second.trials} == {REUSED}
    (trial,) = (trial for trial in second.trials if trial.origin != "probe")
    assert trial.status is Status.COMPLETED, trial.error
    assert second.predictor.card.config["backbone"] == REUSED
    assert second.predictor.card.provenance["earlier_runs"][0]["name"] == "first"
    settings = json.loads((second.run_dir / "settings.json").read_text("utf-8"))
    assert [Path(path).name for path in settings["reuse"]] == ["first"]


def test_its_model_loads_in_a_new_process_without_the_earlier_run(second: autotl.FitResult) -> None:
    assert second.predictor.card.backbone == LITE0
    assert not Path(second.predictor.card.provenance["earlier_runs"][0]["run"]).exists()
    image = next((second.run_dir.parent / "data" / "circle").iterdir())
    script = (
        "import json, sys, autotl; print(json.dumps(autotl.load(sys.argv[1]).predict(sys.argv[2])[0].probabilities))"
    )
    command = [sys.executable, "-c", script, str(second.run_dir), str(image)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    expected = second.predictor.predict(image)[0].probabilities
    assert json.loads(printed) == pytest.approx(expected, abs=1e-4)


def test_a_run_at_the_level_of_the_majority_class_baseline_is_not_reused(
    first: Path, tmp_path: Path, probe_only: Callable[[Path, Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    for kind in ("this", "that"):  # nothing tells them apart
        (tmp_path / "noise" / kind).mkdir(parents=True)
        for number in range(15):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "noise" / kind / f"{number}.png")
    noise = probe_only(tmp_path / "noise", tmp_path / "noise_run")
    capsys.readouterr()
    assert main(["fit", "gone", "--reuse", str(noise), "--reuse", str(first), "--seed", "-1"]) == 2
    heads = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]
    assert [head.split(":")[0] for head in heads] == ["  - seed", f"  - reuse {noise}", "  - dataset gone"]
    assert "does not significantly outperform the majority-class baseline" in heads[1]
