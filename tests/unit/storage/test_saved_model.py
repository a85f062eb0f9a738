"""Saving and loading the best model of a run, whole at any moment."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autotl.errors import ModelFileError
from autotl.records import Estimate
from autotl.storage import saved_model
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import ModelCard, load_card, load_finite_weights, load_weights, offer, save_model

CARD = ModelCard(
    backbone="resnet10t",
    classes=("cat", "dög"),
    preprocessing={"input_size": 64, "crop": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3, "store_size": 72},
    freeze_depth=None,
    metric="accuracy",
    score=0.5,
    log_loss=0.7,
    validation=Estimate(0.5, 0.4, 0.6, 100),
    trial_id="t1",
    epoch=3,
    config={"lr": 0.1},
)


def state(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2, 3), value), "n": torch.tensor(7)}


def held(folder: Path) -> tuple[ModelCard, float]:
    """The card in a folder, and the value its weights were filled with."""
    card = load_card(folder)
    return card, load_weights(folder, card)["w"][0, 0].item()


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    save_model(tmp_path / "model", state(0.25), CARD)
    card = load_card(tmp_path / "model")
    assert replace(card, weights="", sha256="") == CARD
    weights = load_weights(tmp_path / "model", card)
    assert set(weights) == {"w", "n"}
    assert torch.equal(weights["w"], torch.full((2, 3), 0.25))
    assert weights["n"].item() == 7


def test_weights_that_are_not_contiguous_are_saved_as_they_read(tmp_path: Path) -> None:
    turned = torch.arange(6.0).view(2, 3).t()
    save_model(tmp_path, {"w": turned}, CARD)
    assert torch.equal(load_weights(tmp_path, load_card(tmp_path))["w"], turned)


def test_saving_again_replaces_the_weights(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0), CARD)
    save_model(tmp_path, state(2.0), CARD)
    assert held(tmp_path)[1] == 2.0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_saving_the_same_weights_again_keeps_them(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0), CARD)
    save_model(tmp_path, state(1.0), replace(CARD, score=0.9))
    card, value = held(tmp_path)
    assert (card.score, value) == (0.9, 1.0)


def test_a_crash_between_weights_and_card_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path, state(1.0), CARD)

    def crash_at_the_card(path: Path, plain: dict[str, Any]) -> None:
        assert path.name == "model.json"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saved_model, "write_json", crash_at_the_card)
        with pytest.raises(KeyboardInterrupt):
            save_model(tmp_path, state(2.0), replace(CARD, score=0.9))
    card, value = held(tmp_path)
    assert (card.score, value) == (0.5, 1.0)
    save_model(tmp_path, state(3.0), CARD)
    assert held(tmp_path)[1] == 3.0
    assert len(list(tmp_path.glob("weights-*"))) == 1


def test_a_crash_while_writing_weights_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path, state(1.0), CARD)

    def crash(source: object, target: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", crash)
        with pytest.raises(OSError, match="disk full"):
            save_model(tmp_path, state(2.0), CARD)
    assert held(tmp_path)[1] == 1.0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_the_first_model_offered_is_kept(run: RunDir) -> None:
    assert offer(run, CARD, lambda: state(1.0))
    assert held(run.model)[1] == 1.0


def test_a_better_model_replaces_the_one_there(run: RunDir) -> None:
    offer(run, CARD, lambda: state(1.0))
    assert offer(run, replace(CARD, score=0.6, log_loss=9.0), lambda: state(2.0))
    assert held(run.model)[1] == 2.0


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("the weights of a worse model were asked for")


@pytest.mark.parametrize(
    ("score", "log_loss"), [(0.4, 0.1), (0.5, 0.8), (0.5, 0.7), (float("nan"), 0.1), (float("inf"), 0.1)]
)
def test_a_model_that_is_not_better_is_refused_unseen(run: RunDir, score: float, log_loss: float) -> None:
    offer(run, CARD, lambda: state(1.0))
    assert not offer(run, replace(CARD, score=score, log_loss=log_loss), never)
    assert held(run.model) == (load_card(run.model), 1.0)


def test_a_tie_goes_to_the_lower_log_loss(run: RunDir) -> None:
    offer(run, CARD, lambda: state(1.0))
    assert offer(run, replace(CARD, log_loss=0.6), lambda: state(2.0))
    assert held(run.model)[1] == 2.0


def test_a_score_that_is_no_number_is_not_even_the_first(run: RunDir) -> None:
    assert not offer(run, replace(CARD, score=float("nan")), never)
    assert not run.model.exists()


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0), CARD)
    card = load_card(tmp_path)
    path = tmp_path / card.weights
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        load_weights(tmp_path, card)
    assert str(caught.value) == f"{path}: SHA-256 differs from the one in model.json; the file is damaged"


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0), CARD)
    card = load_card(tmp_path)
    (tmp_path / card.weights).unlink()
    with pytest.raises(ModelFileError, match=rf"{card.weights}: cannot be read \(.*No such file"):
        load_weights(tmp_path, card)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0), CARD)
    rewrite(tmp_path, format_version=2, something_new=[])
    with pytest.raises(ModelFileError) as caught:
        load_card(tmp_path)
    expected = f"{tmp_path / 'model.json'}: format 2 is newer than this autotl reads (1): upgrade"
    assert str(caught.value) == expected


def test_a_missing_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"model\.json: cannot be read \(FileNotFoundError: "):
        load_card(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format_version": 1}', '{"format_version": "x"}'])
def test_a_damaged_card_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"model\.json: (cannot be read \(|is no model card of autotl:)"):
        load_card(tmp_path)


WRONG: dict[str, list[Any]] = {
    "backbone": [None, "", 3, "hf-hub:somebody/net", "../net"],
    "classes": [None, [], ["a"], ["a", "a"], ["a", 3], "ab", {"a": 1}],
    "preprocessing": [None, [], {}, "x"],
    "freeze_depth": ["3", -1, 1.5, True],
    "metric": [None, "xyz", 3],
    "score": [None, "0.5", True],
    "validation": [None, {}, 3],
    "trial_id": [None, 3, ""],
    "epoch": [None, -1, 1.5],
    "config": [None, []],
    "provenance": [None, "x"],
    "weights": [None, "", "../../outside.safetensors", "/etc/passwd", "a/b.safetensors", "weights.pkl", ".safetensors"],
    "sha256": [None, "", "x" * 64, "a" * 63],
    "format_version": [None, "1", 0, 1.0],
    "finished": [None, 1, "yes"],
}
WRONG_PREPROCESSING: dict[str, list[Any]] = {
    "input_size": [None, 7, 10**9, 64.0, "64"],
    "crop": [None, 0, 1.5, "0.9"],
    "mean": [None, [0.5], [0.5, 0.5, "x"], 0.5],
    "std": [None, [0, 0, 0], [0.5, 0.5]],
    "store_size": [None, 0, -1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_every_field_of_a_card_is_checked(tmp_path: Path, name: str, value: Any) -> None:
    save_model(tmp_path, state(1.0), CARD)
    rewrite(tmp_path, **{name: value})
    with pytest.raises(ModelFileError, match=rf"is no model card of autotl:\n  - {name}"):
        load_card(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_PREPROCESSING.items() for value in values]
)
def test_so_is_how_images_become_an_input(tmp_path: Path, name: str, value: Any) -> None:
    save_model(tmp_path, state(1.0), CARD)
    rewrite(tmp_path, preprocessing=CARD.preprocessing | {name: value})
    with pytest.raises(ModelFileError, match=rf"is no model card of autotl:\n  - preprocessing\.{name}"):
        load_card(tmp_path)


def test_all_that_is_wrong_with_a_card_is_told_at_once(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0), CARD)
    rewrite(tmp_path, epoch=-1, metric="xyz", colour="red")
    with pytest.raises(ModelFileError) as caught:
        load_card(tmp_path)
    assert str(caught.value).splitlines()[1:] == [
        "  - colour: unknown",
        "  - metric: 'xyz', allowed: accuracy, balanced_accuracy, f1_macro, log_loss, roc_auc",
        "  - epoch: -1, allowed: a whole number from 0",
    ]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000])
def test_a_hostile_card_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text, "utf-8")
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_card(tmp_path)


def test_weights_that_are_none_of_safetensors_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0), CARD)
    card = load_card(tmp_path)
    for content in (b"", b"x" * 100, b"\xff" * 8 + b"{}"):
        (tmp_path / card.weights).write_bytes(content)
        changed = replace(card, sha256=hashlib.sha256(content).hexdigest())
        with pytest.raises(ModelFileError, match="is no safetensors file"):
            load_weights(tmp_path, changed)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0) | {"head.bias": torch.tensor([0.0, math.nan])}, CARD)
    with pytest.raises(ModelFileError, match=r"head\.bias holds a number that is not finite"):
        load_finite_weights(tmp_path, load_card(tmp_path))


def test_a_card_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, state(1.0), CARD)
    rewrite(tmp_path, colour="red")
    with pytest.raises(ModelFileError, match="colour"):
        load_card(tmp_path)


def with_interval(score: float, *, finished: bool = True) -> ModelCard:
    """A card whose score has a standard error of about 0.02."""
    return replace(CARD, score=score, validation=Estimate(score, score - 0.04, score + 0.04, 100), finished=finished)


def test_the_standard_error_is_that_of_the_interval() -> None:
    assert with_interval(0.9).standard_error == pytest.approx(0.04 / 1.96, rel=1e-3)
    assert replace(CARD, validation=Estimate(0.9, math.nan, math.nan, 1)).standard_error == 0.0


@pytest.mark.parametrize(("score", "kept"), [(0.93, True), (0.92, False), (0.91, False), (0.90, False)])
def test_a_model_in_the_middle_of_its_schedule_has_to_be_clearly_better_than_one_at_its_end(
    score: float, kept: bool
) -> None:
    assert with_interval(score, finished=False).better_than(with_interval(0.9)) == kept


@pytest.mark.parametrize(("score", "kept"), [(0.87, False), (0.88, True), (0.90, True), (0.93, True)])
def test_a_model_at_its_end_takes_the_place_of_one_in_the_middle_unless_it_is_clearly_worse(
    score: float, kept: bool
) -> None:
    assert with_interval(score).better_than(with_interval(0.9, finished=False)) == kept


@pytest.mark.parametrize("finished", [True, False])
def test_models_of_the_same_kind_are_compared_by_their_scores(finished: bool) -> None:
    assert with_interval(0.901, finished=finished).better_than(with_interval(0.9, finished=finished))
    assert not with_interval(0.899, finished=finished).better_than(with_interval(0.9, finished=finished))
