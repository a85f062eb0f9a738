"""The advice as a whole: what the measurements lead to, as plain data and as HTML."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest

from autotl.advice.advisor import Advice, advise
from autotl.advice.evidence import BackboneEvidence
from autotl.advice.similarity import FAR, Similarity
from autotl.advice.statements import Statement
from autotl.data.folder import Finding
from autotl.data.splits import Dataset

MakeDataset = Callable[..., Dataset]
MakeSimilarity = Callable[..., Similarity]
MakeEvidence = Callable[..., BackboneEvidence]
AdviceFor = Callable[..., Advice]

NUMBERS = (1, 2, 3, 4)
"""Of the scenarios."""
CODES = ["size", "similarity", "scenario", "space", "backbones", "start_points"]
"""Of the statements that are always there."""


def statements_of(advice: Advice, code: str) -> list[Statement]:
    return [statement for statement in advice.statements if statement.code == code]


@pytest.mark.parametrize("number", NUMBERS)
def test_measurements_choose_the_scenario(advice_for: AdviceFor, number: int) -> None:
    found = advice_for(number)
    assert found.scenario.number == number
    assert found.strategy == found.scenario.strategy
    assert [backbone.name for backbone in found.backbones] == ["best.model", "second.model"]


def test_a_probe_that_leaves_headroom_changes_strategy_and_start_points_and_says_why(
    make_dataset: MakeDataset, make_similarity: MakeSimilarity, make_evidence: MakeEvidence
) -> None:
    shy = make_evidence("best.model", 0.8, 100.0, recall=0.8, n_scored=120)
    found = advise(make_dataset(50), make_similarity(0.02), [shy])
    assert (found.scenario.number, found.scenario.strategy) == (1, "feature extraction")
    assert found.strategy == found.to_json()["strategy"] == "freeze the first stages, train the rest"
    (statement,) = statements_of(found, "headroom")
    assert statement.text == (
        "But the linear probe of best.model misses 20% of a class on average (120 validation images), and 50 images in "
        "the median class are enough to train on: freeze the first stages, train the rest (6 of the 8 stages of "
        "best.model frozen)."
    )
    assert (found.start_points[0]["freeze_depth"], found.start_reasons[0]) == (6, "the strategy")


def test_data_at_the_threshold_counts_as_dissimilar(
    make_dataset: MakeDataset, make_similarity: MakeSimilarity, make_evidence: MakeEvidence
) -> None:
    backbones = [make_evidence("best.model", 0.9)]
    assert advise(make_dataset(20), make_similarity(FAR), backbones).scenario.number == 2
    assert advise(make_dataset(20), make_similarity(FAR - 1e-9), backbones).scenario.number == 1


def test_test_images_do_not_make_a_set_large(advice_for: AdviceFor, make_dataset: MakeDataset) -> None:
    found = advice_for(4, data=make_dataset(1999, in_test=4000))
    assert found.size.n_images == 3998
    assert not found.size.large


def test_imbalance_is_part_of_the_size(advice_for: AdviceFor, make_dataset: MakeDataset) -> None:
    data = make_dataset(20)
    data.labels[:30] = 0
    found = advice_for(1, data=data)
    assert (found.size.largest, found.size.smallest) == (35, 5)
    assert found.size.imbalance == 7.0
    assert "largest to smallest 7.0" in str(found)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_statement_carries_evidence(advice_for: AdviceFor, number: int) -> None:
    statements = advice_for(number).statements
    assert [statement.code for statement in statements] == CODES
    for statement in statements:
        assert statement.evidence
        assert statement.text.endswith(".")
        assert not statement.text.endswith("..")
        assert statement.severity in ("info", "advice", "warning")


def test_all_evidence_has_its_statement(
    advice_for: AdviceFor,
    make_dataset: MakeDataset,
    make_similarity: MakeSimilarity,
    probed_closely: MakeEvidence,
) -> None:
    data = make_dataset(20, (Finding("duplicates", "warning", "2 files have copies", ("0.png", "1.png")),))
    near = make_similarity(0.02, nearest={"ant": ("beetle",)})
    found = advice_for(1, probed_closely(6), data=data, similarity=near)
    assert [statement.code for statement in found.statements] == [
        *("size", "similarity", "nearest_classes", "scenario", "space", "backbones", "stages", "learning_curve"),
        *("start_points", "duplicates"),
    ]


@pytest.mark.parametrize(
    ("first", "counted", "number"),
    [("run0/best.model", "run0", 2), ("run1/best.model", "run1", 1), ("best.model", "ImageNet-1k", 2)],
)
def test_the_reference_set_of_the_weights_ranked_first_counts_and_is_named(
    make_dataset: MakeDataset,
    make_similarity: MakeSimilarity,
    make_evidence: MakeEvidence,
    first: str,
    counted: str,
    number: int,
) -> None:
    others = tuple(
        make_similarity(
            distance,
            reference=f"run{place}",
            backbone=f"run{place}/best.model",
            nearest={"a": (f"class of run{place}",)},
        )
        for place, distance in enumerate((0.3, 0.02))
    )
    names = ("best.model", "run0/best.model", "run1/best.model")
    to_imagenet = 0.2
    ranked = [make_evidence(name, 0.9 if name == first else 0.8) for name in names]
    found = advise(make_dataset(20), make_similarity(to_imagenet), ranked, others)
    assert found.earlier_run_similarities == others
    assert found.similarity.distance == to_imagenet
    assert found.decisive_similarity.reference == counted
    assert found.scenario.number == number
    similarities = statements_of(found, "earlier_run_similarity")
    assert [statement.evidence["reference"] for statement in similarities] == ["run0", "run1"]
    assert "similar to run0" in similarities[0].text
    assert [statement.text for statement in statements_of(found, "earlier_run_nearest_classes")] == [
        "Nearest classes of run0: a: class of run0.",
        "Nearest classes of run1: a: class of run1.",
    ]
    (scenario,) = statements_of(found, "scenario")
    assert scenario.evidence["reference"] == counted
    assert f"(what counts is the similarity to {counted}: {first} is ranked first)" in scenario.text


def test_an_earlier_run_whose_model_is_a_linear_probe_does_not_decide(
    make_dataset: MakeDataset, make_similarity: MakeSimilarity, make_evidence: MakeEvidence
) -> None:
    # Its backbone is as pretrained: it learned nothing from that data.
    near = make_similarity(0.02, reference="run", backbone="run/best.model", learned=False)
    found = advise(make_dataset(20), make_similarity(0.2), [make_evidence("run/best.model", 0.9)], (near,))
    assert found.decisive_similarity.reference == "ImageNet-1k"
    assert found.scenario.number == 2


def test_without_earlier_runs_there_is_no_statement_about_them(advice_for: AdviceFor) -> None:
    found = advice_for(1)
    assert found.decisive_similarity == found.similarity
    assert not [statement.code for statement in found.statements if statement.code.startswith("earlier_run")]
    (scenario,) = statements_of(found, "scenario")
    assert "what counts" not in scenario.text
    assert "reference" not in scenario.evidence


def test_only_scenario_3_speaks_of_training_from_scratch(advice_for: AdviceFor) -> None:
    assert ["from scratch" in str(advice_for(number)) for number in NUMBERS] == [False, False, True, False]


def test_text_is_one_line_a_statement(advice_for: AdviceFor) -> None:
    found = advice_for(1)
    assert str(found).splitlines() == [statement.text for statement in found.statements]


def test_warnings_about_the_data_become_the_last_statements(advice_for: AdviceFor, make_dataset: MakeDataset) -> None:
    findings = (
        Finding("duplicates", "warning", "30 files have copies", tuple(f"{i}.png" for i in range(30))),
        Finding("layout", "info", "no test split"),
    )
    extra = advice_for(1, data=make_dataset(20, findings)).statements[len(CODES) :]
    assert [(statement.code, statement.severity, statement.text) for statement in extra] == [
        ("duplicates", "warning", "30 files have copies.")
    ]
    assert extra[0].evidence["paths"][0] == "0.png"


def test_one_backbone_is_enough_and_none_is_refused(
    make_dataset: MakeDataset, make_similarity: MakeSimilarity, make_evidence: MakeEvidence
) -> None:
    found = advise(make_dataset(20), make_similarity(0.2), [make_evidence("only.model", 0.5)])
    assert {point["backbone"] for point in found.start_points} == {"only.model"}
    with pytest.raises(ValueError, match="at least one backbone"):
        advise(make_dataset(20), make_similarity(0.2), [])


@pytest.mark.parametrize("number", NUMBERS)
def test_advice_is_json(advice_for: AdviceFor, number: int) -> None:
    found = advice_for(number)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["strategy"] == found.strategy
    assert plain["scenario"] == dataclasses.asdict(found.scenario)
    assert plain["start_points"] == list(found.start_points)
    assert len(plain["statements"]) == len(found.statements)


def test_advice_with_all_evidence_is_json(advice_for: AdviceFor, probed_closely: MakeEvidence) -> None:
    best = probed_closely(6, draws=np.array([0.8, 0.9]))
    plain = json.loads(json.dumps(advice_for(2, best).to_json(), allow_nan=False))
    read = plain["backbones"][0]
    assert read["stage_scores"]["6"] == 0.95
    assert read["learning_curve"]["n_images"] == [10, 20, 40]
    assert read["learning_curve"]["more_data_helps"] is True
    assert "draws" not in read
    assert len(plain["start_reasons"]) == len(plain["start_points"])


class Page(HTMLParser):
    """The text of every element, and the class of every list item."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.item_classes: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "li":
            self.item_classes.append(dict(attrs).get("class"))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class TestHtml:
    @pytest.mark.parametrize("number", NUMBERS)
    def test_it_holds_the_scenario_and_every_statement(self, advice_for: AdviceFor, number: int) -> None:
        found = advice_for(number)
        page = Page(found._repr_html_())
        assert page.texts == [
            f"Scenario {number}, {found.scenario.name}: {found.strategy}",
            *(statement.text for statement in found.statements),
        ]

    def test_an_item_has_the_severity_of_its_statement_as_class(
        self, advice_for: AdviceFor, make_dataset: MakeDataset
    ) -> None:
        found = advice_for(1, data=make_dataset(20, (Finding("duplicates", "warning", "2 files have copies"),)))
        page = Page(found._repr_html_())
        assert page.item_classes == [f"autotl-{statement.severity}" for statement in found.statements]
        assert page.item_classes[-1] == "autotl-warning"

    def test_class_names_and_texts_are_escaped(
        self, advice_for: AdviceFor, make_dataset: MakeDataset, make_similarity: MakeSimilarity
    ) -> None:
        odd = "<script>alert('ants & bees')</script>"
        findings = (Finding("unreadable", "warning", f"{odd} cannot be read"),)
        near = make_similarity(0.02, nearest={odd: ("beetle",)})
        found = advice_for(1, data=make_dataset(20, findings), similarity=near)
        page = Page(found._repr_html_())
        assert "script" not in page.tags
        assert page.tags == ["p", "strong", "ul", *["li"] * len(found.statements)]
        assert [text for text in page.texts if odd in text] == [
            f"Nearest classes of ImageNet-1k: {odd}: beetle.",
            f"{odd} cannot be read.",
        ]
        assert found._repr_html_().count("&lt;script&gt;") == 2
