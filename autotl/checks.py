"""What a fit was given, looked at as a whole before anything expensive starts."""

from __future__ import annotations

from dataclasses import dataclass

from autotl import rundir
from autotl.data.folder import Listing, list_folder
from autotl.errors import BackboneError, InputError, Problem, raise_if_any
from autotl.models.catalog import BackboneEntry, find_entry, load_catalog
from autotl.models.weights import is_available, locate
from autotl.settings import FitSettings, check_settings
from autotl.space.files import load_space
from autotl.space.search_space import SearchSpace


@dataclass(frozen=True, slots=True)
class Checked:
    """Input without problems: the images, the backbones asked for (none: all that are here), the space (None: auto)."""

    listing: Listing
    entries: tuple[BackboneEntry, ...]
    space: SearchSpace | None


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
    entries: list[BackboneEntry] = []
    for name in names if names != ("auto",) else ():
        try:
            entries.append(_find_backbone(name, settings.allow_download))
        except BackboneError as error:
            problems += error.problems
    names_found = [entry.name for entry in entries]
    for name in sorted({name for name in names_found if names_found.count(name) > 1}):
        problems.append(Problem("backbone", name, "is named more than once", "each backbone once"))
    if settings.output_dir is not None:
        problems += rundir.check_free(settings.output_dir)
    listing, found = list_folder(settings.dataset_dir, skip_unreadable=settings.skip_unreadable)
    in_val = {image.label for image in listing.images if image.split == "val"}
    if settings.metric == "roc_auc" and len(in_val) == 1:
        where = f"dataset {settings.dataset_dir}"
        problems.append(Problem("dataset", where, "val holds a single class; ROC AUC needs two", "2 classes or more"))
    raise_if_any([*problems, *found])
    return Checked(listing, tuple(entries), space)


def _find_backbone(name: str, allow_download: bool) -> BackboneEntry:
    entry = find_entry(name)
    if not (entry.weights == "hub" and allow_download):
        locate(entry)
    return entry


def available_backbones() -> tuple[BackboneEntry, ...]:
    """The catalog's backbones whose weights can be loaded here without the network, the cheapest first."""
    return tuple(sorted((entry for entry in load_catalog() if is_available(entry)), key=lambda entry: entry.gmacs))
