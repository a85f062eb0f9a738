"""What the user asked for: frozen settings, checked in one go before anything expensive starts."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotl.errors import Problem

if TYPE_CHECKING:
    from autotl.space.search_space import SearchSpace

METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc")
"""Metrics a search can optimise. `log_loss` is minimised, all others are maximised."""

DEVICES = ("auto", "cpu", "cuda")
"""Where models run: "auto" is a GPU where torch sees one through CUDA, else the CPU."""

MOST_SEED = 2**32 - 1
"""NumPy and Optuna take no larger seed."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MINIMUM_TIMEOUT = 20.0
"""Seconds: below this not even the start of Ray and a linear probe fit in."""
MAXIMUM_TIMEOUT = 366 * 86400.0
"""Seconds: what comes later is no time that anybody waits for."""


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90`, `90s`, `10m`, `1.5h` or `1h30m`.

    Raises:
        ValueError: if `text` is not a duration of that form.
    """
    compact = text.replace(" ", "").lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", compact):
        raise ValueError(f"{text!r} is not a duration such as 90s, 10m, 1.5h or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", compact))


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a search may cost: `timeout` in seconds of wall time, `n_trials` trials (None: no limit)."""

    timeout: float
    n_trials: int | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """Where trials run.

    Attributes:
        address: a running Ray cluster to join ("auto" or "host:port"); None starts Ray on this machine.
        slots: trials at once; None lets autotl choose from the cores and GPUs.
        cpus_per_trial: cores a trial; None divides the cores among the slots.
        gpus_per_trial: GPUs a trial, or a share of one; None gives each slot one GPU where there are any.
    """

    address: str | None = None
    slots: int | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Everything a fit was asked for; `check_settings` says what is wrong with it.

    Attributes:
        dataset_dir: folder of images, see `autotl.data.folder` for its layouts.
        budget: wall time and number of trials.
        metric: what is optimised on the validation images, one of `METRICS` or "auto".
        search_space: "auto" (follow the advice), a space, the name of a shipped one, or the path of a TOML file.
        backbones: "auto", or names from the catalog, timm names, or `NAME=PATH` for weights in a local file.
        reuse: run folders of earlier fits whose best models are backbones, too.
        output_dir: the run folder; None makes a new one below `autotl_runs/`.
        seed: seeds the split, the sampler and every trial.
        val_fraction: share of the training images of every class held back when there is no validation split.
        skip_unreadable: leave unreadable images out instead of stopping at them.
        allow_download: let weights be fetched from the model hub when they are not in its cache.
        resources: where trials run.
        reference: a file of `autotl reference build` to measure similarity with; None takes the one shipped.
        measure_benefit: train the winner from scratch as well, whatever the scenario.
        device: one of `DEVICES`.
    """

    dataset_dir: Path
    budget: Budget
    metric: str = "auto"
    search_space: str | SearchSpace = "auto"
    backbones: tuple[str, ...] = ("auto",)
    output_dir: Path | None = None
    seed: int = 0
    val_fraction: float = 0.2
    skip_unreadable: bool = False
    allow_download: bool = False
    resources: Resources = Resources()
    reuse: tuple[Path, ...] = ()
    reference: Path | None = None
    measure_benefit: bool = False
    device: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON types."""
        plain = asdict(self)
        plain["search_space"] = (
            self.search_space if isinstance(self.search_space, str) else self.search_space.to_plain()
        )
        plain["dataset_dir"] = str(self.dataset_dir)
        plain["reuse"] = [str(path) for path in self.reuse]
        plain["output_dir"] = None if self.output_dir is None else str(self.output_dir)
        plain["reference"] = None if self.reference is None else str(self.reference)
        return plain


def as_seconds(timeout: float | str) -> float:
    """`timeout` in seconds.

    Raises:
        ValueError: for a text that is not a duration.
    """
    return parse_duration(timeout) if isinstance(timeout, str) else float(timeout)


def as_space(search_space: str | os.PathLike[str] | SearchSpace) -> str | SearchSpace:
    """A path as text; a name or a space as it is."""
    return os.fspath(search_space) if isinstance(search_space, os.PathLike) else search_space


def as_names(backbones: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (backbones,) if isinstance(backbones, str) else tuple(backbones)


def as_paths(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """One path or several, as a tuple."""
    return (Path(paths),) if isinstance(paths, str | os.PathLike) else tuple(Path(path) for path in paths)


def check_settings(settings: FitSettings) -> list[Problem]:
    """Every problem of the settings that can be seen without looking at a file."""
    resources = settings.resources
    checks = (
        (
            MINIMUM_TIMEOUT <= settings.budget.timeout <= MAXIMUM_TIMEOUT,
            "timeout",
            f"{settings.budget.timeout:g} seconds",
            f"at least {MINIMUM_TIMEOUT:g} seconds and at most a year, as a number or as 90s, 10m, 1.5h",
        ),
        (
            settings.budget.n_trials is None or settings.budget.n_trials >= 1,
            "n_trials",
            str(settings.budget.n_trials),
            "a whole number from 1, or None for as many as the time allows",
        ),
        (
            settings.metric == "auto" or settings.metric in METRICS,
            "metric",
            repr(settings.metric),
            "auto, " + ", ".join(METRICS),
        ),
        (
            settings.device != "cpu" or not resources.gpus_per_trial,
            "gpus_per_trial",
            f"{resources.gpus_per_trial}, and device cpu",
            "0 with device cpu, or another device",
        ),
        (0 <= settings.seed <= MOST_SEED, "seed", str(settings.seed), f"a whole number from 0 to {MOST_SEED}"),
        (0.05 <= settings.val_fraction <= 0.5, "val_fraction", f"{settings.val_fraction:g}", "0.05 to 0.5"),
        (len(settings.backbones) > 0, "backbones", "an empty list", "auto, or one name or more"),
        (resources.slots is None or resources.slots >= 1, "slots", str(resources.slots), "from 1"),
        (
            resources.cpus_per_trial is None or resources.cpus_per_trial >= 1,
            "cpus_per_trial",
            str(resources.cpus_per_trial),
            "from 1",
        ),
        (
            resources.gpus_per_trial is None or _is_a_share_of_gpus(resources.gpus_per_trial),
            "gpus_per_trial",
            str(resources.gpus_per_trial),
            "0 to 1, or a whole number above it",
        ),
    )
    return [Problem("settings", where, found, allowed) for fine, where, found, allowed in checks if not fine]


def _is_a_share_of_gpus(asked: float) -> bool:
    """Ray divides one GPU among trials, but gives none a GPU and a half."""
    return 0 <= asked <= 1 or (asked > 1 and float(asked).is_integer())
