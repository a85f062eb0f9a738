"""What a call was given, checked as a whole before anything expensive starts."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autotl.advice.reference_set import ReferenceSet, load_reference_set
from autotl.data.folder import Listing, list_folder
from autotl.errors import BackboneError, Problem, SettingsError, SpaceError, raise_if_any
from autotl.models.catalog import BackboneEntry, find_entry, load_catalog
from autotl.result import Callback
from autotl.settings import DEVICES, FitSettings, Resources, check_settings
from autotl.space.files import load_space, space_from_plain
from autotl.space.search_space import SearchSpace
from autotl.storage import rundir
from autotl.threads import local_cpus

if TYPE_CHECKING:
    from autotl.pipeline.earlier_runs import EarlierRun

# What needs torch is imported where it is needed: a wrong option is told without waiting for it.

EVENTS = ("on_advice", "on_trial", "on_end")
"""The methods of `autotl.result.Callback`."""
MOST_SLOTS_PER_CORE = 8
"""More trials at once would only wait for one another."""
SETTINGS_FRAME = 4
"""Of HTTP/2."""
ANSWER_SECONDS = 5.0
"""A Ray cluster that does not answer in so many is not there."""


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


def validate(settings: FitSettings, callbacks: Sequence[Callback] = (), *, resumes: bool = False) -> ValidInput:
    """Check everything the user gave.

    Args:
        settings: of the call.
        callbacks: of the call.
        resumes: whether the run folder is that of a run which goes on.

    Raises:
        InputError: with all problems.
    """
    problems = [*check_settings(settings), *check_device(settings.device), *check_resources(settings.resources)]
    problems += _check_callbacks(callbacks)
    space, found = _find_space(settings.search_space)
    problems += found
    earlier_runs, found = _find_earlier_runs(settings.reuse)
    problems += found
    names = settings.backbones
    if names == ("auto",) and space is not None:
        names = space.backbones
    entries, found = _find_entries(names, earlier_runs, settings.allow_download)
    problems += found
    reference, found = _find_reference_set(settings.reference, settings.allow_download)
    problems += found
    if not resumes:
        problems += [] if settings.output_dir is None else rundir.check_free(settings.output_dir)
        problems += _check_output_outside(settings)
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
    import torch

    if torch.cuda.is_available():
        return []
    found = f"{name}, and torch {torch.__version__} sees no GPU"
    remedy = "use auto or cpu, or install a torch with CUDA and the GPU's driver"
    return [Problem("settings", "device", found, remedy=remedy)]


def check_resources(asked: Resources) -> list[Problem]:
    """What this machine does not have, or where no Ray cluster answers."""
    if asked.address is not None:
        return _check_address(asked.address)
    cores = local_cpus()
    problems = []
    if (asked.slots or 0) > MOST_SLOTS_PER_CORE * cores:
        allowed = f"at most {MOST_SLOTS_PER_CORE * cores}: this machine has {cores} cores"
        problems.append(Problem("settings", "slots", str(asked.slots), allowed))
    if (asked.cpus_per_trial or 0) > cores:
        problems.append(Problem("settings", "cpus_per_trial", str(asked.cpus_per_trial), f"1 to {cores}: its cores"))
    if (asked.gpus_per_trial or 0) > 0:
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (asked.gpus_per_trial or 0) > gpus:
            found = f"{asked.gpus_per_trial:g}, and torch sees {gpus} GPUs on this machine"
            problems.append(Problem("settings", "gpus_per_trial", found, f"0 to {gpus}"))
    return problems


def _check_address(address: str) -> list[Problem]:
    """A problem where nothing listens: Ray itself would wait for minutes."""
    if address == "auto" or "://" in address:
        return []
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        return [Problem("settings", "address", repr(address), 'host:port, such as 10.0.0.1:6379, or "auto"')]
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as there:
            answers = "RAY_USE_TLS" in os.environ or _speaks_grpc(there)
        why = "" if answers else "something else does"
    except OSError as error:
        why = str(error)
    if why:
        found = f"{address}: no Ray cluster answers there ({why})"
        remedy = "start one with `ray start --head`, or leave the address out to work on this machine"
        return [Problem("settings", "address", found, remedy=remedy)]
    return []


def _speaks_grpc(there: socket.socket) -> bool:
    """Whether HTTP/2 is understood, over which Ray speaks: its first frame is then one of settings (RFC 9113, 3.4)."""
    there.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS_FRAME, 0, 0, 0, 0, 0]))
    head = there.recv(9)
    return len(head) > 3 and head[3] == SETTINGS_FRAME


def _check_output_outside(settings: FitSettings) -> list[Problem]:
    """A problem if the run folder lies in the data, whose next reading would take it for a class."""
    output = settings.output_dir or Path(rundir.DEFAULT_PARENT)
    root, target = settings.dataset_dir.resolve(), output.resolve()
    if root != target and root not in target.parents:
        return []
    remedy = "name a folder outside it (`output_dir`, --output)"
    return [
        Problem("run folder", f"output_dir {output}", f"lies in the data set {settings.dataset_dir}", remedy=remedy)
    ]


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


def _find_earlier_runs(paths: Sequence[Path]) -> tuple[tuple[EarlierRun, ...], list[Problem]]:
    """The runs to reuse, as far as they can be."""
    if not paths:
        return (), []
    from autotl.pipeline.earlier_runs import find_earlier_runs

    return find_earlier_runs(tuple(paths))


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
    from autotl.models.weights import locate

    entry = find_entry(name)
    if not (entry.weights == "hub" and allow_download):
        locate(entry)
    return entry


def available_backbones() -> tuple[BackboneEntry, ...]:
    """The catalog's backbones whose weights can be loaded here without the network, the cheapest first."""
    from autotl.models.weights import is_available

    return tuple(sorted((entry for entry in load_catalog() if is_available(entry)), key=lambda entry: entry.gmacs))
