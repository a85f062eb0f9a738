"""How the time given is divided: which backbones are probed and searched, and how long a trial is."""

from __future__ import annotations

import math

import numpy as np

from autotl.advice.advisor import Advice
from autotl.advice.evidence import BackboneEvidence
from autotl.models.catalog import BackboneEntry
from autotl.space.search_space import SearchSpace
from autotl.train.prepare import Prepared
from autotl.train.task import BackboneFiles
from autotl.tune.runner import Slots

ADVICE_SHARE = 0.2
"""Largest share of the time that may pass before the search begins; later backbones are left out for it."""
MARGIN = 0.05
"""A backbone whose probe is so much worse than the best one's is not searched."""
MAX_BACKBONES = 3
FULL_TRIALS_WANTED = 5
"""Epochs of a trial are set so that every slot has time for about so many full trials."""


def expected_seconds(entry: BackboneEntry, first: Prepared | None) -> float:
    """Time to embed and probe with `entry`, from what the first backbone took and the ratio of their costs."""
    if first is None:
        return 0.0
    return first.seconds * max(entry.gmacs, 1e-3) / max(first.entry.gmacs, 1e-3) * 1.2 + 2.0


def chosen_backbones(advice: Advice) -> tuple[BackboneEvidence, ...]:
    """The best few by evidence; those whose probe is far behind are left out."""
    best = max(one.probe_score for one in advice.backbones)
    near = [one for one in advice.backbones if one.probe_score >= best - MARGIN]
    return tuple(near[:MAX_BACKBONES])


def epochs(space: SearchSpace, files: dict[str, BackboneFiles], n_train: int, seconds: float, slots: Slots) -> int:
    """Epochs of a full trial: the space's, or as many as leave every slot time for `FULL_TRIALS_WANTED` trials.

    An epoch of a half-frozen model takes about twice the evaluation time of its images.
    """
    if isinstance(space.max_t, int):
        return space.max_t
    cheapest = min(one.seconds_per_image for one in files.values())
    epoch = max(0.5, 2.0 * n_train * cheapest / slots.cpus)
    return int(np.clip(math.floor(seconds / FULL_TRIALS_WANTED / epoch), 4, 20))
