"""`autotl reference`, and its file given to `autotl advise`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autotl.advice.reference_set import make_reference_set, save_reference_set
from autotl.cli import main

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]
Replace = Callable[[str, Any], Any]
Heads = Callable[[], list[str]]


def test_reference_build_passes_its_options_on(stand_in: Replace, capsys: Capture) -> None:
    build = stand_in("build_reference_set", SimpleNamespace(class_names=("ant", "ant", "bee"), name="insects"))
    options = "--images photos --backbone resnet18 --name insects --output own.npz --allow-download"
    assert main(["reference", "build", *options.split()]) == 0
    assert build.given == ("photos", "resnet18", "own.npz")
    assert build.options == {"name": "insects", "allow_download": True, "quiet": False}
    assert capsys.readouterr().out == (
        "3 photographs of 2 classes of insects in own.npz; use it with autotl advise DIR --reference own.npz\n"
    )


def test_reference_build_lists_every_problem(tmp_path: Path, heads: Heads) -> None:
    (tmp_path / "own.npz").touch()
    options = "--images photos --backbone zzzzzqqq --output own.npz"
    assert main(["reference", "build", *options.split()]) == 2
    assert heads() == [
        "  - images photos: no such folder",
        "  - backbones 'zzzzzqqq': unknown to autotl's catalog and to timm",
        "  - output own.npz: exists already",
    ]


@pytest.mark.usefixtures("_fitting")
def test_a_reference_set_that_a_model_of_a_run_made_is_none_of_its_pretrained_backbone(capsys: Capture) -> None:
    backbone, rows, names = "tf_efficientnet_lite0.in1k", np.eye(20, dtype=np.float32), ("x",) * 20
    made = make_reference_set("birds", backbone, rows, names)
    save_reference_set(replace(made, weights_sha256="abc"), Path("own.npz"))
    assert main(["advise", "photos", "--reference", "own.npz"]) == 2
    shown = capsys.readouterr().err
    assert "  - reference own.npz: was made by the model of a run" in shown
    assert "reuse that run instead" in shown


@pytest.mark.usefixtures("_fitting")
@pytest.mark.parametrize("content", [None, b"PK no archive", b""])
def test_a_reference_set_that_cannot_be_read_is_reported_with_the_rest(
    tmp_path: Path, heads: Heads, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "own.npz").write_bytes(content)
    assert main(["advise", "photos", "--reference", "own.npz", "--seed", "-1"]) == 2
    found_heads = heads()
    found = "no such file" if content is None else "cannot be read ("
    assert [found_heads[0], found_heads[2]] == ["  - seed: -1", "  - dataset photos: no such folder"]
    assert found_heads[1].startswith(f"  - reference own.npz: {found}")


@pytest.mark.usefixtures("_fitting")
def test_a_reference_set_whose_backbone_is_not_here_is_reported(
    tmp_path: Path, heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    names = tuple("x" * 20)
    for file, backbone in (("hub.npz", "convnext_tiny.fb_in1k"), ("gone.npz", "resnet18.a1_in1k=gone.pth")):
        save_reference_set(make_reference_set("birds", backbone, rows, names), tmp_path / file)
        assert main(["advise", "photos", "--reference", file]) == 2
        found_heads = heads()
        assert found_heads[0].startswith(f"  - reference {file}: {backbone}: ")
        assert len(found_heads) == 2
