"""A backbone with its linear probe as a model: the first candidate of every run."""

from __future__ import annotations

import torch

from autotl.frozen.prepare import PreparedBackbone
from autotl.models.backbone import create
from autotl.records import Estimate
from autotl.storage.saved_model import ModelCard
from autotl.train.probe import Probe


def probe_state(prepared: PreparedBackbone, probe: Probe, n_classes: int) -> dict[str, torch.Tensor] | None:
    """The weights of the backbone with the probe as its classifier; None where its classifier is not linear."""
    backbone = create(prepared.entry.timm_name, n_classes, prepared.state)
    if not backbone.set_classifier(torch.from_numpy(probe.weight), torch.from_numpy(probe.bias)):
        return None
    state: dict[str, torch.Tensor] = backbone.model.state_dict()
    return state


def probe_card(
    prepared: PreparedBackbone,
    classes: tuple[str, ...],
    metric: str,
    score: float,
    log_loss: float,
    validation: Estimate,
    provenance: dict[str, object],
) -> ModelCard:
    """The card of the model that is a backbone with its linear probe."""
    return ModelCard(
        backbone=prepared.entry.timm_name,
        classes=classes,
        preprocessing=dict(prepared.preprocessing),
        freeze_depth=prepared.n_stages,
        metric=metric,
        score=score,
        log_loss=log_loss,
        validation=validation,
        trial_id=f"probe-{prepared.entry.name}",
        epoch=0,
        config={"backbone": prepared.entry.name, "initial_weights": "pretrained", "freeze_depth": prepared.n_stages},
        provenance=provenance,
    )
