"""All of the advice as one piece of data, put together from what was measured."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from autotl.advice.evidence import BackboneEvidence
from autotl.advice.ranking import rank
from autotl.advice.scenario import Scenario, Size, Strategy, choose_scenario, choose_strategy, measure_size
from autotl.advice.similarity import Similarity
from autotl.advice.start_points import choose_start_points
from autotl.advice.statements import (
    Statement,
    backbones_statement,
    earlier_run_statements,
    finding_statements,
    headroom_statement,
    learning_curve_statements,
    nearest_statement,
    scenario_statement,
    similarity_statement,
    size_statement,
    space_statement,
    stage_statements,
    start_points_statement,
)
from autotl.data.splits import Dataset


@dataclass(frozen=True, slots=True)
class Advice:
    """What autotl thinks of a data set before the search.

    Attributes:
        similarity: to the reference set: ImageNet, the data of the pretrained backbones, unless another was given.
        size: of the data set.
        scenario: one of four.
        strategy: what to do, in a few words: the scenario's, unless the evidence says otherwise.
        backbones: ranked, best first.
        statements: everything in words.
        start_points: configs the search tries first.
        start_reasons: why, one for each.
        earlier_run_similarities: to the data of each earlier run whose model is reused, as that model sees it.
    """

    similarity: Similarity
    size: Size
    scenario: Scenario
    strategy: Strategy
    backbones: tuple[BackboneEvidence, ...]
    statements: tuple[Statement, ...]
    start_points: tuple[dict[str, Any], ...]
    start_reasons: tuple[str, ...]
    earlier_run_similarities: tuple[Similarity, ...] = ()

    @property
    def decisive_similarity(self) -> Similarity:
        """To the data of the weights ranked first; the scenario is chosen by it."""
        return _decisive(self.backbones[0], self.similarity, self.earlier_run_similarities)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = asdict(replace(self, backbones=()))
        return plain | {"backbones": [backbone.to_json() for backbone in self.backbones]}

    def _repr_html_(self) -> str:
        """For notebooks: the scenario, and every statement."""
        items = (f'<li class="autotl-{line.severity}">{html.escape(line.text)}</li>' for line in self.statements)
        head = html.escape(f"Scenario {self.scenario.number}, {self.scenario.name}: {self.strategy}")
        return f"<p><strong>{head}</strong></p><ul>{''.join(items)}</ul>"

    def __str__(self) -> str:
        return "\n".join(statement.text for statement in self.statements)


def advise(
    dataset: Dataset,
    similarity: Similarity,
    evidence: Sequence[BackboneEvidence],
    earlier_run_similarities: tuple[Similarity, ...] = (),
) -> Advice:
    """Choose scenario, strategy and start points from the measurements, and put them in words.

    Args:
        dataset: the manifest; its test split plays no part.
        similarity: of its training and validation images to the reference set.
        evidence: of one backbone or more.
        earlier_run_similarities: of the same images to the data of each earlier run.

    Raises:
        ValueError: if there is no evidence.
    """
    if not evidence:
        raise ValueError("advice needs the evidence of at least one backbone")
    size = measure_size(dataset.counts("train", "val"))
    ranked = rank(evidence)
    decisive = _decisive(ranked[0], similarity, earlier_run_similarities)
    scenario = choose_scenario(size.large, decisive.similar)
    strategy = choose_strategy(scenario, size.median, ranked[0].recall)
    starts = choose_start_points(scenario, strategy, ranked)
    statements = [
        size_statement(size),
        similarity_statement(similarity),
        *((nearest_statement(similarity),) if similarity.nearest else ()),
        *earlier_run_statements(earlier_run_similarities),
        scenario_statement(scenario, ranked[0], decisive if earlier_run_similarities else None),
        *((headroom_statement(scenario, strategy, size, ranked[0]),) if strategy != scenario.strategy else ()),
        space_statement(scenario, ranked[0]),
        backbones_statement(ranked),
        *stage_statements(ranked),
        *learning_curve_statements(ranked),
        start_points_statement(starts),
        *finding_statements(dataset.findings),
    ]
    return Advice(
        similarity=similarity,
        size=size,
        scenario=scenario,
        strategy=strategy,
        backbones=ranked,
        statements=tuple(statements),
        start_points=tuple(start.config for start in starts),
        start_reasons=tuple(start.reason for start in starts),
        earlier_run_similarities=earlier_run_similarities,
    )


def _decisive(best: BackboneEvidence, similarity: Similarity, to_earlier_runs: tuple[Similarity, ...]) -> Similarity:
    """An earlier run's data is measured by its own model: its reference set has that backbone's name."""
    return next((other for other in to_earlier_runs if other.backbone == best.name and other.learned), similarity)
