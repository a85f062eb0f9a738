"""A backbone with its linear probe as a model that can be saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autotl.frozen.prepare import PreparedBackbone
from autotl.models.backbone import create
from autotl.models.catalog import load_catalog
from autotl.models.weights import save_state
from autotl.predictor import load_predictor
from autotl.records import Estimate
from autotl.storage.saved_model import save_model
from autotl.train.probe import Probe
from autotl.train.probe_model import probe_card, probe_state

LINEAR, CONVOLUTION = "test_resnet.r160_in1k", "dla46_c"
"""Models by the kind of their classifier."""
DIMENSIONS = 96
"""Of the features of `LINEAR`."""
CLASSES = ("a", "b", "c")


def probe_of(dimensions: int) -> Probe:
    generator = np.random.default_rng(0)
    weight, bias = generator.normal(size=(3, dimensions)), generator.normal(size=3)
    return Probe(weight.astype(np.float32), bias.astype(np.float32), 0.1)


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[str], PreparedBackbone]:
    """A function that prepares a model with random weights under a name of its own."""

    def prepare(timm_name: str) -> PreparedBackbone:
        torch.manual_seed(0)
        backbone = create(timm_name, 0, None)
        save_state(backbone.model, tmp_path / "state.safetensors")
        return PreparedBackbone(
            entry=replace(load_catalog()[0], name=f"birds/{timm_name}", timm_name=timm_name),
            state=tmp_path / "state.safetensors",
            weights_sha256="",
            converted=None,
            engine="torch-fp32",
            engines={},
            rows=np.arange(2),
            embeddings=np.zeros((2, 3), dtype=np.float32),
            stage_rows=np.arange(0),
            stage_features={},
            seconds=1.0,
            n_stages=backbone.n_stages,
            preprocessing=backbone.preprocessing.to_json(),
        )

    return prepare


def test_the_model_gives_the_answers_of_the_probe(prepared: Callable[[str], PreparedBackbone]) -> None:
    found = prepared(LINEAR)
    headless = create(LINEAR, 0, found.state).model.eval()
    probe = probe_of(DIMENSIONS)
    state = probe_state(found, probe, len(CLASSES))
    assert state is not None
    whole = create(LINEAR, len(CLASSES), None).model.eval()
    whole.load_state_dict(state)
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers, features = torch.softmax(whole(images), dim=1), headless(images)
    np.testing.assert_allclose(answers.numpy(), probe.probabilities(features.numpy()), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("timm_name", "dimensions"), [(CONVOLUTION, 256), (LINEAR, 7)])
def test_a_classifier_that_cannot_be_the_probe_gives_no_model(
    prepared: Callable[[str], PreparedBackbone], timm_name: str, dimensions: int
) -> None:
    assert probe_state(prepared(timm_name), probe_of(dimensions), len(CLASSES)) is None


def test_the_card_says_that_all_stages_are_frozen_and_nothing_was_trained(
    prepared: Callable[[str], PreparedBackbone],
) -> None:
    found = prepared(LINEAR)
    validation = Estimate(0.75, 0.6, 0.9, 40)
    card = probe_card(found, CLASSES, "accuracy", 0.75, 0.5, validation, {"seed": 3})
    assert (card.freeze_depth, card.epoch) == (found.n_stages, 0)
    assert (card.classes, card.provenance) == (CLASSES, {"seed": 3})
    assert (card.metric, card.score, card.log_loss, card.validation) == ("accuracy", 0.75, 0.5, validation)
    assert card.preprocessing == found.preprocessing


def test_the_card_names_the_architecture_and_its_config_the_backbone(
    prepared: Callable[[str], PreparedBackbone],
) -> None:
    card = probe_card(prepared(LINEAR), CLASSES, "accuracy", 0.75, 0.5, Estimate(0.75, 0.6, 0.9, 40), {})
    assert card.backbone == LINEAR
    assert card.config["backbone"] == f"birds/{LINEAR}"
    assert card.trial_id == f"probe-birds/{LINEAR}"


def test_state_and_card_make_a_model_that_predicts(prepared: Callable[[str], PreparedBackbone], tmp_path: Path) -> None:
    found = prepared(LINEAR)
    state = probe_state(found, probe_of(DIMENSIONS), len(CLASSES))
    assert state is not None
    card = probe_card(found, CLASSES, "accuracy", 0.75, 0.5, Estimate(0.75, 0.6, 0.9, 40), {})
    save_model(tmp_path / "model", state, card)
    predictor = load_predictor(tmp_path / "model")
    pixels = np.zeros((1, *[predictor.preprocessing.store_size] * 2, 3), dtype=np.uint8)
    assert predictor.classes == CLASSES
    assert predictor.probabilities_of_pixels(pixels).sum() == pytest.approx(1.0, abs=1e-5)
