"""What a fit was given, looked at as a whole before anything expensive starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from autotl.advice.reference_set import Yardstick, load_yardstick
from autotl.data.folder import Listing, list_folder
from autotl.errors import BackboneError, InputError, Problem, SettingsError, raise_if_any
from autotl.models.catalog import BackboneEntry, find_entry, load_catalog
from autotl.models.weights import is_available, locate
from autotl.pipeline.earlier_runs import OwnSource, find_sources
from autotl.settings import FitSettings, check_settings
from autotl.space.files import load_space
from autotl.space.search_space import SearchSpace
from autotl.storage import rundir


@dataclass(frozen=True, slots=True)
class Checked:
    """Input without problems.

    Attributes:
        listing: the images.
        entries: the backbones asked for, sources among them; none: all that are here, and sources.
        space: None: the one that the advice names.
        yardstick: None: the one shipped.
        sources: models of earlier runs.
    """

    listing: Listing
    entries: tuple[BackboneEntry, ...]
    space: SearchSpace | None
    yardstick: Yardstick | None = None
    sources: tuple[OwnSource, ...] = ()


def check(settings: FitSettings) -> Checked:
    """Look at everything the user gave.

    Raises:
        InputError: with all problems.
    """
    problems = check_settings(settings)
    space = None
    try:
        space = None if settings.search_space == "auto" else load_space(settings.search_space)
    except InputError as error:
        problems += error.problems
    names = settings.backbones
    if names == ("auto",) and space is not None:
        names = space.backbones
    sources, wrong = find_sources(settings.sources)
    problems += wrong
    own = {source.entry.name: source.entry for source in sources}
    entries: list[BackboneEntry] = []
    for name in names if names != ("auto",) else ():
        try:
            if name not in own:  # the space of an earlier run names its sources, too
                entries.append(_find_backbone(name, settings.allow_download))
        except BackboneError as error:
            problems += error.problems
    if names != ("auto",):
        entries += own.values()
    names_found = [entry.name for entry in entries]
    for name in sorted({name for name in names_found if names_found.count(name) > 1}):
        problems.append(Problem("backbone", name, "is named more than once", "each backbone once"))
    yardstick = None
    if settings.yardstick is not None:
        yardstick, found = _find_yardstick(settings.yardstick, settings.allow_download)
        problems += found
    if settings.output_dir is not None:
        problems += rundir.check_free(settings.output_dir)
    listing, found = list_folder(settings.dataset_dir, skip_unreadable=settings.skip_unreadable)
    in_val = {image.label for image in listing.images if image.split == "val"}
    if settings.metric == "roc_auc" and len(in_val) == 1:
        where = f"dataset {settings.dataset_dir}"
        problems.append(Problem("dataset", where, "val holds a single class; ROC AUC needs two", "2 classes or more"))
    raise_if_any([*problems, *found])
    return Checked(listing, tuple(entries), space, yardstick, sources)


def _find_yardstick(path: Path, allow_download: bool) -> tuple[Yardstick | None, list[Problem]]:
    """The yardstick in a file, if its backbone can be loaded and made it as pretrained."""
    try:
        yardstick = load_yardstick(path)
        if yardstick.weights_sha256:
            found = "was made by the model of a run, and measures nothing with other weights"
            return None, [Problem("settings", f"yardstick {path}", found, remedy="name that run as a source instead")]
        _find_backbone(yardstick.backbone, allow_download)
    except BackboneError as error:
        return None, [replace(one, where=f"yardstick {path}: {one.where}") for one in error.problems]
    except SettingsError as error:
        return None, list(error.problems)
    return yardstick, []


def _find_backbone(name: str, allow_download: bool) -> BackboneEntry:
    entry = find_entry(name)
    if not (entry.weights == "hub" and allow_download):
        locate(entry)
    return entry


def available_backbones() -> tuple[BackboneEntry, ...]:
    """The catalog's backbones whose weights can be loaded here without the network, the cheapest first."""
    return tuple(sorted((entry for entry in load_catalog() if is_available(entry)), key=lambda entry: entry.gmacs))
