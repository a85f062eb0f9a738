"""Freezing, training mode and preprocessing of timm models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from autotl.data.augment import eval_view
from autotl.errors import BackboneError
from autotl.models.backbone import Backbone, Preprocessing, create, preprocessing_named
from autotl.models.catalog import load_catalog
from autotl.models.weights import save_state

LITE0 = "tf_efficientnet_lite0.in1k"


@pytest.fixture
def resnet() -> Backbone:
    return create("resnet10t", 3, None)


def batch_norms(module: torch.nn.Module) -> list[torch.nn.BatchNorm2d]:
    return [inner for inner in module.modules() if isinstance(inner, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "stages"),
    [("resnet10t", 5), (LITE0, 8), ("mobilenetv3_small_050", 8), ("convnext_atto", 6), ("vit_tiny_patch16_224", 13)],
)
def test_number_of_stages(name: str, stages: int) -> None:
    assert create(name, 3, None).n_stages == stages


def test_the_catalog_gives_the_stages_of_the_bundled_models() -> None:
    for entry in load_catalog()[:3]:
        assert create(entry.name, 2, None).n_stages == entry.stages


def test_the_classifier_has_one_output_a_class(resnet: Backbone) -> None:
    classifier = resnet.model.get_classifier()
    assert isinstance(classifier, torch.nn.Linear)
    assert classifier.out_features == 3


def test_depth_0_trains_everything(resnet: Backbone) -> None:
    resnet.freeze(0)
    assert all(parameter.requires_grad for parameter in resnet.model.parameters())


def test_the_deepest_freeze_trains_the_classifier_alone(resnet: Backbone) -> None:
    resnet.freeze(resnet.n_stages)
    trained = [name for name, parameter in resnet.model.named_parameters() if parameter.requires_grad]
    assert trained == ["fc.weight", "fc.bias"]


def test_a_depth_freezes_the_stages_below_it(resnet: Backbone) -> None:
    resnet.freeze(3)
    tops = {name.split(".")[0] for name, parameter in resnet.model.named_parameters() if parameter.requires_grad}
    assert tops == {"layer3", "layer4", "fc"}


def test_a_smaller_depth_thaws_again(resnet: Backbone) -> None:
    resnet.freeze(5)
    resnet.freeze(0)
    assert all(parameter.requires_grad for parameter in resnet.model.parameters())


def test_frozen_batch_norms_stay_in_evaluation_mode(resnet: Backbone) -> None:
    resnet.freeze(3)
    resnet.train_mode(keep_statistics=False)
    model = resnet.model
    frozen = [model.bn1, *batch_norms(model.conv1), *batch_norms(model.layer1), *batch_norms(model.layer2)]
    trained = [*batch_norms(model.layer3), *batch_norms(model.layer4)]
    assert len(frozen) + len(trained) == len(batch_norms(model))
    assert not any(norm.training for norm in frozen)
    assert all(norm.training for norm in trained)


def test_a_training_pass_changes_only_the_statistics_above_the_freeze(resnet: Backbone) -> None:
    resnet.freeze(2)
    resnet.train_mode(keep_statistics=False)
    before = {name: buffer.clone() for name, buffer in resnet.model.named_buffers() if "running_mean" in name}
    resnet.model(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    changed = {
        name for name, buffer in resnet.model.named_buffers() if name in before and (buffer != before[name]).any()
    }
    assert {name.split(".")[0] for name in changed} == {"layer2", "layer3", "layer4"}


def test_train_mode_after_thawing_trains_all_batch_norms(resnet: Backbone) -> None:
    resnet.freeze(5)
    resnet.train_mode(keep_statistics=False)
    resnet.freeze(0)
    resnet.train_mode(keep_statistics=False)
    assert all(norm.training for norm in batch_norms(resnet.model))


def test_dropout_inside_a_frozen_stage_is_off_and_outside_is_on() -> None:
    backbone = create("vit_tiny_patch16_224", 3, None)
    backbone.freeze(7)  # patch embedding and blocks 0 to 5
    backbone.train_mode(keep_statistics=False)
    assert not any(module.training for module in backbone.model.blocks[5].modules())
    assert all(module.training for module in backbone.model.blocks[6].modules())


def test_preprocessing_of_a_bundled_model() -> None:
    expected = Preprocessing(224, 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 256)
    assert create(LITE0, 2, None).preprocessing == expected
    assert preprocessing_named(LITE0) == expected


def test_preprocessing_of_an_imagenet_model() -> None:
    found = preprocessing_named("resnet18.a1_in1k")
    assert found == Preprocessing(224, 0.95, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 236)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalising_shifts_and_scales_each_channel_in_place(layout: torch.memory_format) -> None:
    preprocessing = Preprocessing(8, 1.0, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0), 8)
    images = torch.rand(2, 3, 4, 5).contiguous(memory_format=layout)
    expected = torch.stack([(images[:, 0] - 0.5) / 0.5, (images[:, 1] - 0.25) / 0.25, images[:, 2] / 2.0], dim=1)
    assert preprocessing.normalise(images) is images
    assert torch.equal(images, expected)


def test_preprocessing_survives_json() -> None:
    before = preprocessing_named("resnet18.a1_in1k")
    assert Preprocessing.from_json(json.loads(json.dumps(before.to_json()))) == before


@pytest.mark.parametrize("name", sorted({entry.name for entry in load_catalog()}))
def test_the_stored_square_needs_no_resampling_for_evaluation(name: str) -> None:
    preprocessing = preprocessing_named(name)
    side, size = preprocessing.store_size, preprocessing.input_size
    batch = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    start = (side - size) // 2
    centre = batch[:, start : start + size, start : start + size].permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(eval_view(batch, size, preprocessing.crop), centre, rtol=0, atol=1e-6)


def test_saved_weights_come_back_under_a_new_classifier(tmp_path: Path) -> None:
    original = create("resnet10t", 0, None)
    save_state(original.model, tmp_path / "w.safetensors")
    again = create("resnet10t", 7, tmp_path / "w.safetensors")
    state = again.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in original.model.state_dict().items())
    assert state["fc.weight"].shape[0] == 7


def test_weights_that_lack_a_tensor_or_have_one_too_many_are_refused(tmp_path: Path) -> None:
    model = create("resnet10t", 0, None).model
    model.bn2 = model.bn1
    del model.bn1
    save_state(model, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError) as caught:
        create("resnet10t", 2, tmp_path / "w.safetensors")
    (problem,) = caught.value.problems
    assert problem.where == "resnet10t"
    assert problem.found.startswith(
        "w.safetensors: missing ['bn1.weight', 'bn1.bias', 'bn1.running_mean'], unexpected ['bn2."
    )


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_state(create("mobilenetv3_small_075", 0, None).model, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match=r"w\.safetensors"):
        create("mobilenetv3_small_100", 2, tmp_path / "w.safetensors")


def test_kept_statistics_do_not_move_while_weights_are_trained(resnet: Backbone) -> None:
    resnet.freeze(0)
    resnet.train_mode(keep_statistics=True)
    norms = [module for module in resnet.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    resnet.model(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) + 3.0)
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    assert all(norm.weight.requires_grad for norm in norms)
    resnet.train_mode(keep_statistics=False)


@pytest.mark.parametrize("name", ["resnet10t", "repvit_m0_9", "efficientformerv2_s0"])
def test_a_given_classifier_is_a_linear_map_of_the_features(name: str) -> None:
    torch.manual_seed(0)
    backbone = create(name, 3, None)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, backbone.model.head_hidden_size, generator=generator)
    bias = torch.randn(3, generator=generator)
    assert backbone.set_classifier(weight, bias)
    backbone.model.eval()
    images = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        features = backbone.model.forward_head(backbone.model.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.model(images), features @ weight.T + bias, rtol=1e-3, atol=1e-3)


def test_a_classifier_of_another_shape_is_left_alone(resnet: Backbone) -> None:
    before = resnet.model.get_classifier().weight.clone()
    assert not resnet.set_classifier(torch.zeros(3, 7), torch.zeros(3))
    assert torch.equal(resnet.model.get_classifier().weight, before)
