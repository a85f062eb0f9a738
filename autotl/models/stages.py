"""The stages of a timm model: timm's coarse groups of parameters, the same notion of depth for every family."""

from __future__ import annotations

from typing import Any

from timm.models._manipulate import group_with_matcher

from autotl.errors import BackboneError, Problem

TimmModel = Any
"""A `torch.nn.Module` with timm's own methods, for which timm has no type."""


def stage_of_parameters(model: TimmModel) -> dict[str, int | None]:
    """timm's coarse group of every parameter, numbered from 0 without gaps; None for the classifier's.

    Where timm has no groups for an architecture, they are what comes before its feature stages, each of these, and what
    comes after them.

    Raises:
        BackboneError: if timm knows no feature stages either.
    """
    names = model.pretrained_cfg["classifier"]
    heads = (names,) if isinstance(names, str) else tuple(names)
    groups = _groups(model)
    in_classifier = {name for name, _ in model.named_parameters() if any(_is_inside(name, head) for head in heads)}
    used = sorted({groups[name] for name, _ in model.named_parameters() if name not in in_classifier})
    number = {group: place for place, group in enumerate(used)}
    return {name: None if name in in_classifier else number[groups[name]] for name, _ in model.named_parameters()}


def _groups(model: TimmModel) -> dict[str, int]:
    try:
        matcher = model.group_matcher(coarse=True)
    except (AttributeError, AssertionError, NotImplementedError):  # each family that has none has its own way to say so
        return _by_features(model)
    groups: dict[str, int] = group_with_matcher(model.named_parameters(), matcher, reverse=True)
    return groups


def _by_features(model: TimmModel) -> dict[str, int]:
    """The same from the feature stages that timm names, which every parameter lies before, in, or behind."""
    modules = [info["module"] for info in getattr(model, "feature_info", None) or ()]
    if not modules:
        name = type(model).__name__
        found = f"timm says neither how the parameters of {name} are grouped nor where its stages end"
        raise BackboneError([Problem("backbone", name, found, "an architecture with either")])
    groups, reached = {}, 0
    for parameter, _ in model.named_parameters():
        inside = (place for place, module in enumerate(modules, 1) if _is_inside(parameter, module))
        stage = next(inside, None)
        if stage is not None:
            reached = max(reached, stage)
        behind = len(modules) + 1 if reached == len(modules) else reached
        groups[parameter] = behind if stage is None else stage
    return groups


def _is_inside(parameter: str, module: str) -> bool:
    return parameter == module or parameter.startswith(module + ".")
