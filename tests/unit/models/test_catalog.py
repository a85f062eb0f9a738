"""The catalog of backbones, and finding one by name."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotl.errors import BackboneError
from autotl.models.catalog import BackboneEntry, find_entry, load_catalog

CATALOG = {entry.name: entry for entry in load_catalog()}
BUNDLED = [entry for entry in CATALOG.values() if entry.weights == "bundled"]


@pytest.fixture(scope="module")
def timm() -> Any:
    """timm, imported outside the time of a test."""
    return importlib.import_module("timm")


def message_of(name: str) -> str:
    with pytest.raises(BackboneError) as caught:
        find_entry(name)
    return str(caught.value).removeprefix("Found 1 problem in the input:\n")


def test_no_backbone_is_listed_twice() -> None:
    assert len(CATALOG) == len(load_catalog())


def test_an_architecture_is_listed_once_so_that_its_tag_may_be_left_out() -> None:
    assert len({name.split(".")[0] for name in CATALOG}) == len(CATALOG)


def test_the_bundled_backbones_come_first_and_the_others_in_order_of_cost() -> None:
    kinds = [entry.weights for entry in load_catalog()]
    assert kinds == ["bundled"] * 3 + ["hub"] * (len(kinds) - 3)
    costs = [entry.gmacs for entry in load_catalog()[3:]]
    assert costs == sorted(costs)


@pytest.mark.parametrize("entry", CATALOG.values(), ids=lambda entry: entry.name)
def test_an_entry_holds_sensible_numbers(entry: BackboneEntry) -> None:
    assert re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", entry.name)
    assert 1e-4 <= entry.adamw_lr <= 2e-3  # the same factor means about the same for every backbone
    assert 1 <= entry.parameters_m <= 400
    assert 0 < entry.gmacs <= 100
    assert 60 <= entry.top1 <= 95
    assert 160 <= entry.input_size <= 448
    assert 3 <= entry.stages <= 40
    assert entry.licence == entry.licence.lower() != ""
    assert (entry.weights == "bundled") == bool(entry.package) == bool(entry.file) == bool(entry.sha256)
    assert entry.path == ""


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda entry: entry.name)
def test_the_bundled_weights_are_here_and_are_those_of_the_checksum(entry: BackboneEntry) -> None:
    spec = importlib.util.find_spec(entry.package)
    assert spec is not None
    assert spec.origin is not None
    content = Path(spec.origin).with_name("x").parent.joinpath(entry.file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry.sha256


def test_timm_has_weights_under_every_name(timm: Any) -> None:
    assert sorted(set(CATALOG) - set(timm.list_pretrained())) == []


def test_timm_agrees_about_the_input_size_and_the_licence(timm: Any) -> None:
    for entry in CATALOG.values():
        cfg = timm.get_pretrained_cfg(entry.name)
        assert cfg.input_size[-1] == entry.input_size, entry.name
        assert (cfg.license or entry.licence).lower() == entry.licence, entry.name


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0.in1k", "resnet18.a1_in1k", "deit3_small_patch16_224.fb_in22k_ft_in1k"]
)
def test_the_built_model_agrees_about_stages_and_parameters(timm: Any, name: str) -> None:
    import torch

    from autotl.models.stages import stage_of_parameters

    with torch.device("meta"):
        model = timm.create_model(name)
    stages = {stage for stage in stage_of_parameters(model).values() if stage is not None}
    assert stages == set(range(CATALOG[name].stages))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(CATALOG[name].parameters_m, abs=0.006)


@pytest.mark.parametrize("entry", CATALOG.values(), ids=lambda entry: entry.name)
def test_the_rate_is_the_published_one_at_a_batch_of_32(entry: BackboneEntry) -> None:
    published = re.match(r"(10 x )?(?:timm's )?([0-9.e-]+) at (\d+)", entry.adamw_source)
    if published is None:  # measured, or from several sources
        assert entry.weights == "bundled" or "geometric mean" in entry.adamw_source
        return
    times, rate, batch = published.groups()
    expected = float(rate) * (32 / int(batch)) ** 0.5 * (10 if times else 1)
    assert entry.adamw_lr == pytest.approx(expected, rel=0.05)


def test_a_backbone_is_found_by_its_full_name() -> None:
    assert find_entry("resnet18.a1_in1k") is CATALOG["resnet18.a1_in1k"]


def test_a_backbone_of_the_catalog_is_found_without_its_tag() -> None:
    assert find_entry("convnext_tiny").name == "convnext_tiny.in12k_ft_in1k"


@pytest.mark.usefixtures("timm")
def test_another_tag_than_that_of_the_catalog_is_taken_from_timm() -> None:
    assert find_entry("resnet18.tv_in1k") == BackboneEntry(
        name="resnet18.tv_in1k",
        family="resnet18",
        weights="hub",
        parameters_m=11.69,
        gmacs=0.0,
        top1=0.0,
        input_size=224,
        stages=5,
        adamw_lr=1.8e-4,
        adamw_source="that of most recent recipes: 1e-3 at 1024",
        licence="bsd-3-clause",
    )


@pytest.mark.usefixtures("timm")
def test_a_timm_model_without_tag_gets_the_tag_of_its_default_weights() -> None:
    entry = find_entry("resnet10t")
    assert (entry.name, entry.weights, entry.parameters_m, entry.stages) == ("resnet10t.c3_in1k", "hub", 5.44, 5)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("convnext_tiyn", "convnext_tiny"),
        ("resnet18.nonsense", "resnet18"),
        ("tf_efficientnet_lite0.in2k", "tf_efficientnet_lite0.in1k"),
    ],
)
def test_an_unknown_name_is_answered_with_similar_ones(name: str, hint: str) -> None:
    lines = message_of(name).splitlines()
    assert lines[:2] == [
        f"  - backbones '{name}': unknown to autotl's catalog and to timm",
        "    allowed: a timm model",
    ]
    assert lines[2].startswith("    → did you mean ")
    assert hint in lines[2].removesuffix("?").split()


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", ["zzzzzqqq", ""])
def test_a_name_like_no_other_is_answered_with_the_list(name: str) -> None:
    assert message_of(name).endswith("\n    → see `autotl backbones list`")


def test_the_name_of_an_earlier_run_s_model_is_answered_with_how_to_give_it() -> None:
    assert "name that run (reuse=RUN, --reuse RUN)" in message_of("birds/tf_efficientnet_lite0.in1k")


def test_timm_knows_a_backbone_by_its_name_by_default() -> None:
    entry = CATALOG["tf_efficientnet_lite0.in1k"]
    assert entry.timm_name == entry.name
    own = replace(entry, name=f"birds/{entry.name}")
    assert (own.name, own.timm_name) == ("birds/tf_efficientnet_lite0.in1k", entry.name)


def test_weights_in_a_file_of_your_own_replace_those_of_the_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.pth").touch()
    monkeypatch.chdir(tmp_path)
    original = CATALOG["tf_efficientnet_lite0.in1k"]
    expected = replace(original, weights="file", path=str(tmp_path / "mine.pth"), package="", file="", sha256="")
    assert find_entry("tf_efficientnet_lite0=mine.pth") == expected
    assert find_entry(original.name) == original


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_files_of_weights_end_in_one_of_these(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a=b{suffix}"
    path.touch()
    assert find_entry(f"resnet18={path}").path == str(path)


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone.pth"
    assert message_of(f"resnet18={path}") == (
        f"  - resnet18={path}: no such file\n    allowed: a file ending in .safetensors, .pth, .pt, .bin"
    )


def test_a_file_that_is_none_of_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.touch()
    assert message_of(f"resnet18={path}") == (
        f"  - resnet18={path}: is not a file of weights\n    allowed: a file ending in .safetensors, .pth, .pt, .bin"
    )
    assert message_of(f"resnet18={tmp_path}").startswith(f"  - resnet18={tmp_path}: no such file\n")
    assert message_of("resnet18=").startswith("  - resnet18=: no such file\n")  # as with a variable that is not set
