"""The advice after the fact: what was advised against what won."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from autotl.advice.advisor import Advice
from autotl.advice.start_points import depth_of
from autotl.advice.wording import difference_text, score_text
from autotl.records import TrialRecord

if TYPE_CHECKING:
    from autotl.storage.saved_model import ModelCard


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to train.

    Attributes:
        strategy: in a few words.
        freeze_depth: leading stages that stay as pretrained; None for training from scratch.
        n_stages: of the backbone.
        backbone: its name in configs.
        score: best validation score with it, larger is better; None if no trial has one.
    """

    strategy: str
    freeze_depth: int | None
    n_stages: int
    backbone: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Hindsight:
    """What was advised against what won, on the validation images.

    Attributes:
        advised: with the best score among the trials that followed it.
        winner: the run's model.
        followed: trials with a score that followed the advice, the linear probe among them where it was feature
            extraction.
        difference: score of the winner minus that of the advice; None if no trial followed it. The winner is the best
            of many on these images, so the difference is optimistically biased; an average may score below the best
            trial.
        within_interval: whether the score of the advice lies within the 95% interval of the winner's.
        text: all of it in a sentence.
    """

    advised: Choice
    winner: Choice
    followed: int
    difference: float | None
    within_interval: bool
    text: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare_with_winner(advice: Advice, records: Sequence[TrialRecord], card: ModelCard) -> Hindsight:
    """Compare the advice with the run's model.

    A trial follows the advice if it trains the backbone that is ranked first, from pretrained weights, at the freeze
    depth that the strategy means: all stages for feature extraction, none for fine-tuning everything, else that of the
    first start point.

    Args:
        advice: as before the search.
        records: all trials with the linear probes.
        card: of the run's model.
    """
    best = advice.backbones[0]
    depth = advised_depth(advice)
    scores = [trial.score for trial in records if trial.score is not None and _follows(trial.config, best.name, depth)]
    score = max(scores, default=None)
    advised = Choice(_strategy(depth, best.n_stages), depth, best.n_stages, best.name, score)
    name = card.config["backbone"]  # `card.backbone` is timm's name, which the model of an earlier run may have, too
    n_stages = next(backbone.n_stages for backbone in advice.backbones if backbone.name == name)
    winner = Choice(_strategy(card.freeze_depth, n_stages), card.freeze_depth, n_stages, name, card.score)
    difference = None if score is None else card.score - score
    within = score is not None and score >= card.least_score
    text = _sentence(advised, winner, _kind(card), card.metric, len(scores), within=within)
    return Hindsight(advised, winner, len(scores), difference, within, text)


def advised_depth(advice: Advice) -> int:
    """The freeze depth that the strategy means for the backbone ranked first."""
    return depth_of(advice.scenario, advice.strategy, advice.backbones[0].n_stages)


def _follows(config: dict[str, Any], backbone: str, depth: int) -> bool:
    pretrained = config.get("initial_weights") == "pretrained"
    return pretrained and config["backbone"] == backbone and config["freeze_depth"] == depth


def _strategy(depth: int | None, n_stages: int) -> str:
    if depth is None:
        return "train from scratch"
    if depth == n_stages:
        return "feature extraction"
    return f"freeze {depth} of {n_stages} stages" if depth else "fine-tune everything"


def _kind(card: ModelCard) -> str:
    """What the strategy does not say of the run's model: that it is the linear probe, or an average."""
    if card.trial_id.startswith("probe-"):
        return " by the linear probe"
    return ", averaged with its near-ties" if "average" in card.provenance else ""


def _sentence(advised: Choice, winner: Choice, kind: str, metric: str, followed: int, *, within: bool) -> str:
    same_backbone = advised.backbone == winner.backbone
    of = "" if same_backbone else f" with {winner.backbone}"
    assert winner.score is not None
    # An average is taken for what its validation images cannot tell apart, and may score below one of its parts.
    word = "chosen" if advised.score is not None and winner.score < advised.score else "best"
    best = f"{word}: {winner.strategy}{kind}{of} ({score_text(winner.score, metric)})"
    with_backbone = "" if same_backbone else f" with {advised.backbone}"
    if advised.score is None:
        return f"Advised: {advised.strategy}{with_backbone}, which no trial followed to a score; {best}."
    if same_backbone and advised.freeze_depth == winner.freeze_depth:
        return f"Advised and {best}, of {_count(followed)} that followed the advice."
    by = difference_text(winner.score - advised.score, metric)
    inside = ", within the interval" if within else ""
    return f"Advised: {advised.strategy}{with_backbone} ({score_text(advised.score, metric)}); {best}, {by}{inside}."


def _count(followed: int) -> str:
    return "1 trial" if followed == 1 else f"{followed} trials"
