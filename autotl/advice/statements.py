"""The advice in plain words: statements, each with a stable code and the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from autotl.advice.evidence import BackboneEvidence
from autotl.advice.ranking import is_within_noise
from autotl.advice.scenario import Scenario, Size, Strategy
from autotl.advice.similarity import FAR_IS_OF, SUBSAMPLE, Similarity
from autotl.advice.start_points import StartPoint, depth_of
from autotl.data.folder import Finding
from autotl.models.catalog import load_catalog
from autotl.space.files import load_space
from autotl.space.parameters import Depth, Float

Severity = Literal["info", "advice", "warning"]

SHOWN_CLASSES = 8
SHOWN_FILES = 20
FEWEST_TO_TELL = 30
"""On fewer images a score moves by 3 points or more with every image: that nothing is gained means nothing."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing the advice says.

    Attributes:
        code: a stable name.
        severity: "info", "advice" or "warning".
        text: in plain words.
        evidence: the numbers behind it.
    """

    code: str
    severity: Severity
    text: str
    evidence: dict[str, Any]


def size_statement(size: Size) -> Statement:
    """How much data there is."""
    word = "large" if size.large else "small"
    imbalance = f"median {size.median:g}, largest to smallest {size.imbalance:.1f}"
    classes = f"{size.n_classes} classes of {size.smallest} to {size.largest} images ({imbalance})"
    return Statement("size", "info", f"The data set is {word}: {size.n_images} images in {classes}.", asdict(size))


def similarity_statement(similarity: Similarity, code: str = "similarity") -> Statement:
    """How near the data is to a reference set, and how sure that is."""
    relation = "similar" if similarity.similar else "dissimilar"
    side = "below" if similarity.distance < similarity.threshold else "above"
    spread = "" if similarity.spread is None else f" (± {similarity.spread:.3f} with {SUBSAMPLE} images)"
    decides = "distance" if similarity.by_distance <= similarity.by_cover else "share of images near a photograph"
    text = (
        f"It is {relation} to {similarity.reference}: similarity {similarity.similarity:.2f} of 1"
        f"{_interval(similarity.similarity_interval, 2)}, from the {decides}. Distance {similarity.distance:.3f}, "
        f"{side} the threshold {similarity.threshold:g}{_interval(similarity.distance_interval, 3)}{spread}; "
        f"{similarity.covered:.0%} of {similarity.n_images} images near a photograph; Fréchet distance "
        f"{similarity.frechet:.2f}."
    )
    return Statement(code, "info", text + _caveat(similarity) + _doubt(similarity), asdict(similarity))


def _caveat(similarity: Similarity) -> str:
    """What to add where the threshold is another reference set's."""
    if (similarity.reference, similarity.backbone) == FAR_IS_OF:
        return ""
    return " The threshold was found for {} as {} sees it, and may be another here.".format(*FAR_IS_OF)


def _interval(interval: tuple[float, float] | None, digits: int) -> str:
    return "" if interval is None else f", 95% interval {interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def _doubt(similarity: Similarity) -> str:
    """What to add where other images of the same kind might have come out on the other side."""
    if not similarity.doubtful:
        return ""
    if similarity.probability is None:
        return " That is in doubt: there are too few images for an interval."
    return (
        f" That is in doubt: the interval of the similarity holds 0.5, and {similarity.probability:.0%} of resampled "
        "sets are similar."
    )


def nearest_statement(similarity: Similarity, code: str = "nearest_classes") -> Statement:
    """The reference set's classes that the classes of the data resemble most; the first eight in words."""
    shown = [f"{name}: {', '.join(nearest)}" for name, nearest in list(similarity.nearest.items())[:SHOWN_CLASSES]]
    more = len(similarity.nearest) - len(shown)
    text = f"Nearest classes of {similarity.reference}: {'; '.join(shown)}{f'; and {more} more' if more else ''}."
    return Statement(code, "info", text, {"nearest": similarity.nearest})


