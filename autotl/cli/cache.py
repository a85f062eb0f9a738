"""`autotl cache` and `autotl example`."""

from __future__ import annotations

import argparse
from pathlib import Path

from autotl.cli.output import print_text
from autotl.cli.parsing import Commands
from autotl.errors import Problem, SettingsError


def add_commands(commands: Commands) -> None:
    """Add both to the command line."""
    _add_cache(commands)
    _add_example(commands)


def _add_cache(commands: Commands) -> None:
    command = commands.add_parser("cache", help="show or empty what runs share: embeddings, converted models")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("show", help="where it is and how large").set_defaults(run=_cache_show)
    actions.add_parser("clear", help="remove all of it").set_defaults(run=_cache_clear)


def _cache_show(chosen: argparse.Namespace) -> None:
    from autotl.storage.cache import FOLDER_VARIABLE, DiskCache, default_folder

    cache = DiskCache(default_folder())
    entries = cache.entries()
    size = sum(entry.size for entry in entries) / 2**30
    print_text(f"{cache.folder} (set {FOLDER_VARIABLE} to move it)")
    print_text(f"{len(entries)} files, {size:.2f} of at most {cache.limit / 2**30:.0f} GiB")


def _cache_clear(chosen: argparse.Namespace) -> None:
    from autotl.storage.cache import DiskCache, default_folder
    from autotl.storage.leftovers import sweep

    for folder in sweep():
        print_text(f"{folder} removed: a fit that was killed left it")
    print_text(f"{DiskCache(default_folder()).clear() / 2**30:.2f} GiB freed")


def _add_example(commands: Commands) -> None:
    command = commands.add_parser("example", help="write an example data set as a folder of images")
    command.add_argument("name", choices=("digits",), help="digits: 1,797 handwritten digits of scikit-learn")
    command.add_argument("target", metavar="DIR", help="a new or empty folder")
    command.set_defaults(run=_example)


def _example(chosen: argparse.Namespace) -> None:
    from autotl.data.example import write_digits

    target = Path(chosen.target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingsError([Problem("settings", f"DIR {target}", "exists already", "a new or empty folder")])
    try:
        counts = write_digits(target)
    except OSError as error:
        raise SettingsError([Problem("settings", f"DIR {target}", f"cannot be written ({error})")]) from error
    print_text(
        f"{sum(counts.values())} images in {target}: " + ", ".join(f"{n} {split}" for split, n in counts.items())
    )
