"""Parameter groups with layer-wise learning-rate decay, and the schedule of a trial."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch

from autotl.models.backbone import Backbone

WARMUP_SHARE = 0.1
"""Share of all steps in which the learning rate rises from zero."""


def parameter_groups(
    backbone: Backbone, learning_rate: float, head_learning_rate: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups of the parameters that are trained.

    The last stage has `learning_rate`, every stage before it `layer_decay` times that of its successor, the
    classifier `head_learning_rate` (arXiv 2106.08254). Not decayed are biases and scales (all that has no more than one
    side longer than 1), and what the architecture exempts: class tokens, and absolute and relative positions.
    """
    exempt = backbone.without_weight_decay()
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in backbone.model.named_parameters():
        if not parameter.requires_grad:
            continue
        stage = backbone.stage_of[name]
        rate = head_learning_rate if stage is None else learning_rate * layer_decay ** (backbone.n_stages - 1 - stage)
        is_vector = sum(side > 1 for side in parameter.shape) <= 1
        decay = 0.0 if is_vector or name in exempt else weight_decay
        groups[rate, decay].append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def schedule_factor(step: int, total: int) -> float:
    """Linear warm-up, then a cosine to zero: the factor on every group's rate at `step` of `total`."""
    warmup = max(1, round(WARMUP_SHARE * total))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def make_optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW on the groups of `parameter_groups`.

    The second moment forgets within about a hundred steps, for a whole trial has a few hundred: with the usual 0.999
    the large gradients of the first steps slow down all that follow. On a GPU rates are tensors there: steps that are
    recorded (`autotl.compute.recording`) read them anew.
    """
    first = next(parameter for group in groups for parameter in group["params"])
    if first.is_cuda:
        groups = [group | {"lr": torch.full((), group["lr"], device=first.device)} for group in groups]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True, capturable=first.is_cuda)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's initial rate by `factor`."""
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