def earlier_run_statements(similarities: tuple[Similarity, ...]) -> list[Statement]:
    """The same of earlier runs; with codes of their own, as those above appear once."""
    statements = []
    for similarity in similarities:
        statements.append(similarity_statement(similarity, "earlier_run_similarity"))
        if similarity.nearest:
            statements.append(nearest_statement(similarity, "earlier_run_nearest_classes"))
    return statements


def scenario_statement(scenario: Scenario, best: BackboneEvidence, decisive: Similarity | None) -> Statement:
    """`decisive` is the similarity that counted, where there were several."""
    also = "; training from scratch gets a small share of the search" if scenario.scratch else ""
    counted = (
        f" (what counts is the similarity to {decisive.reference}: {best.name} is ranked first)" if decisive else ""
    )
    text = (
        f"Scenario {scenario.number}, {scenario.name}{counted}: {scenario.strategy}"
        f"{_with_depth(scenario, scenario.strategy, best)}{also}."
    )
    counted_by = {"reference": decisive.reference} if decisive else {}
    return Statement("scenario", "advice", text, asdict(scenario) | counted_by)


def _with_depth(scenario: Scenario, strategy: Strategy, best: BackboneEvidence) -> str:
    """What the strategy means for the best backbone, where its name does not say it."""
    if strategy != "freeze the first stages, train the rest":
        return ""
    return f" ({depth_of(scenario, strategy, best.n_stages)} of the {best.n_stages} stages of {best.name} frozen)"


def headroom_statement(scenario: Scenario, strategy: Strategy, size: Size, best: BackboneEvidence) -> Statement:
    """Why the strategy is not the scenario's."""
    text = (
        f"But the linear probe of {best.name} misses {1 - best.recall:.0%} of a class on average ({best.scored_on}), "
        f"and {size.median:g} images in the median class are enough to train on: {strategy}"
        f"{_with_depth(scenario, strategy, best)}."
    )
    evidence = {"strategy": strategy, "recall": best.recall, "median": size.median}
    return Statement("headroom", "advice", text, evidence)


def space_statement(scenario: Scenario, best: BackboneEvidence) -> Statement:
    """What the scenario leaves of the whole space; a space of the user's takes its place."""
    space = load_space(scenario.space)
    depth, rate = space["freeze_depth"], space["learning_rate_factor"]
    assert isinstance(depth, Depth)
    assert isinstance(rate, Float)
    low, high = depth.bounds(best.n_stages)
    text = (
        f"The scenario's search space is {scenario.space}: freeze depth {low} to {high} of {best.n_stages}, and "
        f"{rate.low:g} to {rate.high:g} times the learning rate that the weights were trained with."
    )
    evidence = {"space": scenario.space, "freeze_depth": [low, high], "learning_rate_factor": [rate.low, rate.high]}
    return Statement("space", "info", text, evidence)


def backbones_statement(ranked: tuple[BackboneEvidence, ...]) -> Statement:
    """How the backbones are ranked, and what a choice that ignores the data would take."""
    best = ranked[0]
    rows = ", ".join(_scores(backbone) for backbone in ranked)
    leader = max(ranked, key=lambda backbone: backbone.mean_score)
    text = (
        f"Best frozen features: {best.name} ({best.metric} of linear probe / nearest neighbours on {best.scored_on}: "
        f"{rows})."
    )
    if leader is not best:
        text += (
            f" {leader.name} is ahead by {leader.mean_score - best.mean_score:.3f}, which is within the noise, so "
            f"ImageNet accuracy decides ({best.top1:.1f} against {leader.top1:.1f}%)."
        )
    baselines = _baselines(ranked)
    if len(ranked) > 1 and baselines:
        shown = ", ".join(f"{what}: {_scores(backbone)}" for what, backbone in baselines.items())
        text += f" Baselines: {shown}."
    evidence = {
        "ranked": [backbone.to_json() for backbone in ranked],
        "within_noise_of_the_highest_score": [
            backbone.name for backbone in ranked if is_within_noise(leader, backbone)
        ],
        "baselines": {what: backbone.name for what, backbone in baselines.items()},
    }
    return Statement("backbones", "advice", text, evidence)


