"""What arrives at every stage's boundary while images are embedded, averaged over places: no pass of its own.

Averages are small (a few hundred numbers an image), so they are kept for probes of every stage; the maps are not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch

StageFeatures = dict[int, torch.Tensor]
"""Averaged boundary tensors by freeze depth, shape (n, channels) each; under `WHOLE` one as it is, in bfloat16."""
WHOLE = -1
StagedForward = Callable[[torch.Tensor], tuple[torch.Tensor, StageFeatures]]
"""From normalised images to the model's output and the stages' features."""


def pooled(z: torch.Tensor) -> torch.Tensor:
    """The mean over places of a boundary tensor: float32, shape (n, channels).

    Feature maps have shape (n, channels, side, side), or (n, side, side, channels) where the model keeps its channels
    last (Swin); inputs are square, which distinguishes the two. Tokens have shape (n, tokens, channels). Anything else
    is flattened.
    """
    if z.ndim == 4:
        channels_last = z.shape[1] == z.shape[2] != z.shape[3]
        return z.mean((1, 2) if channels_last else (2, 3)).float()
    return (z.mean(1) if z.ndim == 3 else z.flatten(1)).float()


class StageTaps:
    """A model that also gives the averages at its stages' boundaries; several threads may call it at once.

    Args:
        model: without a classifier, in evaluation mode. It keeps hooks that do nothing when it is called directly.
        boundaries: modules by freeze depth, see `autotl.models.partition.boundaries`.
        whole: the freeze depth whose boundary tensor is also given as it is; None for none.
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor], torch.Tensor],
        boundaries: Mapping[int, torch.nn.Module],
        whole: int | None = None,
    ) -> None:
        self._model, self._whole = model, whole
        self._of_thread = threading.local()
        for depth, module in boundaries.items():
            module.register_forward_pre_hook(self._look(depth))

    def _look(self, depth: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            reached: StageFeatures | None = getattr(self._of_thread, "reached", None)
            if reached is not None:
                reached[depth] = pooled(args[0])
                if depth == self._whole:
                    reached[WHOLE] = args[0].to(torch.bfloat16, copy=True)  # what follows may work in place

        return hook

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, StageFeatures]:
        """The model's output, and the averages by freeze depth."""
        reached: StageFeatures = {}
        self._of_thread.reached = reached
        try:
            return self._model(batch), reached
        finally:
            self._of_thread.reached = None


def output_alone(staged: StagedForward) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same forward pass, at the same cost, without the stages' features."""
    return lambda batch: staged(batch)[0]
