"""The winner averaged with its near-ties: a choice among them is a lottery, their mean is not.

On a few hundred validation images many trials lie within the 95% interval of the best, and the best of them is mostly
the luckiest. All of one backbone's trials start from the same weights, so their weights can be averaged: a model
"soup" (Wortsman et al., arXiv 2203.05482), with the linear probe they started from as one more ingredient where it is
as good (arXiv 2109.01903). It costs nothing at prediction time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from autotl.records import TrialRecord
from autotl.storage.finished import Finished, finished_trials
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import ModelCard, load_card, save_model
from autotl.train.epoch import OutOfTime
from autotl.train.loop import FineTuning
from autotl.train.task import TrainingTask

if TYPE_CHECKING:
    import torch

AVERAGE = "average"
"""Trial id of an average, and where its ingredients are named in a card's provenance."""


def average_winner(task: TrainingTask, run: RunDir, probe: TrialRecord | None) -> str:
    """Replace the run's best model by the average of it and its near-ties, if that is as good on the validation images.

    Args:
        task: of the run.
        run: holds the best model, and in its cache the trials that came to their end.
        probe: the linear probe of the best model's backbone.

    Returns:
        What was done, or why nothing was.
    """
    winner = load_card(run.model)
    if winner.config.get("initial_weights") == "scratch":
        return "the best model was trained from scratch: there is nothing to average it with"
    least = winner.least_score
    files = task.backbones.get(winner.config["backbone"])
    if files is None:  # its linear probe is the best model
        return "the backbone of the best model was not searched: there is nothing to average it with"
    near_ties = [
        trial
        for trial in finished_trials(run.finished)
        if trial.card.score >= least and _joins(trial, winner, files.n_stages)
    ]
    with_start = probe is not None and probe.score is not None and probe.score >= least
    if len(near_ties) + with_start < 2:
        return "no other model is within the 95% interval of the best"
    shallowest = min(near_ties, key=lambda trial: trial.card.config["freeze_depth"])
    try:
        tuning = FineTuning(task, shallowest.card.config)
        # On the CPU, where what the trials kept comes from, wherever the model computes.
        start = {name: tensor.to("cpu", copy=True) for name, tensor in tuning.backbone.model.state_dict().items()}
        counts = {len(near_ties), len(near_ties) // 2}  # of one alone there is no average
        for count in sorted((count for count in counts if count and count + with_start >= 2), reverse=True):
            tuning.backbone.model.load_state_dict(
                average(start, [trial.trained() for trial in near_ties[:count]], with_start=with_start)
            )
            report = tuning.start()
            card = _card(tuning.card(report, AVERAGE), near_ties[:count], probe if with_start else None)
            if takes_over(card, winner):
                with run.lock():
                    save_model(run.model, tuning.backbone.model.state_dict(), card)
                return f"averaged {len(card.provenance[AVERAGE])} models that are within the 95% interval of the best"
    except OutOfTime as error:
        return str(error)
    return "averages of the best models were not as good as the best one"


def _joins(trial: Finished, winner: ModelCard, n_stages: int) -> bool:
    """Whether it trained stages of the winner's backbone; a trial of the head alone is the start once more."""
    config = trial.card.config
    return bool(config["backbone"] == winner.config["backbone"] and config["freeze_depth"] < n_stages)


def takes_over(card: ModelCard, winner: ModelCard) -> bool:
    """Whether an average replaces the winner: it is better, or within its 95% interval with a lower log loss.

    The winner's score is the largest of many and so optimistically biased; an average was not picked for its score.
    """
    near = card.score >= winner.least_score
    return card.better_than(winner) or (near and card.log_loss <= winner.log_loss)


def average(
    start: Mapping[str, torch.Tensor], trials: Sequence[Mapping[str, torch.Tensor]], *, with_start: bool
) -> dict[str, torch.Tensor]:
    """The mean of the weights of some trials, and of the `start` they all began with.

    Args:
        start: every tensor of the model. What a trial did not train it has from here.
        trials: what each of them trained, of one or more.
        with_start: count the start as one of them.
    """
    trained = [*trials, *([{}] if with_start else [])]
    result = dict(start)
    for name in {name for tensors in trained for name in tensors}:
        parts = [tensors.get(name, start[name]).double() for tensors in trained]
        result[name] = (sum(parts[1:], parts[0]) / len(parts)).to(start[name].dtype)
    return result


def _card(card: ModelCard, trials: Sequence[Finished], probe: TrialRecord | None) -> ModelCard:
    names = [trial.card.trial_id for trial in trials] + ([probe.trial_id] if probe else [])
    return replace(card, epoch=max(trial.card.epoch for trial in trials), provenance=card.provenance | {AVERAGE: names})
