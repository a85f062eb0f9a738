"""The stages of a timm model: timm's coarse groups of parameters, the same notion of depth for every family."""

from __future__ import annotations

from typing import Any

from timm.models._manipulate import group_with_matcher

TimmModel = Any
"""A `torch.nn.Module` with timm's own methods, for which timm has no type."""


def stage_of_parameters(model: TimmModel) -> dict[str, int | None]:
    """timm's coarse group of every parameter, numbered from 0 without gaps; None for the classifier's."""
    names = model.pretrained_cfg["classifier"]
    heads = (names,) if isinstance(names, str) else tuple(names)
    groups = group_with_matcher(model.named_parameters(), model.group_matcher(coarse=True), reverse=True)
    in_classifier = {name for name, _ in model.named_parameters() if any(_is_inside(name, head) for head in heads)}
    used = sorted({groups[name] for name, _ in model.named_parameters() if name not in in_classifier})
    number = {group: place for place, group in enumerate(used)}
    return {name: None if name in in_classifier else number[groups[name]] for name, _ in model.named_parameters()}


def _is_inside(parameter: str, module: str) -> bool:
    return parameter == module or parameter.startswith(module + ".")
