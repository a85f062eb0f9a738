"""Dividing models at a freeze depth: the two parts give what the whole gives, or the partition is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autotl.models.backbone import Backbone, Preprocessing, create
from autotl.models.partition import DoesNotDivide, divide

FAMILIES = [
    ("tf_efficientnet_lite0", (1, 4, 8)),
    ("efficientnet_b0", (1, 4, 8)),
    ("mobilenetv3_small_050", (1, 4, 8)),
    ("resnet10t", (1, 2, 3, 4, 5)),
    ("regnetx_002", (1, 3, 5)),
    ("convnext_atto", (1, 3, 6)),
    ("densenet121", (1, 3, 6)),
    ("vit_tiny_patch16_224", (1, 7, 13)),
    ("deit_tiny_patch16_224", (1, 7, 13)),
    ("swin_tiny_patch4_window7_224", (1, 3, 6)),
    ("tf_efficientnetv2_b0", (1, 4, 7)),
    ("mobilenetv4_conv_small_035", (1, 4, 7)),
    ("repvit_m0_9", (1, 3, 5)),
    ("efficientvit_b0", (1, 3, 6)),
    ("hgnetv2_b0", (1, 3, 6)),
    ("edgenext_xx_small", (1, 3, 6)),
    ("fastvit_t8", (1, 6)),
]

NEED_THEIR_SIZE = ("vit_", "deit_", "swin_", "eva02_")
NO_PREPROCESSING = Preprocessing(64, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 64)
SMALL_INPUT = 3 * 64 * 64


def images(backbone: Backbone, n: int = 2) -> torch.Tensor:
    side = backbone.preprocessing.input_size if backbone.name.startswith(NEED_THEIR_SIZE) else 64
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def timm_backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    return create(name, 5, None)


@pytest.mark.parametrize(("name", "depth"), [(name, depth) for name, depths in FAMILIES for depth in depths])
def test_prefix_then_suffix_is_the_model(name: str, depth: int) -> None:
    backbone = timm_backbone(name)
    partition = divide(backbone, depth, images(backbone))
    other = images(backbone, 3).flip(0)[:, [2, 0, 1]]  # not the example, and another batch size
    with torch.inference_mode():
        boundary = partition.prefix(other)
        joined, whole = partition.suffix(boundary), backbone.model(other)
    assert boundary.shape == (3, *partition.shape)
    assert whole.std() > 1e-6
    torch.testing.assert_close(joined, whole, rtol=1e-3, atol=1e-4 * whole.abs().max().item())


@pytest.mark.parametrize(
    ("name", "depth", "reason"),
    [
        # Distilled models have two classifiers; in evaluation mode both run.
        ("repvit_m0_9", 6, "the parts differ from the whole by "),
        ("deit_tiny_distilled_patch16_224", 13, "the parts differ from the whole by "),
    ],
)
def test_timm_models_that_do_not_divide_are_refused(name: str, depth: int, reason: str) -> None:
    backbone = timm_backbone(name)
    with pytest.raises(DoesNotDivide) as caught:
        divide(backbone, depth, images(backbone))
    assert str(caught.value).startswith(reason)


def test_the_boundary_at_the_deepest_freeze_is_the_input_of_the_classifier() -> None:
    backbone = timm_backbone("resnet10t")
    partition = divide(backbone, 5, images(backbone))
    assert partition.depth == 5
    assert partition.shape == (512,)
    z = torch.rand(3, 512, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(partition.suffix(z), backbone.model.get_classifier()(z))


def test_the_suffix_does_not_run_the_modules_before_the_boundary() -> None:
    backbone = timm_backbone("resnet10t")
    partition = divide(backbone, 3, images(backbone))
    ran: list[str] = []
    for name in ("layer1", "layer2", "layer3"):
        inner = getattr(backbone.model, name)[0].conv1
        inner.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        z = partition.prefix(images(backbone))
        assert ran == ["layer1", "layer2"]
        partition.suffix(z)
    assert ran == ["layer1", "layer2", "layer3"]


def test_the_model_is_whole_again_after_each_part() -> None:
    backbone = timm_backbone("resnet10t")
    with torch.no_grad():
        before = backbone.model.eval()(images(backbone))
        partition = divide(backbone, 2, images(backbone))
        partition.suffix(partition.prefix(images(backbone)))
        torch.testing.assert_close(backbone.model(images(backbone)), before, rtol=0, atol=1e-6)


def test_gradients_of_the_suffix_are_those_of_the_whole() -> None:
    backbone = timm_backbone("resnet10t")
    backbone.freeze(3)
    partition = divide(backbone, 3, images(backbone))
    with torch.no_grad():
        z = partition.prefix(images(backbone))
    partition.suffix(z).square().sum().backward()
    weights = {name: weight for name, weight in backbone.model.named_parameters() if weight.requires_grad}
    by_parts = {name: weight.grad.clone() for name, weight in weights.items()}
    backbone.model.zero_grad()
    backbone.model(images(backbone)).square().sum().backward()
    for name, weight in weights.items():
        torch.testing.assert_close(by_parts[name], weight.grad, rtol=1e-3, atol=1e-4 * weight.grad.abs().max().item())


class Small(nn.Module):
    """Two linear layers and a classifier; subclasses change how they are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(SMALL_INPUT, 6)
        self.second = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x.flatten(1)).relu()).relu())


