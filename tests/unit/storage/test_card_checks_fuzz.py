"""A model card with anything in any place: problems a line each, or a card that loads."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autotl.errors import ModelFileError
from autotl.records import Estimate, json_text
from autotl.storage.card_checks import CARD, PREPROCESSING, VALIDATION, problems_of_card
from autotl.storage.saved_model import ModelCard, load_card

CARD_OF_A_RUN = ModelCard(
    backbone="resnet18.a1_in1k",
    classes=("a", "b"),
    preprocessing={"input_size": 64, "crop": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3, "store_size": 72},
    freeze_depth=3,
    metric="accuracy",
    score=0.5,
    log_loss=0.3,
    validation=Estimate(0.5, 0.4, 0.6, 50),
    trial_id="t",
    epoch=4,
    config={},
    weights="weights-0.safetensors",
    sha256="0" * 64,
)
SOUND: dict[str, Any] = json.loads(json_text(asdict(CARD_OF_A_RUN)))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


def attempt(folder: Path) -> ModelCard | ModelFileError:
    try:
        return load_card(folder)
    except ModelFileError as error:
        return error


def loads_or_says_why(content: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_text(content, "utf-8", "surrogatepass")
        came = attempt(Path(folder))
    if isinstance(came, ModelFileError):
        assert str(path) in str(came)
        return False
    assert "/" not in came.weights
    assert len(set(came.classes)) == len(came.classes) >= 2
    return True


def test_the_card_itself_is_sound() -> None:
    assert problems_of_card(SOUND) == []
    assert loads_or_says_why(json.dumps(SOUND))


@given(st.sampled_from(sorted(CARD)), JSON)
def test_anything_in_any_field(name: str, value: Any) -> None:
    changed = SOUND | {name: value}
    assert loads_or_says_why(json.dumps(changed)) == (problems_of_card(changed) == [])


@given(st.sampled_from(sorted(PREPROCESSING)), st.sampled_from(sorted(VALIDATION)), JSON)
def test_anything_in_any_field_within_a_field(one: str, other: str, value: Any) -> None:
    for holder, name in (("preprocessing", one), ("validation", other)):
        changed = SOUND | {holder: SOUND[holder] | {name: value}}
        assert loads_or_says_why(json.dumps(changed)) == (problems_of_card(changed) == [])


@given(JSON)
def test_anything_in_place_of_a_card(value: Any) -> None:
    assert problems_of_card(value)
    assert not loads_or_says_why(json.dumps(value))


@given(st.text(max_size=50))
def test_any_text_in_place_of_json(text: str) -> None:
    assert not loads_or_says_why(text)
