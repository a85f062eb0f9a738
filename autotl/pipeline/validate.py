"""What a call was given, checked as a whole before anything expensive starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autotl.advice.reference_set import ReferenceSet, load_reference_set
from autotl.data.folder import Listing, list_folder
from autotl.errors import BackboneError, Problem, SettingsError, SpaceError, raise_if_any
from autotl.models.catalog import BackboneEntry, find_entry, load_catalog
from autotl.models.weights import is_available, locate
from autotl.pipeline.earlier_runs import EarlierRun, find_earlier_runs
from autotl.result import Callback
from autotl.settings import DEVICES, FitSettings, check_settings
from autotl.space.files import load_space, space_from_plain
from autotl.space.search_space import SearchSpace
from autotl.storage import rundir

EVENTS = ("on_advice", "on_trial", "on_end")
"""The methods of `autotl.result.Callback`."""


@dataclass(frozen=True, slots=True)
class ValidInput:
    """Input without problems.

    Attributes:
        listing: the images.
        entries: the backbones asked for, with the models of earlier runs; none: all that are here, and those.
        space: None: the one that the advice names.
        reference: None: the one shipped.
        earlier_runs: whose models are backbones as well.
    """

    listing: Listing
    entries: tuple[BackboneEntry, ...]
    space: SearchSpace | None
    reference: ReferenceSet | None = None
    earlier_runs: tuple[EarlierRun, ...] = ()


def validate(settings: FitSettings, callbacks: Sequence[Callback] = ()) -> ValidInput:
    """Check everything the user gave.

    Raises:
        InputError: with all problems.
    """
    problems = [*check_settings(settings), *check_device(settings.device), *_check_callbacks(callbacks)]
    space, found = _find_space(settings.search_space)
    problems += found
    earlier_runs, found = find_earlier_runs(settings.reuse)
    problems += found
    names = settings.backbones
    if names == ("auto",) and space is not None:
        names = space.backbones
    entries, found = _find_entries(names, earlier_runs, settings.allow_download)
    problems += found
    reference, found = _find_reference_set(settings.reference, settings.allow_download)
    problems += found
    if settings.output_dir is not None:
        problems += rundir.check_free(settings.output_dir)
    listing, found = list_folder(settings.dataset_dir, skip_unreadable=settings.skip_unreadable)
    problems += _check_metric(settings, listing)
    raise_if_any([*problems, *found])
    return ValidInput(listing, entries, space, reference, earlier_runs)


def check_device(name: str) -> list[Problem]:
    """A problem if there is no such device, or not on this machine."""
    if name not in DEVICES:
        return [Problem("settings", "device", repr(name), ", ".join(DEVICES))]
    if name != "cuda":
        return []
    import torch  # here, so that other problems are told without waiting for it

    if torch.cuda.is_available():
        return []
    found = f"{name}, and torch {torch.__version__} sees no GPU"
    remedy = "use auto or cpu, or install a torch with CUDA and the GPU's driver"
    return [Problem("settings", "device", found, remedy=remedy)]


def _check_callbacks(callbacks: Sequence[Callback]) -> list[Problem]:
    problems = []
    for place, callback in enumerate(callbacks):
        missing = [event for event in EVENTS if not callable(getattr(callback, event, None))]
        if missing:
            found = f"{type(callback).__name__} has no method {', '.join(missing)}"
            allowed = f"an object with {', '.join(EVENTS)}, such as a subclass of autotl.Callback"
            problems.append(Problem("settings", f"callbacks[{place}]", found, allowed))
    return problems


def _find_space(asked: str | SearchSpace) -> tuple[SearchSpace | None, list[Problem]]:
    """The space asked for, as far as it can be used; None for "auto"."""
    try:
        if isinstance(asked, SearchSpace):  # made or changed by the caller: checked like a file
            return space_from_plain(asked.to_plain(), where=f"search_space {asked.name}"), []
        return (None if asked == "auto" else load_space(asked)), []
    except SpaceError as error:
        return None, list(error.problems)


def _find_entries(
    names: tuple[str, ...], earlier_runs: tuple[EarlierRun, ...], allow_download: bool
) -> tuple[tuple[BackboneEntry, ...], list[Problem]]:
    """The backbones called `names` and, beside them, the models of earlier runs; none for "auto"."""
    if names == ("auto",):
        return (), []
    reused = {earlier.entry.name: earlier.entry for earlier in earlier_runs}
    entries: list[BackboneEntry] = []
    problems: list[Problem] = []
    for name in names:
        try:
            if name not in reused:  # the space of an earlier run names the runs that it reused, too
                entries.append(_find_backbone(name, allow_download))
        except BackboneError as error:
            problems += error.problems
    entries += reused.values()
    problems += _check_repeats(entry.name for entry in entries)
    return tuple(entries), problems


def _check_repeats(names: Iterable[str]) -> list[Problem]:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    return [Problem("backbone", name, "is named more than once", "each backbone once") for name in repeated]


def _check_metric(settings: FitSettings, listing: Listing) -> list[Problem]:
    in_val = {image.label for image in listing.images if image.split == "val"}
    if settings.metric != "roc_auc" or len(in_val) != 1:
        return []
    where = f"dataset {settings.dataset_dir}"
    return [Problem("dataset", where, "val holds a single class; ROC AUC needs two", "2 classes or more")]


def _find_reference_set(path: Path | None, allow_download: bool) -> tuple[ReferenceSet | None, list[Problem]]:
    """The reference set in a file, if its backbone can be loaded and made it as pretrained."""
    if path is None:
        return None, []
    try:
        reference = load_reference_set(path)
        if reference.weights_sha256:
            found = "was made by the model of a run, and measures nothing with other weights"
            return None, [Problem("settings", f"reference {path}", found, remedy="reuse that run instead")]
        _find_backbone(reference.backbone, allow_download)
    except BackboneError as error:
        return None, [replace(problem, where=f"reference {path}: {problem.where}") for problem in error.problems]
    except SettingsError as error:
        return None, list(error.problems)
    return reference, []


def _find_backbone(name: str, allow_download: bool) -> BackboneEntry:
    entry = find_entry(name)
    if not (entry.weights == "hub" and allow_download):
        locate(entry)
    return entry


def available_backbones() -> tuple[BackboneEntry, ...]:
    """The catalog's backbones whose weights can be loaded here without the network, the cheapest first."""
    return tuple(sorted((entry for entry in load_catalog() if is_available(entry)), key=lambda entry: entry.gmacs))
