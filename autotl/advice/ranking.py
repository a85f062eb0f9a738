"""Backbones ranked by their evidence, and which of them are searched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autotl.advice.evidence import BackboneEvidence
from autotl.advice.probes import standard_error

MARGIN = 0.05
"""A backbone whose frozen features score so much worse than those of the one ranked first is not searched."""
MAX_BACKBONES = 3


def rank(evidence: Sequence[BackboneEvidence]) -> tuple[BackboneEvidence, ...]:
    """Best first, by the mean of probe and nearest-neighbour score; where that is noise, by ImageNet accuracy.

    The one with the highest score leads. All whose score is within one standard error of the leader's (paired: of the
    difference on the same validation images) might as well lead; of those the one with the highest ImageNet top-1 is
    placed, and the others are ranked in the same way. Where top-1 is unknown it moves nobody. That frozen features
    on one's own data come first, and published accuracy second, is what large comparisons found (arXiv 2503.18528).
    """
    left = sorted(evidence, key=lambda backbone: (-backbone.mean_score, -backbone.top1))
    ranked: list[BackboneEvidence] = []
    while left:
        leader = left[0]
        tied = [other for other in left if other.top1 > leader.top1 > 0 and is_within_noise(leader, other)]
        ranked.append(max(tied, key=lambda backbone: backbone.top1, default=leader))
        left = [backbone for backbone in left if backbone is not ranked[-1]]
    return tuple(ranked)


def is_within_noise(leader: BackboneEvidence, other: BackboneEvidence) -> bool:
    """Whether `leader` is better than `other` by no more than the standard error of the difference."""
    noise = 0.0
    if leader.draws is not None and other.draws is not None:
        noise = standard_error(leader.draws - other.draws)
    return leader.mean_score - other.mean_score <= noise


def choose_searched(
    ranked: Sequence[BackboneEvidence],
) -> tuple[tuple[BackboneEvidence, ...], dict[str, str]]:
    """The backbone ranked first and the next few that are near it; and the others by name, each with the reason."""
    first, chosen = ranked[0], [ranked[0]]
    left_out: dict[str, str] = {}
    for backbone in ranked[1:]:
        behind = first.mean_score - backbone.mean_score
        if math.isnan(behind):
            left_out[backbone.name] = "there is no score to compare"
        elif behind > MARGIN:
            left_out[backbone.name] = f"its frozen features score {behind:.3f} less than those of {first.name}"
        elif len(chosen) == MAX_BACKBONES:
            left_out[backbone.name] = f"only the first {MAX_BACKBONES} are"
        else:
            chosen.append(backbone)
    return tuple(chosen), left_out


def without_duplicates(
    ranked: Sequence[BackboneEvidence], weights: Mapping[str, str]
) -> tuple[tuple[BackboneEvidence, ...], dict[str, str]]:
    """Backbones to search; and those whose weights one of these has as well, with its name.

    The model of an earlier run has the weights of its pretrained backbone where that run's winner is a linear probe.

    Args:
        ranked: the best first.
        weights: something that stands for the weights of each, by name.
    """
    first = {weights[backbone.name]: backbone.name for backbone in reversed(ranked)}
    kept = {backbone.name: first[weights[backbone.name]] for backbone in ranked}
    searched = tuple(backbone for backbone in ranked if kept[backbone.name] == backbone.name)
    return searched, {name: keeper for name, keeper in kept.items() if name != keeper}