class SkipsOver(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x.flatten(1))
        return self.head(y + self.second(y))


class RunsFirstTwice(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return self.head(self.second(self.first(flat)) + self.first(flat.roll(1, 1)))


class RunsSecondTwice(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.second(self.first(x.flatten(1)))))


class TwoTensors(Small):
    class Adder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.inner(a) + b

    def __init__(self) -> None:
        super().__init__()
        self.second = self.Adder()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x.flatten(1))
        return self.head(self.second(y, y * 2))


class ReturnsPair(Small):
    class Pair(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            y = super().forward(x)
            return y, y

    def __init__(self) -> None:
        super().__init__()
        self.first = self.Pair(SMALL_INPUT, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.first(x.flatten(1))
        return self.head(self.second(a * b))


def small_backbone(kind: type[Small]) -> Backbone:
    torch.manual_seed(0)
    stages: dict[str, int | None] = {"first": 0, "second": 1, "head": None}
    model = kind()
    stage_of = {name: stages[name.split(".")[0]] for name, _ in model.named_parameters()}
    return Backbone("small", model, stage_of, 2, NO_PREPROCESSING)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_plain_hand_made_model_divides(depth: int) -> None:
    backbone = small_backbone(Small)
    partition = divide(backbone, depth, images(backbone))
    other = images(backbone, 4) * 2
    with torch.no_grad():
        torch.testing.assert_close(partition.suffix(partition.prefix(other)), backbone.model(other))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (SkipsOver, r"^the parts differ from the whole by \d\.\de[+-]\d\d$"),
        (RunsFirstTwice, "^modules run on both sides of the boundary: first$"),
        (RunsSecondTwice, "^modules run on both sides of the boundary: second$"),
        (TwoTensors, "^second takes more of an image than one tensor$"),
        (ReturnsPair, "^first returns tuple, not a tensor$"),
    ],
)
def test_a_model_that_does_not_divide_is_refused_with_the_reason(kind: type[Small], reason: str) -> None:
    backbone = small_backbone(kind)
    with pytest.raises(DoesNotDivide, match=reason):
        divide(backbone, 1, images(backbone))


def test_a_model_with_no_module_above_the_boundary_is_refused() -> None:
    backbone = small_backbone(Small)
    all_below = Backbone("small", backbone.model, dict.fromkeys(backbone.stage_of, 0), 1, NO_PREPROCESSING)
    with pytest.raises(DoesNotDivide, match=r"^no module belongs wholly to the unfrozen part$"):
        divide(all_below, 1, images(backbone))


def test_a_refused_model_still_works() -> None:
    backbone = small_backbone(TwoTensors)
    before = backbone.model(images(backbone))
    with pytest.raises(DoesNotDivide):
        divide(backbone, 1, images(backbone))
    assert torch.equal(backbone.model(images(backbone)), before)
