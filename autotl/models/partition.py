"""Dividing a model at a freeze depth: `suffix(prefix(x)) == model(x)`, for any architecture that timm groups.

The first module that belongs wholly to the unfrozen part is the *boundary*. The prefix runs the model up to the
boundary and takes its input. The suffix runs the model with every module before the boundary replaced by a stub
(zeros of the right shape that take no memory) and hands the cached tensor to the boundary. What a model does
between its modules (adding position embeddings, reshaping) then happens to the zeros and is thrown away, so the
partition needs no knowledge of the architecture. Where it does not hold, `divide` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from autotl.models.backbone import Backbone

TOLERANCE = 1e-4
"""Largest relative difference between `suffix(prefix(x))` and `model(x)` in fp32."""


class _Reached(Exception):
    """Carries the boundary's input out of the model."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class DoesNotDivide(Exception):
    """A model cannot be divided at this depth; the text says why."""


@dataclass(frozen=True, slots=True)
class _Stub:
    module: torch.nn.Module
    shape: tuple[int, ...]


class Partition:
    """A model divided at a freeze depth. Made by `divide`.

    Attributes:
        depth: the freeze depth.
        shape: of the boundary tensor of one image, without the batch.
    """

    def __init__(
        self, model: torch.nn.Module, depth: int, boundary: torch.nn.Module, stubs: list[_Stub], shape: tuple[int, ...]
    ) -> None:
        self.depth = depth
        self.shape = shape
        self._model = model
        self._boundary = boundary
        self._stubs = stubs

    def prefix(self, x: torch.Tensor) -> torch.Tensor:
        """The input of the boundary for a batch of images; the modules after it do not run."""
        return _input_of(self._boundary, lambda: self._model(x))

    def suffix(self, z: torch.Tensor) -> torch.Tensor:
        """The model's output for a batch of boundary tensors; the modules before the boundary do not run."""

        def inject(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (z, *args[1:])

        handle = self._boundary.register_forward_pre_hook(inject)
        for stub in self._stubs:
            stub.module.forward = _zeros(z, stub.shape)
        try:
            # Nothing reads the input's values; it only carries the batch size into the stubs' surroundings.
            output: torch.Tensor = self._model(z.new_zeros(()).expand(len(z), 3, 8, 8))
        finally:
            handle.remove()
            for stub in self._stubs:
                del stub.module.forward
        return output

    def observe(self, on_reached: Callable[[torch.Tensor], Any]) -> RemovableHandle:
        """Call `on_reached` with the boundary's input in every forward pass, until the handle is removed."""

        def look(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            on_reached(args[0])

        return self._boundary.register_forward_pre_hook(look)

    def between(self, deeper: Partition, z: torch.Tensor) -> torch.Tensor:
        """The input of a deeper boundary of the same model, from tensors at this one."""
        return _input_of(deeper._boundary, lambda: self.suffix(z))


def _input_of(boundary: torch.nn.Module, run: Callable[[], Any]) -> torch.Tensor:
    """The tensor with which `run` reaches `boundary`, where it is stopped."""

    def stop(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        raise _Reached(args[0])

    handle = boundary.register_forward_pre_hook(stop)
    try:
        run()
    except _Reached as reached:
        return reached.tensor
    finally:
        handle.remove()
    raise DoesNotDivide("the boundary was not reached")


def _zeros(z: torch.Tensor, shape: tuple[int, ...]) -> Callable[..., torch.Tensor]:
    zeros = z.new_zeros(()).expand(len(z), *shape)
    return lambda *args, **kwargs: zeros


def divide(backbone: Backbone, depth: int, example: torch.Tensor) -> Partition:
    """Divide a model below stage `depth` and check that the two parts give what the whole gives.

    Args:
        backbone: the model; it is put into evaluation mode.
        depth: 1..n_stages; at n_stages the suffix is the classifier alone.
        example: two or more images of the input's shape, on the model's device.

    Raises:
        DoesNotDivide: if the boundary takes more of an image than one tensor, a module before it returns anything but
            a tensor, it runs more than once, or the check fails.
    """
    model = backbone.model.eval()
    with torch.no_grad():
        boundary, stubs, shape = _trace(backbone, depth, example)
        partition = Partition(model, depth, boundary, stubs, shape)
        whole, joined = model(example), partition.suffix(partition.prefix(example))
    difference = float((whole - joined).norm() / whole.norm().clamp_min(1e-12))
    if not difference <= TOLERANCE:
        raise DoesNotDivide(f"the parts differ from the whole by {difference:.1e}")
    return partition


def _suffix_modules(backbone: Backbone, depth: int) -> set[str]:
    """Names of the modules all of whose parameters lie at or above `depth`."""
    stages: dict[str, list[bool]] = {}
    for name, stage in backbone.stage_of.items():
        parts = name.split(".")[:-1]
        for length in range(1, len(parts) + 1):
            stages.setdefault(".".join(parts[:length]), []).append(stage is None or stage >= depth)
    return {name for name, above in stages.items() if all(above)}


def _trace(
    backbone: Backbone, depth: int, example: torch.Tensor
) -> tuple[torch.nn.Module, list[_Stub], tuple[int, ...]]:
    """One forward pass under observation: the boundary, the modules that ended before it, the boundary's shape."""
    above = _suffix_modules(backbone, depth)
    modules = {name: module for name, module in backbone.model.named_modules() if name}
    boundary: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    finished: dict[str, Any] = {}
    repeated: set[str] = set()

    def before(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not boundary and name in above:
                boundary.append((name, args, kwargs))
            elif boundary and (name in finished or name == boundary[0][0]):
                repeated.add(name)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not boundary:
                finished[name] = output

        return hook

    handles = []
    for name, module in modules.items():
        handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
        handles.append(module.register_forward_hook(after(name)))
    try:
        backbone.model(example)
    finally:
        for handle in handles:
            handle.remove()
    if not boundary:
        raise DoesNotDivide("no module belongs wholly to the unfrozen part")
    if repeated:
        raise DoesNotDivide(f"modules run on both sides of the boundary: {', '.join(sorted(repeated)[:3])}")
    name, args, kwargs = boundary[0]
    if not _takes_images(args, kwargs, len(example)):
        raise DoesNotDivide(f"{name} takes more of an image than one tensor")
    outer = [done for done in finished if not _inside_finished(done, finished)]
    stubs = [_stub(modules[done], done, finished[done]) for done in outer if not _is_fixed(finished[done], example)]
    return modules[name], stubs, tuple(args[0].shape[1:])


def _takes_images(args: tuple[Any, ...], kwargs: dict[str, Any], n_images: int) -> bool:
    """Whether the first argument is all that an image brings; others, such as rotary positions, are the same for all.

    Whether they really are, the check of `divide` shows.
    """
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    of_images = [tensor for tensor in tensors if tensor.shape[:1] == (n_images,)]
    return len(of_images) == 1 and bool(args) and of_images[0] is args[0]


def _is_fixed(output: Any, example: torch.Tensor) -> bool:
    """Whether a module gives the same for all images: it goes on doing so."""
    return isinstance(output, torch.Tensor) and output.shape[:1] != example.shape[:1]


def boundaries(backbone: Backbone, example: torch.Tensor) -> dict[int, torch.nn.Module]:
    """The boundary module of every freeze depth 1..n_stages-1, found in a single forward pass.

    For looking at what arrives there, not for dividing: whether a suffix gives what the model gives is not checked,
    which `divide` does in three passes a depth. Depths whose boundary takes more of an image than one tensor, or runs
    more than once, are left out.

    Args:
        backbone: the model; it is put into evaluation mode.
        example: one image or more of the input's shape, on the model's device.
    """
    above = {depth: _suffix_modules(backbone, depth) for depth in range(1, backbone.n_stages)}
    first: dict[int, str] = {}
    calls: dict[str, list[bool]] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for depth in above.keys() - first.keys():
                if name in above[depth]:
                    first[depth] = name
            calls.setdefault(name, []).append(_takes_images(args, kwargs, len(example)))

        return hook

    modules = {name: module for name, module in backbone.model.named_modules() if name}
    handles = [module.register_forward_pre_hook(before(name), with_kwargs=True) for name, module in modules.items()]
    try:
        with torch.no_grad():
            backbone.model.eval()(example)
    finally:
        for handle in handles:
            handle.remove()
    return {depth: modules[name] for depth, name in sorted(first.items()) if calls[name] == [True]}


def _inside_finished(name: str, finished: dict[str, Any]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in finished for length in range(1, len(parts)))


def _stub(module: torch.nn.Module, name: str, output: Any) -> _Stub:
    if not isinstance(output, torch.Tensor):
        raise DoesNotDivide(f"{name} returns {type(output).__name__}, not a tensor")
    return _Stub(module, tuple(output.shape[1:]))
