"""The frozen forward pass: the fastest exact way is taken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autotl.frozen import engines
from autotl.frozen.engines import (
    choose,
    fastest_between,
    fastest_embedding,
    fastest_prefix,
    torch_forward,
    worth_converting,
)
from autotl.frozen.openvino import has_openvino
from autotl.frozen.stages import StageTaps, output_alone
from autotl.models.backbone import Backbone
from autotl.models.partition import boundaries, divide
from autotl.storage.cache import DiskCache

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="the optional package openvino is not installed")


def clock_of(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    """Make each candidate, a function with a name in `seconds`, take so long by the clock."""

    def timed(forward: engines.Forward, batch: torch.Tensor, clock: engines.Clock) -> tuple[torch.Tensor, float]:
        return forward(batch), seconds[forward.__name__]

    monkeypatch.setattr(engines, "_timed", timed)


def exact(batch: torch.Tensor) -> torch.Tensor:
    return batch * 2


def nearly(batch: torch.Tensor) -> torch.Tensor:
    return batch * 2 * 1.009


def wrong(batch: torch.Tensor) -> torch.Tensor:
    return batch * 2 * 1.011


def test_the_fastest_exact_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_of(monkeypatch, {"exact": 4.0, "nearly": 2.0, "wrong": 1.0})
    chosen, measured = choose([("a", exact), ("b", nearly), ("c", wrong)], torch.ones(8, 3, 2, 2))
    assert chosen.name == "b"
    assert [engine.images_per_second for engine in measured] == [2.0, 4.0, 8.0]
    assert measured[2].error == pytest.approx(0.011, rel=1e-3)


def test_the_reference_is_always_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_of(monkeypatch, {"exact": 4.0, "wrong": 1.0})
    assert choose([("a", exact), ("c", wrong)], torch.ones(8, 3, 2, 2))[0].name == "a"


def test_all_ways_are_timed_in_turn_so_that_other_work_slows_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first runs are slow for something else that runs then; "a" is the faster one by itself."""
    seconds = {"exact": iter([9.0, 9.0, 2.0]), "nearly": iter([9.5, 9.5, 3.0])}
    order: list[str] = []

    def timed(forward: engines.Forward, batch: torch.Tensor, clock: engines.Clock) -> tuple[torch.Tensor, float]:
        order.append(forward.__name__)
        return forward(batch), next(seconds[forward.__name__])

    monkeypatch.setattr(engines, "_timed", timed)
    chosen, _ = choose([("a", exact), ("b", nearly)], torch.ones(6, 3, 2, 2))
    assert order == ["exact", "nearly"] * engines.ROUNDS
    assert (chosen.name, chosen.images_per_second) == ("a", 3.0)


def test_a_conversion_has_to_save_more_than_it_takes() -> None:
    assert not worth_converting(100, 100.0)
    assert worth_converting(10_000, 100.0)


def test_without_openvino_torch_is_measured(
    small: Backbone, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "has_openvino", lambda: False)
    chosen, measured, converted, staged = fastest_embedding(
        small, images, "bf16", weights_sha256="sha", n_images=10**6, workers=1, cache=DiskCache(tmp_path)
    )
    assert [engine.name for engine in measured] == ["torch-fp32", "torch-bf16"]
    assert chosen.error <= engines.TOLERANCE
    assert converted is None
    output, stages = staged(images)
    torch.testing.assert_close(output, chosen.forward(images))
    assert sorted(stages) == list(range(1, small.n_stages))


def compiled_against_torch(small: Backbone, images: torch.Tensor) -> tuple[list[str], dict[str, engines.StagedForward]]:
    taps = StageTaps(small.model, boundaries(small, images[:2]))
    staged: dict[str, engines.StagedForward] = {"torch-fp32": torch_forward(taps, images.device, "fp32")}
    chosen, measured = choose([("torch-fp32", output_alone(staged["torch-fp32"]))], images)
    _, measured = engines._try_compiled(taps, chosen, measured, images, staged)
    return [engine.name for engine in measured], staged


def test_a_compiled_backbone_gives_the_same_with_all_its_stages(
    small: Backbone, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "COMPILER", "eager")  # the real one takes a minute and a C++ compiler
    names, staged = compiled_against_torch(small, images)
    assert names == ["torch-fp32", "torch-fp32-compiled"]
    (output, stages), (expected, by_depth) = staged[names[1]](images[:3]), staged[names[0]](images[:3])
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(stages, by_depth)


def test_a_backbone_that_the_compiler_does_not_take_is_done_without(
    small: Backbone, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise ValueError("unknown operation")

    torch._dynamo.reset()
    monkeypatch.setattr(engines, "COMPILER", broken)
    with pytest.warns(UserWarning, match="does not take this backbone"):
        names, _ = compiled_against_torch(small, images)
    assert names == ["torch-fp32"]


def test_half_precision_is_tried_on_gpus_alone() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [name for name, _ in engines._torch_candidates(exact, gpu, "bf16")] == ["torch-fp32", "torch-fp16"]
    assert [name for name, _ in engines._torch_candidates(exact, cpu, "fp32")] == ["torch-fp32"]


@needs_openvino
def test_whether_a_conversion_pays_does_not_depend_on_what_else_the_machine_does(
    small: Backbone, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run takes this thread a second, and by the clock on the wall a hundred."""
    ticks, speeds = iter(range(10**6)), list[float]()
    clocks = SimpleNamespace(thread_time=lambda: float(next(ticks)), perf_counter=lambda: 100.0 * next(ticks))
    monkeypatch.setattr(engines, "time", clocks)
    monkeypatch.setattr(engines, "worth_converting", lambda n_images, speed: speeds.append(speed))
    fastest_embedding(small, images, "fp32", weights_sha256="sha", n_images=9, workers=2, cache=DiskCache(tmp_path))
    assert speeds == [2.0 * len(images)]


def test_a_prefix_is_the_boundary_s_input(small: Backbone, images: torch.Tensor) -> None:
    partition = divide(small, 2, images[:2])
    measured = fastest_prefix(partition, images, "fp32", None, 1)
    with torch.no_grad():
        torch.testing.assert_close(measured.forward(images), partition.prefix(images))


def test_between_two_boundaries_nothing_is_lost(small: Backbone, images: torch.Tensor) -> None:
    shallow, deep = divide(small, 1, images[:2]), divide(small, 3, images[:2])
    with torch.no_grad():
        at_shallow, at_deep = shallow.prefix(images), deep.prefix(images)
    measured = fastest_between(shallow, deep, at_shallow, "fp32")
    torch.testing.assert_close(measured.forward(at_shallow), at_deep)


def test_no_gradients_are_kept() -> None:
    layer = torch.nn.Linear(2, 2)
    assert not torch_forward(layer, torch.device("cpu"), "fp32")(torch.ones(1, 2)).requires_grad


def test_a_converted_model_that_is_gone_is_done_without(small: Backbone, images: torch.Tensor, tmp_path: Path) -> None:
    partition = divide(small, 2, images[:2])
    assert fastest_prefix(partition, images, "fp32", tmp_path / "gone.bin", 1).name == "torch-fp32"
