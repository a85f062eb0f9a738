"""A backbone converted to OpenVINO's format, with every stage's boundary as a further output.

OpenVINO is an optional package (`pip install autotl[cpu]`). Converting takes seconds, so the result is kept in the
cache; `autotl.frozen.engines` decides whether it is made and used.
"""

from __future__ import annotations

import importlib.util
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autotl.frozen.stages import WHOLE, StageFeatures, pooled
from autotl.models.backbone import Backbone
from autotl.models.partition import DoesNotDivide, Partition, divide
from autotl.models.stages import TimmModel
from autotl.storage.cache import DiskCache, made_with


def has_openvino() -> bool:
    """Whether the optional package is installed."""
    return importlib.util.find_spec("openvino") is not None


class _Stages(torch.nn.Module):
    """A model as a function to the input of every stage's boundary, from depth 1 on, their means, and its output."""

    def __init__(self, model: TimmModel, partitions: Sequence[Partition | None]) -> None:
        super().__init__()
        self.model = model
        self._partitions = [partition for partition in partitions if partition is not None]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        reached: dict[int, torch.Tensor] = {}
        handles = [partition.observe(partial(reached.setdefault, partition.depth)) for partition in self._partitions]
        try:
            output = self.model(x)
        finally:
            for handle in handles:
                handle.remove()
        maps = [reached[partition.depth] for partition in self._partitions]
        return (*maps, *map(pooled, maps), output)


def conversion_key(name: str, weights_sha256: str, input_size: int) -> dict[str, Any]:
    """The key of a converted backbone in the cache."""
    key = {"kind": "openvino", "backbone": name, "weights": weights_sha256, "size": input_size}
    return key | {"outputs": "depths, pooled, output", "made_with": made_with("openvino", "timm")}


def convert(backbone: Backbone, example: torch.Tensor, cache: DiskCache, key: dict[str, Any]) -> Path | None:
    """The backbone in OpenVINO's format; further outputs are the boundaries of all depths at which it divides.

    Args:
        backbone: without a classifier.
        example: a batch of normalised images.
        cache, key: where it is kept.

    Returns:
        A file for `OpenVinoModel`, or None where there is no room or OpenVINO cannot convert the model.
    """
    existing = cache.get(key)
    if existing is not None:
        return existing
    partitions = [_divided(backbone, depth, example[:2]) for depth in range(1, backbone.n_stages)]

    def build(path: Path) -> bool:
        import openvino

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every Python number
            try:
                model = openvino.convert_model(
                    _Stages(backbone.model, partitions).eval(), example_input=example.contiguous()
                )
            except Exception as error:  # it raises its own, torch's and plain RuntimeErrors for what it cannot convert
                if KeyboardInterrupt.__name__ in str(error):  # Ctrl-C in one of its callbacks, as its own exception
                    raise KeyboardInterrupt from error
                return False
        depths = [partition.depth for partition in partitions if partition is not None]
        names = [*(f"depth-{depth}" for depth in depths), *(f"pooled-{depth}" for depth in depths), "output"]
        for output, name in zip(model.outputs, names, strict=True):
            output.get_tensor().set_names({name})
        with tempfile.TemporaryDirectory(prefix="converting-", dir=path.parent) as folder:
            xml = Path(folder, "model.xml")
            openvino.save_model(model, str(xml), compress_to_fp16=False)
            with zipfile.ZipFile(path, "w") as archive:
                archive.write(xml, "model.xml")
                archive.write(xml.with_suffix(".bin"), "model.bin")
        return True

    size = 4 * sum(parameter.numel() for parameter in backbone.model.parameters()) + 2**20
    return cache.get_or_build(key, size, build)


def _divided(backbone: Backbone, depth: int, example: torch.Tensor) -> Partition | None:
    try:
        return divide(backbone, depth, example)
    except DoesNotDivide:
        return None


class OpenVinoModel:
    """A converted backbone that ends at one of its outputs; every thread that calls it has a request of its own.

    Args:
        path: written by `convert`.
        output: "output", or "depth-N" for the boundary at a freeze depth.
        stages: also compute what `with_stages` gives.
        whole: the freeze depth whose boundary `with_stages` gives as it is; None, or a depth without one, for none.
        calls: that run at once, from as many threads.
        threads: CPU threads, divided among the calls.

    Raises:
        KeyError: if it has no such output.
    """

    def __init__(
        self,
        path: Path,
        output: str,
        *,
        stages: bool = False,
        whole: int | None = None,
        calls: int = 1,
        threads: int = 1,
    ) -> None:
        import openvino
        from openvino.preprocess import PrePostProcessor

        with zipfile.ZipFile(path) as archive:
            model = openvino.Core().read_model(archive.read("model.xml"), archive.read("model.bin"))
        ports = {name: port for port in model.outputs for name in port.get_names()}
        asked = [ports[output], *(port for name, port in ports.items() if stages and name.startswith("pooled-"))]
        self._depths = [int(name[7:]) for name in ports if stages and name.startswith("pooled-")]
        self._has_whole = f"depth-{whole}" in ports
        if self._has_whole:
            asked.append(ports[f"depth-{whole}"])
        frozen = openvino.Model([port.node for port in asked], model.get_parameters(), "frozen")
        steps = PrePostProcessor(frozen)
        steps.input().tensor().set_layout(openvino.Layout("NHWC"))  # as torch's channels_last lies in memory
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        self._maps = {place for place, port in enumerate(asked) if port.get_partial_shape().rank.get_length() == 4}
        for place in self._maps:
            steps.output(place).model().set_layout(openvino.Layout("NCHW"))
            steps.output(place).tensor().set_layout(openvino.Layout("NHWC"))
        options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": calls, "INFERENCE_NUM_THREADS": threads}
        self._compiled = openvino.Core().compile_model(steps.build(), "CPU", options)
        self._local = threading.local()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """The output for normalised images, shape (n, 3, size, size); float32."""
        return self.with_stages(batch)[0]

    def with_stages(self, batch: torch.Tensor) -> tuple[torch.Tensor, StageFeatures]:
        """The output, and the averages at the stages' boundaries by freeze depth, where they were asked for."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        images = batch.permute(0, 2, 3, 1).contiguous().numpy()
        results = self._local.request.infer({0: images})
        tensors = [torch.from_numpy(results[place].copy()) for place in range(len(results))]
        result, *further = (
            tensor.permute(0, 3, 1, 2) if place in self._maps else tensor for place, tensor in enumerate(tensors)
        )
        stages = dict(zip(self._depths, further[: len(self._depths)], strict=True))
        if self._has_whole:
            stages[WHOLE] = further[-1].to(torch.bfloat16)
        return result, stages