def _scores(backbone: BackboneEvidence) -> str:
    noise = f" ± {backbone.standard_error:.3f}" if backbone.standard_error else ""
    return f"{backbone.name} {backbone.probe_score:.3f} / {backbone.knn_score:.3f}{noise}"


def _baselines(ranked: tuple[BackboneEvidence, ...]) -> dict[str, BackboneEvidence]:
    """What a choice that ignores the data would take, of the backbones that were probed."""
    found = {}
    if any(backbone.top1 > 0 for backbone in ranked):
        found["the best on ImageNet"] = max(ranked, key=lambda backbone: backbone.top1)
    always = next((backbone for backbone in ranked if backbone.name == load_catalog()[0].name), None)
    if always is not None:
        found["always the same"] = always
    return found


def stage_statements(ranked: tuple[BackboneEvidence, ...]) -> list[Statement]:
    """Probes of the stages of every backbone that was probed so closely, and the depth that follows."""
    statements = []
    for backbone in ranked:
        if backbone.proposed_depth is None:
            continue
        known = {depth: value for depth, value in backbone.stage_scores.items() if not math.isnan(value)}
        if not known:
            continue
        best = max(known, key=lambda depth: known[depth])
        rows = ", ".join(f"{depth} {value:.3f}" for depth, value in sorted(backbone.stage_scores.items()))
        all_frozen = backbone.proposed_depth == backbone.n_stages
        follows = "no stage is too specific" if all_frozen else f"freeze {backbone.proposed_depth} is tried, too"
        text = (
            f"Probes after so many of the {backbone.n_stages} stages of {backbone.name} ({_how(backbone)}): {rows}. "
            f"The deepest within a standard error ({backbone.stage_errors[best]:.3f}) of the best ({best}) is "
            f"{backbone.proposed_depth}: {follows}."
        )
        names = ("stage_scores", "stage_errors", "proposed_depth", "n_stages")
        plain = backbone.to_json()
        statements.append(Statement("stages", "info", text, {"backbone": backbone.name} | {n: plain[n] for n in names}))
    return statements


def _how(evidence: BackboneEvidence) -> str:
    return f"five-fold {evidence.metric}" if evidence.folded else evidence.metric


def learning_curve_statements(ranked: tuple[BackboneEvidence, ...]) -> list[Statement]:
    """Whether more data would help; nothing where there is no learning curve with scores."""
    best = next((backbone for backbone in ranked if backbone.learning_curve is not None), None)
    if best is None or best.learning_curve is None or math.isnan(best.learning_curve.gain):
        return []
    curve = best.learning_curve
    half, whole = curve.n_images[-2:]
    rows = ", ".join(
        f"{score:.3f} ± {error:.3f} with {n}"
        for n, score, error in zip(curve.n_images, curve.scores, curve.errors, strict=True)
    )
    verdict = "More data would help" if curve.more_data_helps else "There is no sign that more data would help"
    if not curve.more_data_helps and best.n_scored < FEWEST_TO_TELL:
        verdict = f"{best.n_scored} images are too few to tell whether more data would help"
    text = (
        f"{verdict}: {_how(best)} of the linear probe of {best.name} is {rows} training images; {whole} gain "
        f"{curve.gain:+.3f} ± {curve.gain_error:.3f} over {half}."
    )
    return [Statement("learning_curve", "advice", text, {"backbone": best.name} | curve.to_json())]


def start_points_statement(starts: Sequence[StartPoint]) -> Statement:
    """What the search tries first, and why."""
    rows = ", ".join(
        f"freeze {start.config['freeze_depth']} of {start.config['backbone']} ({start.reason})" for start in starts
    )
    reasons = [
        {name: start.config[name] for name in ("backbone", "freeze_depth")} | {"reason": start.reason}
        for start in starts
    ]
    return Statement("start_points", "advice", f"First tries: {rows}.", {"start_points": reasons})


def finding_statements(findings: Sequence[Finding]) -> list[Statement]:
    """What is odd about the data, as warnings; the first files of each in the evidence."""
    return [
        Statement(finding.code, "warning", finding.message + ".", {"paths": list(finding.paths[:SHOWN_FILES])})
        for finding in findings
        if finding.severity == "warning"
    ]
