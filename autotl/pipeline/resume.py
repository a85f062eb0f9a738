"""What earlier sessions of a run left, for one more: its settings, its trials, and what must not have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotl.data.splits import Dataset
from autotl.errors import InputError, Problem, RunFolderError, SpaceError
from autotl.models.catalog import BackboneEntry
from autotl.pipeline.validate import ValidInput, available_backbones
from autotl.predicates import shown
from autotl.records import TrialRecord
from autotl.settings import Budget, FitSettings, Resources
from autotl.space.files import load_space, space_from_plain
from autotl.space.search_space import SearchSpace
from autotl.storage.rundir import RunDir, read_json, write_json

HAVE_TO_BE_THE_SAME = ("autotl", "torch", "timm", "optuna", "numpy", "scikit-learn")
"""Packages that decide what a config scores, or what a study means."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What there is.

    Attributes:
        records: of all trials, in the order in which they ended.
        data: what `describe` said of the data of the first session.
        space: that was searched; None where no search had begun.
    """

    records: tuple[TrialRecord, ...]
    data: Mapping[str, Any]
    space: SearchSpace | None

    @property
    def session(self) -> int:
        """The number of the session that goes on from here; the first is 1."""
        return 1 + max(record.session for record in self.records)

    @property
    def backbones(self) -> tuple[str, ...]:
        """Those that were probed, in that order."""
        return tuple(record.config["backbone"] for record in self.records if record.origin == "probe")

    def entries(self, entries: Mapping[str, BackboneEntry]) -> tuple[BackboneEntry, ...]:
        """The same backbones once more.

        Raises:
            RunFolderError: if the weights of one are no longer here.
        """
        gone = [name for name in self.backbones if name not in entries]
        if gone:
            found = f"the weights of {', '.join(gone)} are no longer here"
            raise RunFolderError([Problem("run folder", "resume", found, remedy="install them again, or fit anew")])
        return tuple(entries[name] for name in self.backbones)


def read_earlier(run: RunDir) -> Earlier:
    """What earlier sessions left in a run folder.

    Raises:
        RunFolderError: if there is nothing to go on from.
    """
    try:
        records = tuple(TrialRecord.from_json(plain) for plain in run.read_trials())
        data = read_json(run.data)
        space = load_space(str(run.space)) if run.space.exists() else None
    except (RunFolderError, SpaceError, KeyError, TypeError, ValueError) as error:
        raise _nothing(run, f"cannot be read ({error})") from error
    if not records or not run.has_model:
        raise _nothing(run, "has no trial to go on from")
    return Earlier(records, data, space)


def _nothing(run: RunDir, found: str) -> RunFolderError:
    remedy = "fit the data anew, into another folder"
    return RunFolderError([Problem("run folder", f"resume {run.path}", found, remedy=remedy)])


def earlier_settings(run: RunDir, versions: Mapping[str, str], timeout: float, n_trials: int | None) -> FitSettings:
    """What the run was asked for, with the time for one more session.

    Args:
        run: whose settings are read.
        versions: of the packages that are installed now.
        timeout: seconds.
        n_trials: of this session at most; None for as many as fit.

    Raises:
        RunFolderError: with every package that is another now, or if the settings cannot be read.
    """
    changed = [Problem("run folder", f"resume {run.path}", found) for found in changed_versions(run, versions)]
    if changed:
        last = replace(changed[-1], remedy="install the same, or fit the data anew: scores could not be compared")
        raise RunFolderError([*changed[:-1], last])
    return replace(read_settings(run), budget=Budget(timeout, n_trials), output_dir=run.path)


def changed_versions(run: RunDir, versions: Mapping[str, str]) -> list[str]:
    """A sentence for every package of `HAVE_TO_BE_THE_SAME` that is another now.

    Args:
        run: whose settings say what it was made with.
        versions: of the packages that are installed now.

    Raises:
        RunFolderError: if the settings cannot be read.
    """
    before = read_json(run.settings).get("versions")
    before = before if isinstance(before, dict) else {}
    return [
        f"made with {name} {before.get(name)}, now it is {versions[name]}"
        for name in HAVE_TO_BE_THE_SAME
        if before.get(name) != versions[name]
    ]


def read_settings(run: RunDir) -> FitSettings:
    """What the run was asked for.

    Raises:
        RunFolderError: if that cannot be read.
    """
    try:
        return settings_from_json(read_json(run.settings))
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise _nothing(run, f"its settings cannot be read ({error})") from error


def settings_from_json(plain: dict[str, Any]) -> FitSettings:
    """What `FitSettings.to_json` gave; keys that are not of `FitSettings` are left out.

    Raises:
        KeyError, TypeError, ValueError: if it is something else.
        SpaceError: if it holds a space that is none.
    """
    known = {name: plain[name] for name in FitSettings.__slots__}
    space = known["search_space"]
    if not isinstance(space, str | dict):
        raise TypeError(f"search_space is {shown(space, 60)}")
    optional = {name: None if known[name] is None else Path(known[name]) for name in ("output_dir", "reference")}
    return FitSettings(
        **known
        | optional
        | {
            "dataset_dir": Path(known["dataset_dir"]),
            "budget": Budget(**known["budget"]),
            "search_space": space if isinstance(space, str) else space_from_plain(space, "settings.json"),
            "backbones": tuple(known["backbones"]),
            "resources": Resources(**known["resources"]),
            "reuse": tuple(map(Path, known["reuse"])),
        }
    )


def inputs_of(inputs: ValidInput, earlier: Earlier) -> ValidInput:
    """The input of the new session: the space that was searched, and the backbones that were probed.

    Raises:
        RunFolderError: if the weights of one are no longer here.
    """
    return replace(inputs, entries=earlier.entries(entries_here(inputs)), space=earlier.space or inputs.space)


def entries_here(inputs: ValidInput) -> dict[str, BackboneEntry]:
    """The backbones whose weights are here, those of reused runs among them, by name."""
    reused = tuple(run.entry for run in inputs.earlier_runs)
    return {entry.name: entry for entry in (*(inputs.entries or available_backbones()), *reused)}


def describe(dataset: Dataset, share: float, store_size: int) -> dict[str, Any]:
    """What must not change between sessions.

    Args:
        dataset: with its splits.
        share: of the training and validation images that is used; 1 for all.
        store_size: side of the decoded images in pixels.
    """
    counts = {name: len(dataset.indices(name)) for name in ("train", "val", "test")}
    return {"fingerprint": dataset.fingerprint(), "images": counts, "share": share, "store_size": store_size}


def keep_or_compare(run: RunDir, earlier: Earlier | None, found: Mapping[str, Any]) -> None:
    """Keep what the data is in the first session; later, see that it is the same.

    Raises:
        RunFolderError: if files, sizes, labels or the split are others now.
    """
    if earlier is None:
        write_json(run.data, found)
        return
    if found["fingerprint"] == earlier.data.get("fingerprint"):
        return
    before, now = earlier.data.get("images"), found["images"]
    what = f"images were {_counted(before)}, and are {_counted(now)}" if before != now else "files have changed"
    remedy = "put the data back as it was, or fit it anew: validation scores could not be compared"
    raise RunFolderError(
        [Problem("run folder", f"resume {run.path}", f"its data is another now: {what}", remedy=remedy)]
    )


def _counted(images: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in images.items()) if isinstance(images, dict) else "unknown"
