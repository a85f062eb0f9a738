"""`autotl backbones`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from autotl.cli import main

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]
Replace = Callable[[str, Any], Any]
Heads = Callable[[], list[str]]


@pytest.mark.usefixtures("_fitting")
def test_backbones_list_as_json_holds_the_catalog_and_what_is_here(capsys: Capture) -> None:
    assert main(["backbones", "list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert len(entries) == 68
    lite = entries["tf_efficientnet_lite0.in1k"]
    assert (lite["weights"], lite["available"], lite["stages"], lite["parameters_m"]) == ("bundled", True, 8, 4.65)
    assert [name for name, entry in entries.items() if entry["weights"] == "bundled" and not entry["available"]] == []
    assert {type(entry["available"]) for entry in entries.values()} == {bool}


@pytest.mark.usefixtures("_fitting")
def test_backbones_list_shows_the_catalog_in_columns(capsys: Capture) -> None:
    assert main(["backbones", "list"]) == 0
    head, first, *others = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "backbone here weights params M GMACs top-1% input stages licence"
    assert " ".join(first.split()) == "tf_efficientnet_lite0.in1k yes bundled 4.7 0.40 74.8 224 8 apache-2.0"
    assert len(others) == 67
