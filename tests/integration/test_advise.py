"""Advice on real images: no training, and no Ray."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import autotl
from autotl.tune.session import Slots

LITE0 = "tf_efficientnet_lite0.in1k"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run folder would be made by mistake."""
    monkeypatch.chdir(tmp_path)


def damage_in_the_middle(path: Path) -> None:
    """Spoil the compressed pixels of a PNG and mend the checksum: header and end stay sound."""
    content = path.read_bytes()
    start = content.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", content[start : start + 4])
    data = bytearray(content[start + 8 : start + 8 + length])
    data[length // 3 : 2 * length // 3] = bytes(2 * length // 3 - length // 3)
    checksum = struct.pack(">I", zlib.crc32(b"IDAT" + bytes(data)))
    path.write_bytes(content[: start + 8] + bytes(data) + checksum + content[start + 12 + length :])


def test_advice_says_what_the_data_is_like_and_what_follows(shapes: Path, tmp_path: Path) -> None:
    advice = autotl.advise(shapes, backbones=LITE0)
    assert advice.size.n_images == 36
    assert advice.size.n_classes == 3
    assert not advice.size.large
    assert not advice.similarity.similar  # coloured shapes on grey noise are no photographs
    assert 0 <= advice.similarity.similarity < 0.5
    assert advice.scenario.number == 2
    assert advice.strategy == advice.scenario.strategy
    (evidence,) = advice.backbones
    assert evidence.name == LITE0
    assert evidence.probe_score > 0.6
    codes = {statement.code for statement in advice.statements}
    assert {"size", "similarity", "scenario", "backbones", "stages", "learning_curve", "start_points"} <= codes
    assert sorted(evidence.stage_scores) == list(range(1, evidence.n_stages + 1))
    assert evidence.stage_scores.keys() == evidence.stage_errors.keys()
    assert evidence.stage_scores[evidence.n_stages] == pytest.approx(evidence.probe_score, abs=0.15)
    assert evidence.proposed_depth in evidence.stage_scores
    assert evidence.learning_curve is not None
    assert 24 <= evidence.learning_curve.n_images[-1] < 36
    assert len(advice.start_reasons) == len(advice.start_points)
    assert all(point["backbone"] == LITE0 for point in advice.start_points)
    assert advice.start_points
    # It survives JSON, with no NaN in it, and leaves no run folder.
    again = json.loads(json.dumps(advice.to_json(), allow_nan=False))
    assert again["scenario"]["number"] == 2
    assert again["strategy"] == advice.strategy
    assert str(advice).count("\n") == len(advice.statements) - 1
    assert list(tmp_path.iterdir()) == []


def test_an_image_damaged_in_the_middle_is_named_or_left_out(tmp_path: Path, write_shapes: Callable[..., Path]) -> None:
    root = write_shapes(tmp_path / "data", 5)
    damage_in_the_middle(root / "square" / "02.png")
    with pytest.raises(autotl.DatasetError) as caught:
        autotl.advise(root, backbones=LITE0)
    (problem,) = caught.value.problems
    assert problem.where == str(root / "square" / "02.png")
    assert "skip_unreadable=True" in problem.remedy
    advice = autotl.advise(root, backbones=LITE0, skip_unreadable=True)
    (statement,) = (statement for statement in advice.statements if statement.code == "unreadable")
    assert statement.evidence["paths"] == ["square/02.png"]
    assert advice.size.n_images == 14


class NoRay:
    """Stands in for the session of Ray, which this fit does not live to use."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __enter__(self) -> NoRay:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def choices(self) -> tuple[Slots, ...]:
        raise AssertionError("the search began")


def test_a_fit_that_stopped_at_a_damaged_image_can_be_repeated_with_the_same_run_folder(
    tmp_path: Path, write_shapes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.tune.session.RaySession", NoRay)
    root = write_shapes(tmp_path / "data", 5)
    damage_in_the_middle(root / "square" / "02.png")
    for _ in range(2):
        with pytest.raises(autotl.DatasetError, match=r"02\.png: unreadable image"):
            autotl.fit(root, backbones=LITE0, output_dir=tmp_path / "run", quiet=True)


def test_a_fit_measures_similarity_with_the_reference_set_it_is_given(
    shapes: Path, tmp_path: Path, write_shapes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.tune.session.RaySession", NoRay)
    reference, run = tmp_path / "shapes.npz", tmp_path / "run"
    autotl.build_reference_set(write_shapes(tmp_path / "photographs", 10, seed=1), LITE0, reference, name="shapes")
    with pytest.raises(AssertionError, match="the search began"):
        autotl.fit(shapes, backbones=LITE0, reference=reference, output_dir=run, quiet=True)
    settings = json.loads((run / "settings.json").read_text("utf-8"))
    assert settings["reference"] == str(reference)
    similarity = json.loads((run / "advice.json").read_text("utf-8"))["similarity"]
    assert similarity["reference"] == "shapes"
    assert similarity["similarity"] > 0.5  # to ImageNet it is below
