"""A saved model: safetensors for the weights, JSON for everything else, replaced so that one is always whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from autotl.errors import ModelFileError
from autotl.records import Estimate
from autotl.storage.card_checks import problems_of_card
from autotl.storage.rundir import RunDir, write_atomically, write_json

FORMAT_VERSION = 1
NORMAL_95 = 1.959964
"""Half the width of the 95% interval of a standard normal variable."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All that a saved model is besides its weights.

    Attributes:
        backbone: timm's full name, also where the weights began as those of an earlier run: the model loads without
            it. `config` has the search's own name for the backbone.
        classes: class names in the order of the outputs.
        preprocessing: see `autotl.models.backbone.Preprocessing`.
        freeze_depth: leading stages that stayed as pretrained; None for training from scratch.
        metric, score, log_loss: validation score (larger is better) and log loss it was chosen for.
        validation: that metric with its interval on the validation images.
        trial_id, epoch, config: where in the search it arose.
        finished: whether its rates had fallen to zero; one in the middle of its schedule is kept for want of a better.
        provenance: data fingerprint, seed, versions, date, the scores of the majority-class baseline, earlier runs.
        weights, sha256: name and checksum of the file of weights; filled in when saved.
    """

    backbone: str
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    freeze_depth: int | None
    metric: str
    score: float
    log_loss: float
    validation: Estimate
    trial_id: str
    epoch: int
    config: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    sha256: str = ""
    format_version: int = FORMAT_VERSION
    finished: bool = True

    @property
    def least_score(self) -> float:
        """The lower end of the 95% interval of the score: models from there on may be as good as this one."""
        return -self.validation.high if self.metric == "log_loss" else self.validation.low

    @property
    def standard_error(self) -> float:
        """Of the score, from the width of its 95% interval; 0 where that is unknown."""
        width = self.validation.high - self.validation.low
        return width / (2 * NORMAL_95) if math.isfinite(width) else 0.0

    @property
    def timm_version(self) -> str:
        """Of the timm that it was made with, or "as it was then"."""
        versions = self.provenance.get("versions")
        return str(versions.get("timm")) if isinstance(versions, dict) else "as it was then"

    def better_than(self, other: ModelCard | None) -> bool:
        """Whether this one is to be kept: a higher score, or the same score with a lower log loss.

        The best of many noisy epochs is mostly a lucky one: a model in the middle of its schedule has to be better by
        more than a standard error than one at its end, which in turn is kept unless it is worse by more than that.
        """
        if not math.isfinite(self.score):
            return False
        if other is None or self.finished == other.finished:
            return other is None or (self.score, -self.log_loss) > (other.score, -other.log_loss)
        noise = max(self.standard_error, other.standard_error)
        return self.score >= other.score - noise if self.finished else self.score > other.score + noise


def save_model(folder: Path, state: dict[str, torch.Tensor], card: ModelCard) -> None:
    """Write weights, then the card that names them, then remove older weights: a crash leaves the old or the new."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    checksum = hashlib.sha256(content).hexdigest()
    name = f"weights-{checksum[:12]}.safetensors"
    write_atomically(folder / name, content)
    plain = asdict(card) | {"weights": name, "sha256": checksum}
    write_json(folder / "model.json", plain)
    for old in folder.glob("weights-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_card(folder: Path) -> ModelCard:
    """The card of a saved model.

    Raises:
        ModelFileError: if it is missing, damaged, or of a newer format.
    """
    path = folder / "model.json"
    try:
        plain = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    version = plain.get("format_version") if isinstance(plain, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ModelFileError(f"{path}: format {version} is newer than this autotl reads ({FORMAT_VERSION}): upgrade")
    problems = problems_of_card(plain)
    if problems:
        raise ModelFileError("\n".join([f"{path}: is no model card of autotl:", *(f"  - {one}" for one in problems)]))
    log_loss = math.nan if plain["log_loss"] is None else plain["log_loss"]
    changed = {"classes": tuple(plain["classes"]), "validation": Estimate.from_json(plain["validation"])}
    return ModelCard(**(plain | changed | {"log_loss": log_loss}))


def load_weights(folder: Path, card: ModelCard) -> dict[str, torch.Tensor]:
    """The weights of a saved model.

    Raises:
        ModelFileError: if the file is missing, its checksum differs, or it holds no tensors.
    """
    path = folder / card.weights
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise ModelFileError(f"{path}: SHA-256 differs from the one in model.json; the file is damaged")
    try:
        tensors: dict[str, torch.Tensor] = load(content)
    except Exception as error:  # safetensors raises errors of its own, and those of whatever a damaged head names
        raise ModelFileError(f"{path}: is no safetensors file ({type(error).__name__}: {error})") from error
    return tensors


def load_finite_weights(folder: Path, card: ModelCard) -> dict[str, torch.Tensor]:
    """As `load_weights`, for a model that may come from anybody.

    Raises:
        ModelFileError: also if a tensor holds a number that is not finite.
    """
    tensors = load_weights(folder, card)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            found = f"{name} holds a number that is not finite; the model is of no use"
            raise ModelFileError(f"{folder / card.weights}: {found}")
    return tensors


def offer(run: RunDir, card: ModelCard, state: Callable[[], dict[str, torch.Tensor]]) -> bool:
    """Make a model the run's best if it is better than the one there.

    Args:
        run: the run folder.
        card: of the candidate.
        state: gives its weights, asked only if it is better.

    Returns:
        Whether it was.
    """
    with run.lock():
        held = load_card(run.model) if run.has_model else None
        if not card.better_than(held):
            return False
        save_model(run.model, state(), card)
        return True
