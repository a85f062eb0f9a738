"""OpenVINO gives what torch gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autotl.frozen.openvino import OpenVinoModel, conversion_key, convert, has_openvino
from autotl.frozen.stages import WHOLE, StageTaps
from autotl.models.backbone import Backbone
from autotl.models.partition import boundaries, divide
from autotl.storage.cache import DiskCache

pytestmark = pytest.mark.skipif(not has_openvino(), reason="the optional package openvino is not installed")


@pytest.fixture(scope="module")
def converted(small: Backbone, images: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = DiskCache(tmp_path_factory.mktemp("converted"))
    path = convert(small, images, cache, conversion_key(small.name, "sha", 64))
    assert path is not None
    return path


def test_openvino_gives_the_embeddings(small: Backbone, images: torch.Tensor, converted: Path) -> None:
    with torch.no_grad():
        expected = small.model(images)
    torch.testing.assert_close(OpenVinoModel(converted, "output")(images), expected, rtol=1e-4, atol=1e-4)


def test_another_batch_size_than_the_example_will_do(small: Backbone, images: torch.Tensor, converted: Path) -> None:
    with torch.no_grad():
        expected = small.model(images[:1])
    torch.testing.assert_close(OpenVinoModel(converted, "output")(images[:1]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 3])
def test_openvino_gives_the_boundary_at_every_depth(
    small: Backbone, images: torch.Tensor, converted: Path, depth: int
) -> None:
    partition = divide(small, depth, images[:2])
    with torch.no_grad():
        expected = partition.prefix(images)
    result = OpenVinoModel(converted, f"depth-{depth}")(images)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_openvino_gives_the_stages_in_the_same_pass(small: Backbone, images: torch.Tensor, converted: Path) -> None:
    with torch.no_grad():
        expected, stages = StageTaps(small.model, boundaries(small, images))(images)
    output, found = OpenVinoModel(converted, "output", stages=True).with_stages(images)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dict(sorted(found.items())), stages, rtol=1e-4, atol=1e-4)
    assert OpenVinoModel(converted, "output").with_stages(images)[1] == {}


def test_openvino_gives_a_boundary_as_it_is_beside_the_stages(
    small: Backbone, images: torch.Tensor, converted: Path
) -> None:
    with torch.no_grad():
        expected, stages = StageTaps(small.model, boundaries(small, images), whole=3)(images)
    output, found = OpenVinoModel(converted, "output", stages=True, whole=3).with_stages(images)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[WHOLE], stages[WHOLE], rtol=0.01, atol=0.01)
    assert sorted(found) == sorted(stages)


def test_a_boundary_that_is_not_there_is_left_out(images: torch.Tensor, converted: Path) -> None:
    assert WHOLE not in OpenVinoModel(converted, "output", stages=True, whole=77).with_stages(images)[1]


def test_an_output_that_is_not_there_is_a_key_error(converted: Path) -> None:
    with pytest.raises(KeyError, match="depth-77"):
        OpenVinoModel(converted, "depth-77")


def test_a_conversion_is_kept_in_the_cache(small: Backbone, images: torch.Tensor, converted: Path) -> None:
    cache = DiskCache(converted.parent)
    assert convert(small, images, cache, conversion_key(small.name, "sha", 64)) == converted


def test_a_conversion_leaves_nothing_but_its_entry(converted: Path) -> None:
    assert {path.suffix for path in converted.parent.iterdir()} <= {".bin", ".json", ".lock"}


@pytest.mark.parametrize("reason", ["KeyboardInterrupt: <EMPTY MESSAGE>", "no rule for this operation"])
def test_ctrl_c_in_a_conversion_is_not_taken_for_a_model_that_cannot_be_converted(
    small: Backbone, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    import openvino

    def convert_model(*args: object, **kwargs: object) -> None:
        raise RuntimeError(reason)

    monkeypatch.setattr(openvino, "convert_model", convert_model)
    key = conversion_key(small.name, "sha", 64)
    if reason.startswith("KeyboardInterrupt"):
        with pytest.raises(KeyboardInterrupt):
            convert(small, images, DiskCache(tmp_path), key)
    else:
        assert convert(small, images, DiskCache(tmp_path), key) is None
