"""The stage of every parameter of a timm model."""

from __future__ import annotations

import timm

from autotl.models.stages import stage_of_parameters


def test_stages_run_from_the_input_to_the_classifier() -> None:
    stage_of = stage_of_parameters(timm.create_model("resnet10t", num_classes=3))
    assert stage_of["conv1.0.weight"] == stage_of["bn1.weight"] == 0
    assert [stage_of[f"layer{number}.0.conv1.weight"] for number in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert stage_of["fc.weight"] is None
    assert stage_of["fc.bias"] is None


def test_every_parameter_has_a_stage_and_no_number_is_left_out() -> None:
    model = timm.create_model("resnet10t", num_classes=3)
    stage_of = stage_of_parameters(model)
    assert set(stage_of) == {name for name, _ in model.named_parameters()}
    assert {stage for stage in stage_of.values() if stage is not None} == {0, 1, 2, 3, 4}
