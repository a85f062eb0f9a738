"""How the time given is divided: which backbones are probed and searched, and how long a trial is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from autotl.advice.advisor import Advice
from autotl.advice.evidence import BackboneEvidence
from autotl.frozen.prepare import Prepared
from autotl.models.catalog import BackboneEntry
from autotl.space.search_space import Config, SearchSpace
from autotl.tune.pace import Predict

ADVICE_SHARE = 0.2
"""Largest share of a fit's time that may pass before the search begins; later backbones are left out for it."""
PROBING_SHARE = 0.8
"""The same of the time for the advice alone, before the statements are put together."""
MARGIN = 0.05
"""A backbone whose frozen features score so much worse than those of the one ranked first is not searched."""
MAX_BACKBONES = 3
FULL_TRIALS_WANTED = 5
"""Epochs of a trial are set so that every slot has time for about so many full trials."""
FEWEST, MOST = 4, 20
"""Epochs of a full trial."""


def expected_seconds(entry: BackboneEntry, first: Prepared | None) -> float:
    """Time to embed and probe with `entry`, from what the first backbone took and the ratio of their costs."""
    if first is None:
        return 0.0
    return first.seconds * max(entry.gmacs, 1e-3) / max(first.entry.gmacs, 1e-3) * 1.2 + 2.0


def chosen_backbones(ranked: Sequence[BackboneEvidence]) -> tuple[tuple[BackboneEvidence, ...], dict[str, str]]:
    """The backbone ranked first and the next few that are near it; and the others by name, each with the reason."""
    first, chosen, left_out = ranked[0], [ranked[0]], {}
    for one in ranked[1:]:
        behind = first.mean_score - one.mean_score
        if math.isnan(behind):
            left_out[one.name] = "there is no score to compare"
        elif behind > MARGIN:
            left_out[one.name] = f"its frozen features score {behind:.3f} less than those of {first.name}"
        elif len(chosen) == MAX_BACKBONES:
            left_out[one.name] = f"only the first {MAX_BACKBONES} are"
        else:
            chosen.append(one)
    return tuple(chosen), left_out


def without_twins(
    backbones: tuple[BackboneEvidence, ...], weights: dict[str, str]
) -> tuple[tuple[BackboneEvidence, ...], dict[str, str]]:
    """Backbones to search; and those whose weights one of these has as well, with its name.

    The model of an earlier run has the weights of its pretrained backbone where that run's winner is a linear probe.

    Args:
        backbones: the best first.
        weights: something that stands for the weights of each, by name.
    """
    first = {weights[one.name]: one.name for one in reversed(backbones)}
    kept = {one.name: first[weights[one.name]] for one in backbones}
    searched = tuple(one for one in backbones if kept[one.name] == one.name)
    return searched, {name: keeper for name, keeper in kept.items() if name != keeper}


def starts_with(advice: Advice, backbones: tuple[str, ...], twins: dict[str, str]) -> list[Config]:
    """The start points of the `backbones` that are searched, each once; one of a twin is that of its namesake there."""
    found: list[Config] = []
    for point in advice.start_points:
        same = point | {"backbone": twins.get(point["backbone"], point["backbone"])}
        if same["backbone"] in backbones and same not in found:
            found.append(same)
    return found


def epochs(space: SearchSpace, start_points: Sequence[Config], predict: Predict, seconds: float) -> int:
    """Epochs of a full trial: the space's, or as many as leave time for `FULL_TRIALS_WANTED` full trials a slot.

    Args:
        space: what is searched.
        start_points: stand for the trials to come; without any, the time is divided as if an epoch took a second.
        predict: seconds of a trial, see `autotl.tune.pace`.
        seconds: for the search.
    """
    if isinstance(space.max_t, int):
        return space.max_t
    wanted = seconds / FULL_TRIALS_WANTED

    def typical(n_epochs: int) -> float:
        return median(predict(point, n_epochs, 0) for point in start_points) if start_points else float(n_epochs)

    fitting = [count for count in range(FEWEST, MOST + 1) if typical(count) <= wanted]
    return max(fitting, default=FEWEST)
