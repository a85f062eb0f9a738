"""A timm model with its stages (timm's coarse groups), its classifier, and how its input is prepared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config

from autotl.errors import BackboneError, Problem
from autotl.models.stages import TimmModel, stage_of_parameters
from autotl.models.weights import load_state


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From a store of square images to the input of a backbone.

    Attributes:
        input_size: side of the input in pixels.
        crop: share of the side of the stored square that is used for evaluation (timm's crop_pct).
        mean, std: of the three channels, for pixels in 0..1.
        store_size: side of the stored square in pixels.
    """

    input_size: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    store_size: int

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Shift and scale pixels in 0..1, shape (n, 3, side, side), in place."""
        if images.is_cuda:  # constants would have to be copied there, and waited for
            for channel in range(3):
                images[:, channel].sub_(self.mean[channel]).div_(self.std[channel])
            return images
        mean, std = (torch.tensor(values, device=images.device) for values in (self.mean, self.std))
        if images.is_contiguous(memory_format=torch.channels_last):
            # Row by row: torch takes a channel dimension of three, innermost, ten times as long.
            rows, width = images.permute(0, 2, 3, 1).flatten(2), images.shape[3]
            rows.sub_(mean.repeat(width)).div_(std.repeat(width))
        else:
            images.sub_(mean.view(1, 3, 1, 1)).div_(std.view(1, 3, 1, 1))
        return images

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Preprocessing:
        """What `to_json` wrote."""
        return cls(
            int(plain["input_size"]),
            float(plain["crop"]),
            tuple(plain["mean"]),
            tuple(plain["std"]),
            int(plain["store_size"]),
        )


@dataclass(frozen=True, slots=True)
class Backbone:
    """A timm model ready to be divided.

    Attributes:
        name: timm's full name.
        model: the module; its classifier has one output a class (or none).
        stage_of: the stage of every parameter, from 0 at the input; None for the classifier's.
        n_stages: number of stages; a freeze depth lies in 0..`n_stages`.
        preprocessing: how its input is prepared.
    """

    name: str
    model: TimmModel
    stage_of: dict[str, int | None]
    n_stages: int
    preprocessing: Preprocessing

    def set_classifier(self, weight: torch.Tensor, bias: torch.Tensor) -> bool:
        """Make the classifier a given linear map of the features.

        Of several heads whose outputs are averaged (distilled models) each becomes that map, and batch norms inside
        the classifier let features through as they are.

        Args:
            weight: shape (classes, features).
            bias: shape (classes,).

        Returns:
            False, and nothing is changed, where the classifier is not made of linear layers of that shape.
        """
        names = self.model.pretrained_cfg["classifier"]
        layers = [self.model.get_submodule(name) for name in ((names,) if isinstance(names, str) else names)]
        if any(not isinstance(layer, torch.nn.Linear) or layer.weight.shape != weight.shape for layer in layers):
            return False
        heads = self.model.get_classifier()
        inside = [module for head in (heads if isinstance(heads, tuple) else (heads,)) for module in head.modules()]
        with torch.no_grad():
            for norm in (module for module in inside if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)):
                norm.reset_parameters()
                norm.weight.fill_((1 + norm.eps) ** 0.5)
            for layer in layers:
                layer.weight.copy_(weight)
                if layer.bias is not None:
                    layer.bias.copy_(bias)
        return True

    def without_weight_decay(self) -> set[str]:
        """Parameters that the architecture itself exempts from weight decay, by name."""
        exempt = getattr(self.model, "no_weight_decay", set)
        return set(exempt())

    def freeze(self, depth: int) -> None:
        """Freeze the weights of the first `depth` stages; all others, and the classifier, are trained."""
        for name, parameter in self.model.named_parameters():
            stage = self.stage_of[name]
            parameter.requires_grad_(stage is None or stage >= depth)

    def train_mode(self, *, keep_statistics: bool) -> None:
        """Training mode, except for modules all of whose parameters are frozen: their batch-norm statistics stay.

        Args:
            keep_statistics: leave the statistics of trained batch norms as they are, too. A head fitted on the
                frozen features knows only these: with those of a batch of far images its loss is a hundred times as
                high, and the good start is lost.
        """
        self.model.train()
        for module in self.model.modules():
            parameters = list(module.parameters())
            frozen = bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
            if frozen or (keep_statistics and isinstance(module, torch.nn.modules.batchnorm._BatchNorm)):
                module.eval()


def wrap(name: str, model: TimmModel) -> Backbone:
    """A backbone around a timm model."""
    stage_of = stage_of_parameters(model)
    n_stages = 1 + max(stage for stage in stage_of.values() if stage is not None)
    return Backbone(name, model, stage_of, n_stages, preprocessing_of(model))


def preprocessing_of(model: TimmModel) -> Preprocessing:
    """timm's own evaluation preprocessing of a model; the stored square is as large as its crop needs."""
    return _from_data_config(resolve_data_config({}, model=model))


def preprocessing_named(name: str) -> Preprocessing:
    """The same by timm's name, without building the model."""
    cfg = timm.get_pretrained_cfg(name)
    return _from_data_config(resolve_data_config({}, pretrained_cfg={} if cfg is None else cfg.to_dict()))


def _from_data_config(cfg: dict[str, Any]) -> Preprocessing:
    size, crop = int(cfg["input_size"][-1]), float(cfg["crop_pct"])
    return Preprocessing(size, crop, tuple(cfg["mean"]), tuple(cfg["std"]), round(size / crop))


def create(name: str, n_classes: int, state: Path | None) -> Backbone:
    """A backbone with a new classifier.

    Args:
        name: timm's full name.
        n_classes: outputs of the classifier.
        state: weights written by `autotl.models.weights.save_state`; None leaves them random.

    Raises:
        BackboneError: if timm itself has no such architecture, or the weights do not fit.
    """
    # A name such as hf-hub:NAME would fetch an architecture from the network.
    if not timm.is_model(name.split(".")[0]):
        raise BackboneError([Problem("backbone", repr(name), "timm has no such architecture")])
    model = timm.create_model(name, pretrained=False, num_classes=n_classes)
    if state is not None:
        load_state(model, state)
    return wrap(name, model)
