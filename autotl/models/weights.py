"""Pretrained weights: from a package, a local file, an earlier run or the hub's cache; the network only if allowed."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import clean_state_dict

from autotl.errors import BackboneError, ModelFileError, Problem
from autotl.models.catalog import BackboneEntry
from autotl.models.stages import TimmModel
from autotl.storage.saved_model import load_card, load_finite_weights

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""File names under which timm's hub repositories keep weights, in the order timm asks for them."""


def locate(entry: BackboneEntry, allow_download: bool = False) -> Path:
    """The file that holds the weights of `entry`.

    Args:
        entry: the backbone.
        allow_download: fetch it from the model hub when it is not in the hub's cache.

    Raises:
        BackboneError: if it is not there, naming the missing file and how to provide it.
    """
    if entry.weights in ("file", "run"):
        return Path(entry.path)
    if entry.weights == "bundled":
        return _bundled_file(entry)
    cached = _cached_file(entry)
    if cached is not None:
        return cached
    if allow_download:
        return _download(entry)
    raise BackboneError([_missing(entry)])


def is_available(entry: BackboneEntry) -> bool:
    """Whether the weights can be loaded here without the network."""
    try:
        locate(entry)
    except BackboneError:
        return False
    return True


def _bundled_file(entry: BackboneEntry) -> Path:
    spec = importlib.util.find_spec(entry.package)
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders)), entry.file) if folders else None
    if path is None or not path.is_file():
        remedy = f"pip install {entry.package.replace('_', '-')}"
        raise BackboneError(
            [Problem("backbone", entry.name, f"package {entry.package} is not installed", remedy=remedy)]
        )
    return path


def _hub_repository(entry: BackboneEntry) -> tuple[str, tuple[str, ...]]:
    cfg = timm.get_pretrained_cfg(entry.name)
    repository = str(cfg.hf_hub_id or f"timm/{entry.name}") if cfg is not None else f"timm/{entry.name}"
    named = cfg.hf_hub_filename if cfg is not None else None
    return repository, (str(named),) if named else HUB_FILES


def _cached_file(entry: BackboneEntry) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, names = _hub_repository(entry)
    for name in names:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _download(entry: BackboneEntry) -> Path:
    from huggingface_hub import hf_hub_download

    repository, names = _hub_repository(entry)
    reasons = []
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except Exception as error:  # the hub's client raises its own, the transport's and OS errors
            reasons.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    raise BackboneError([Problem("backbone", entry.name, f"download from {repository} failed ({'; '.join(reasons)})")])


def _missing(entry: BackboneEntry) -> Problem:
    from huggingface_hub.constants import HF_HUB_CACHE

    repository, names = _hub_repository(entry)
    folder = Path(HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
    return Problem(
        "backbone",
        entry.name,
        f"{names[0]} of {repository} is not in the model hub's cache ({folder})",
        remedy=f"allow the download (allow_download=True, --allow-download), copy that folder from a machine that "
        f"has it, or name a file: {entry.name}=PATH",
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, name: str) -> None:
    """Compare the checksum of the file at `path`.

    Raises:
        BackboneError: if it differs.
    """
    found = file_sha256(path)
    if found != expected:
        remedy = "reinstall the package: the file is damaged or another version"
        raise BackboneError([Problem("backbone", name, f"{path.name} has SHA-256 {found}", expected, remedy)])


def load_pretrained(entry: BackboneEntry, path: Path) -> TimmModel:
    """The timm model of `entry` without a classifier, with the weights at `path`.

    Raises:
        BackboneError: if the checksum or the tensors do not fit.
    """
    if entry.weights == "bundled":
        check_sha256(path, entry.sha256, entry.name)
        return _load_in_order(entry, path)
    if entry.weights == "run":
        return _load_run(entry, path)
    try:
        # timm renames and reshapes what older checkpoints need. It does not read the file: some of its versions would
        # run code that is in it. With all its classes, because timm does not look for missing tensors when it is to
        # leave the classifier out.
        overlay = {"state_dict": read_tensors(path)}
        model = timm.create_model(entry.name, pretrained=True, pretrained_cfg_overlay=overlay)
        model.pretrained_cfg.pop("state_dict", None)
        model.reset_classifier(0)
        return model
    except Exception as error:  # torch, safetensors, pickle and timm each raise their own
        found = f"{path} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]})"
        raise BackboneError([Problem("backbone", entry.name, found, f"weights of timm's {entry.name}")]) from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights by name; nothing in it is ever run.

    Of a checkpoint that holds more than weights, the averaged ones are taken where there are any, as timm does.

    Raises:
        Exception: torch's and safetensors' own, if the file is damaged or holds anything but plain data.
    """
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    found: Any = torch.load(path, map_location="cpu", weights_only=True)
    for name in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(found.get(name), dict):
            found = found[name]
            break
    return dict(clean_state_dict(found))


def _load_in_order(entry: BackboneEntry, path: Path) -> TimmModel:
    """Load a file whose tensors stand in timm's order under other names."""
    model = timm.create_model(entry.name, pretrained=False)
    expected: dict[str, torch.Tensor] = model.state_dict()
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected.values()]:
        found = f"{path.name}: its {len(tensors)} tensors are not the {len(expected)} of timm's model"
        raise BackboneError([Problem("backbone", entry.name, found)])
    model.load_state_dict(dict(zip(expected, tensors, strict=True)))
    model.reset_classifier(0)
    return model


def _load_run(entry: BackboneEntry, path: Path) -> TimmModel:
    """The model that an earlier run saved, its classifier taken off; the card beside the weights names its classes."""
    try:
        card = load_card(path.parent)
        if card.sha256 != entry.sha256:
            found = "the run has another model now than when it was looked at"
            raise BackboneError([Problem("backbone", entry.name, found, remedy="begin again")])
        state = load_finite_weights(path.parent, card)
        model = timm.create_model(entry.timm_name, pretrained=False, num_classes=len(card.classes))
        model.load_state_dict(state)
    except (ModelFileError, RuntimeError) as error:
        raise BackboneError([Problem("backbone", entry.name, " ".join(str(error).split()))]) from error
    model.reset_classifier(0)
    return model


def save_state(model: torch.nn.Module, path: Path) -> None:
    """Write a model's tensors as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def load_state(model: TimmModel, path: Path) -> None:
    """Load the tensors written by `save_state` into a model that may have a new classifier besides.

    Raises:
        BackboneError: if a tensor outside the classifier is missing, or one is left over.
    """
    try:
        result: Any = model.load_state_dict(load_file(path), strict=False)
    except RuntimeError as error:
        found = f"{path.name}: {' '.join(str(error).split())}"
        raise BackboneError([Problem("backbone", _architecture(model), found)]) from error
    names = model.pretrained_cfg["classifier"]
    heads = (names,) if isinstance(names, str) else tuple(names)
    missing = [name for name in result.missing_keys if not name.startswith(heads)]
    if missing or result.unexpected_keys:
        found = f"{path.name}: missing {missing[:3]}, unexpected {result.unexpected_keys[:3]}"
        raise BackboneError([Problem("backbone", _architecture(model), found)])


def _architecture(model: TimmModel) -> str:
    return str(model.pretrained_cfg.get("architecture", "backbone"))
