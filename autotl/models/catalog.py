"""The backbones on offer: names, cost, licence, source learning rate, and where their weights come from."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from autotl.errors import BackboneError, Problem

DEFAULT_ADAMW_LR = 1.8e-4
"""AdamW's rate at a batch of 32 for what is not in the catalog: most recent recipes have 1e-3 at 1,024."""
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True, slots=True)
class BackboneEntry:
    """One backbone, as in `backbones.toml`.

    Attributes:
        name: timm's full name, with the tag of the weights; `RUN/` and that name for the model of an earlier run.
        family: architecture family.
        weights: "bundled" (in a Python package), "hub" (timm's model hub or its cache), "file", or "run" (the model
            of an earlier run).
        parameters_m, gmacs: millions of parameters; 10^9 multiply-adds an image at `input_size`.
        top1: ImageNet-1k top-1 in %, 0 where unknown.
        input_size: side of the input in pixels.
        stages: timm's coarse stages without the classifier.
        adamw_lr: AdamW's peak rate at a batch of 32 that stands for the backbone's own training.
        adamw_source: where that comes from.
        licence: of the weights.
        package, file, sha256: bundled weights: package, file inside it, checksum of the file; the last also for "run".
        path: weights in a local file, when `weights` is "file" or "run".
        timm_name: what timm builds it by; `name`, where nothing else is given.
    """

    name: str
    family: str
    weights: Literal["bundled", "hub", "file", "run"]
    parameters_m: float
    gmacs: float
    top1: float
    input_size: int
    stages: int
    adamw_lr: float
    adamw_source: str
    licence: str
    package: str = ""
    file: str = ""
    sha256: str = ""
    path: str = ""
    timm_name: str = ""

    def __post_init__(self) -> None:
        if not self.timm_name:
            object.__setattr__(self, "timm_name", self.name)


@cache
def load_catalog() -> tuple[BackboneEntry, ...]:
    """Every backbone of `backbones.toml`, in the order of the file."""
    plain = tomllib.loads(Path(__file__).with_name("backbones.toml").read_text("utf-8"))
    return tuple(BackboneEntry(**entry) for entry in plain["backbone"])


def find_entry(name: str) -> BackboneEntry:
    """The entry for a name from the catalog, any other timm name, or `NAME=PATH` for weights in a local file.

    A name may leave out the tag (`convnext_tiny`) where the catalog has one with that architecture.

    Raises:
        BackboneError: if timm knows no such model, or there is no such file.
    """
    name, named, path = name.partition("=")
    entry = _in_catalog(name) or _in_timm(name)
    if entry is None:
        raise BackboneError([_unknown(name)])
    if not named:
        return entry
    if not Path(path).is_file() or not path.endswith(WEIGHT_SUFFIXES):
        found = "no such file" if not Path(path).is_file() else "is not a file of weights"
        raise BackboneError(
            [Problem("backbone", f"{name}={path}", found, "a file ending in " + ", ".join(WEIGHT_SUFFIXES))]
        )
    return replace(entry, weights="file", path=str(Path(path).absolute()), package="", file="", sha256="")


def _in_catalog(name: str) -> BackboneEntry | None:
    exact = next((entry for entry in load_catalog() if entry.name == name), None)
    if exact is not None or "." in name:
        return exact
    return next((entry for entry in load_catalog() if entry.name.split(".")[0] == name), None)


def _in_timm(name: str) -> BackboneEntry | None:
    """An entry for a timm model outside the catalog: its size is measured by building it without memory."""
    import timm
    import torch

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and not timm.models.is_model_pretrained(name)):
        return None
    from autotl.models.stages import stage_of_parameters

    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    cfg = model.pretrained_cfg
    return BackboneEntry(
        name=f"{architecture}.{cfg['tag']}" if cfg.get("tag") else architecture,
        family=architecture.split("_")[0],
        weights="hub",
        parameters_m=round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2),
        gmacs=0.0,
        top1=0.0,
        input_size=int(cfg["input_size"][-1]),
        stages=1 + max(stage for stage in stage_of_parameters(model).values() if stage is not None),
        adamw_lr=DEFAULT_ADAMW_LR,
        adamw_source="that of most recent recipes: 1e-3 at 1024",
        licence=str(cfg.get("license") or "unknown"),
    )


def _unknown(name: str) -> Problem:
    import timm

    names = [entry.name for entry in load_catalog()]
    near = difflib.get_close_matches(name, [*names, *timm.list_models()], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `autotl backbones list`"
    if "/" in name:  # such as a choice in the space of a run that reused another
        hint = f"for the model of an earlier run, name that run (reuse=RUN, --reuse RUN); else {hint}"
    return Problem("backbone", f"backbones {name!r}", "unknown to autotl's catalog and to timm", "a timm model", hint)
