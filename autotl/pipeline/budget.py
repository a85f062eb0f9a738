"""What comes before and after the search: what is probed, and what is kept back. The search itself: `schedule.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotl.advice.advisor import Advice
from autotl.advice.evidence import BackboneEvidence
from autotl.advice.ranking import choose_searched
from autotl.compute.device import Speed
from autotl.frozen.prepare import PreparedBackbone
from autotl.models.catalog import BackboneEntry
from autotl.pipeline.earlier_runs import REFERENCE_IMAGES
from autotl.settings import FitSettings

# -- before the search -----------------------------------------------------------------------------------------------

SEARCH_SHARE, PROBES_SHARE, ADVICE_SHARE = 0.2, 0.5, 0.8
"""Largest share of a fit's time that may pass before the search begins; later backbones are left out for it.

The second where frozen features serve well: there a better backbone gains more than fine-tuning does (with 600 images
of the four sets like ImageNet in benchmarks/table, linear probes of EfficientNet-Lite0 score 94.3%, of Lite2 95.1%, and
Lite0 fine-tuned 95.0%). The third for the advice alone, before the statements are put together.
"""


def probing_seconds(timeout: float, *, searches: bool, serve_well: bool) -> float:
    """How long backbones that are not required may be probed, from the beginning of the call.

    Args:
        timeout: seconds given.
        searches: whether a search follows the advice.
        serve_well: whether frozen features are known to serve well.
    """
    share = PROBES_SHARE if serve_well else SEARCH_SHARE
    return (share if searches else ADVICE_SHARE) * timeout


def expected_seconds(entry: BackboneEntry, first: PreparedBackbone | None) -> float:
    """Time to embed and probe with `entry`, from what the first backbone took and the ratio of their costs."""
    if first is None:
        return 0.0
    return first.seconds * max(entry.gmacs, 1e-3) / max(first.entry.gmacs, 1e-3) * 1.2 + 2.0


EMBEDDING_SHARE = 0.3
"""Of the time, at most, for embedding with the backbones that are probed in any case; of more images a part is used.
For the advice alone it is `ADVICE_SHARE`."""


def affordable_share(
    n_images: int, gmacs: float, timeout: float, speed: Speed, cores: int, *, searches: bool = True
) -> tuple[float, float]:
    """The share of the images that can be embedded in its share of the time, and the seconds for all of them.

    Args:
        n_images: training and validation images.
        gmacs: 10^9 multiply-adds an image, of all backbones that are probed in any case; 0 where unknown.
        timeout: seconds given.
        speed: of a core.
        cores: that embed.
        searches: whether a search follows the advice.
    """
    given = (EMBEDDING_SHARE if searches else ADVICE_SHARE) * timeout
    seconds = _embedding_seconds(n_images, gmacs, speed, cores)
    return min(1.0, given / seconds) if seconds > 0 else 1.0, seconds


def _embedding_seconds(n_images: int, gmacs: float, speed: Speed, cores: int) -> float:
    return n_images * gmacs * 1e9 / (speed.multiplications * cores)


ENGINE_GAIN = 3.0
"""No way to embed images is expected to be so many times as fast as torch with the speed that was measured."""


def within_reach(
    optional: Sequence[BackboneEntry], n_images: int, timeout: float, speed: Speed, cores: int, *, searches: bool
) -> tuple[BackboneEntry, ...]:
    """The backbones that can be probed in time if all goes well; arguments are those of `affordable_share`.

    Images are decoded at the size of the largest of these, so those that are certainly too slow must not be among them.
    """
    given = (PROBES_SHARE if searches else ADVICE_SHARE) * timeout
    seconds = {entry.name: _embedding_seconds(n_images, entry.gmacs, speed, cores) for entry in optional}
    return tuple(entry for entry in optional if seconds[entry.name] <= ENGINE_GAIN * given)


# -- after the search ------------------------------------------------------------------------------------------------

PREDICTION_FACTOR = 2.0
"""The winner predicts in plain torch, up to so many times as slow as the images were embedded."""
AVERAGING_SECONDS = 0.8
"""For averaging the best models; validating the averages comes on top."""
ENDING_SECONDS = 2.0
"""For ending Ray and loading the winner; the test split and the reference set come on top."""
REFERENCE_SHARE = 0.03
"""Of the time, at most, for the run's reference set: fewer images are embedded for it where that is short."""
SCRATCH_SHARE = 0.2
"""Of the time, at most, for measuring the benefit of pretraining."""
SCRATCH_EPOCHS = 2
"""Unasked, no benefit is measured where fewer would fit."""
SCRATCH_TRAININGS = 2
"""From scratch, and the winner again where its curve was timed out or stopped, which is not known before the search."""
PASSES_PER_EPOCH = 4
"""An epoch from scratch takes so many times as long as embedding its images did, or longer."""


@dataclass(frozen=True, slots=True)
class KeptBack:
    """Seconds of the time given that the search must leave.

    Attributes:
        average: for averaging the best models and validating two averages behind the frozen stages.
        benefit: for measuring what pretraining is worth; 0 where that is not done.
        end: for loading the winner, predicting the test split and embedding images for the reference set.
    """

    average: float
    benefit: float
    end: float

    @property
    def total(self) -> float:
        """All that comes after the search."""
        return self.average + self.benefit + self.end


def keep_back(settings: FitSettings, advice: Advice, n_images: tuple[int, int, int]) -> KeptBack:
    """What comes after the search, from how fast the slowest backbone embedded the images.

    Args:
        settings: with the time given.
        advice: with the backbones, their speeds and the scenario.
        n_images: training, validation and test images.
    """
    n_train, n_val, n_test = n_images
    slowest = min(backbone.images_per_second for backbone in advice.backbones)
    searched, _ = choose_searched(advice.backbones)
    tested = PREDICTION_FACTOR * n_test / slowest
    embedded = PREDICTION_FACTOR * min(REFERENCE_IMAGES, n_train) / slowest
    return KeptBack(
        average=AVERAGING_SECONDS + n_val / slowest,
        benefit=benefit_seconds(settings, advice, n_train, searched),
        end=ENDING_SECONDS + tested + min(embedded, reference_seconds(settings.budget.timeout)),
    )


def reference_seconds(timeout: float) -> float:
    """Seconds for the run's reference set, of all that are given."""
    return REFERENCE_SHARE * timeout


def benefit_seconds(settings: FitSettings, advice: Advice, n_train: int, searched: Sequence[BackboneEvidence]) -> float:
    """What is kept back to measure the benefit of pretraining; 0 where that is not done.

    It is done where it was asked for, and in the scenario that holds training from scratch possible, if enough epochs
    can be expected to fit whichever backbone wins: the search can use the time better than for nothing.

    Args:
        settings: with the time given.
        advice: with the scenario.
        n_train: training images.
        searched: the backbones that will be searched.
    """
    seconds = SCRATCH_SHARE * settings.budget.timeout
    slowest = min(backbone.images_per_second for backbone in searched)
    fits = SCRATCH_TRAININGS * SCRATCH_EPOCHS * PASSES_PER_EPOCH * n_train / slowest <= seconds
    return seconds if settings.measure_benefit or (advice.scenario.scratch and fits) else 0.0
