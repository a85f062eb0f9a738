"""Learning rates by layer, the schedule, and the optimiser."""

from __future__ import annotations

from itertools import pairwise

import pytest
import timm
import torch

from autotl.models.backbone import Backbone, Preprocessing, wrap
from autotl.train.optim import make_optimizer, parameter_groups, schedule_factor, set_rates


def make_backbone() -> Backbone:
    """Three stages of a linear layer each, and a classifier."""
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))
    stage_of = {f"{layer}.{kind}": layer if layer < 3 else None for layer in range(4) for kind in ("weight", "bias")}
    return Backbone("test", model, stage_of, 3, Preprocessing(8, 1.0, (0, 0, 0), (1, 1, 1), 8))


def rates(backbone: Backbone) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by the parameter's name."""
    names = {id(parameter): name for name, parameter in backbone.model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(backbone, 0.1, 0.7, 0.5, 0.02)
        for parameter in group["params"]
    }


def test_every_stage_has_its_decayed_rate() -> None:
    found = rates(make_backbone())
    assert [found[f"{layer}.weight"][0] for layer in range(4)] == pytest.approx([0.025, 0.05, 0.1, 0.7])
    assert [found[f"{layer}.bias"][0] for layer in range(4)] == pytest.approx([0.025, 0.05, 0.1, 0.7])


def test_only_matrices_are_decayed() -> None:
    assert {name: decay for name, (_, decay) in rates(make_backbone()).items()} == {
        f"{layer}.{kind}": 0.02 if kind == "weight" else 0.0 for layer in range(4) for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("vit_tiny_patch16_224", ("pos_embed", "cls_token")),
        ("swin_tiny_patch4_window7_224", ("relative_position_bias_table",)),
        ("tiny_vit_5m_224", ("attention_biases",)),
        ("fastvit_sa12", ("layer_scale.gamma",)),
        ("convnext_atto", ("gamma",)),
    ],
)
def test_tokens_positions_and_scales_are_not_decayed(name: str, kinds: tuple[str, ...]) -> None:
    with torch.device("meta"):
        backbone = wrap(name, timm.create_model(name, num_classes=2))
    decays = {parameter: decay for parameter, (_, decay) in rates(backbone).items()}
    exempt = [parameter for parameter in decays if parameter.endswith(kinds)]
    assert len(exempt) >= len(kinds)
    assert {decays[parameter] for parameter in exempt} == {0.0}
    weights = [parameter for parameter in decays if parameter.endswith((".fc1.weight", ".qkv.weight"))]
    assert weights
    assert {decays[parameter] for parameter in weights} == {0.02}


def test_frozen_parameters_are_in_no_group() -> None:
    backbone = make_backbone()
    backbone.freeze(2)
    assert set(rates(backbone)) == {"2.weight", "2.bias", "3.weight", "3.bias"}


def test_all_stages_frozen_leaves_the_classifier() -> None:
    backbone = make_backbone()
    backbone.freeze(3)
    assert set(rates(backbone)) == {"3.weight", "3.bias"}


def test_every_parameter_is_in_one_group_only() -> None:
    backbone = make_backbone()
    groups = parameter_groups(backbone, 0.1, 0.1, 1.0, 0.02)
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(
        id(p) for p in backbone.model.parameters()
    )
    # One rate for all, with and without decay.
    assert len(groups) == 2


def test_rate_rises_linearly_over_a_tenth_and_falls_as_a_cosine() -> None:
    factors = [schedule_factor(step, 100) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert factors[10] == 1.0
    assert factors[40] == pytest.approx(0.75)  # a third of the way down: cos 60 degrees
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)
    assert all(after < before for before, after in pairwise(factors[10:]))


@pytest.mark.parametrize("total", [1, 2, 3])
def test_short_schedules_start_at_the_full_rate(total: int) -> None:
    assert schedule_factor(0, total) == 1.0


def test_rate_stays_zero_after_the_end() -> None:
    assert schedule_factor(150, 100) == pytest.approx(0.0)


def test_rates_are_scaled_from_the_initial_ones() -> None:
    optimizer = make_optimizer(parameter_groups(make_backbone(), 0.1, 0.7, 0.5, 0.02))
    set_rates(optimizer, 0.3)
    set_rates(optimizer, 0.5)
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.0125, 0.025, 0.05, 0.35}


def test_rates_that_are_tensors_keep_their_place() -> None:
    """A step that a GPU has recorded reads them there."""
    groups = parameter_groups(make_backbone(), 0.1, 0.7, 0.5, 0.02)
    optimizer = make_optimizer([group | {"lr": torch.tensor(group["lr"])} for group in groups])
    places = [group["lr"].data_ptr() for group in optimizer.param_groups]
    set_rates(optimizer, 0.5)
    assert [group["lr"].data_ptr() for group in optimizer.param_groups] == places
    assert [group["lr"].item() for group in optimizer.param_groups] == pytest.approx([g["lr"] / 2 for g in groups])


def test_optimizer_steps_are_as_large_as_the_rate() -> None:
    backbone = make_backbone()
    optimizer = make_optimizer(parameter_groups(backbone, 0.1, 0.7, 0.5, 0.0))
    before = {name: parameter.detach().clone() for name, parameter in backbone.model.named_parameters()}
    for parameter in backbone.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    # The first step of Adam is the sign of the gradient times the rate.
    steps = {name: float((before[name] - value.detach()).mean()) for name, value in backbone.model.named_parameters()}
    assert [steps[f"{layer}.weight"] for layer in range(4)] == pytest.approx([0.025, 0.05, 0.1, 0.7], rel=1e-4)
