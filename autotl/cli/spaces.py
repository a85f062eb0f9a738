"""`autotl spaces`."""

from __future__ import annotations

import argparse
from pathlib import Path

from autotl.cli.output import print_text
from autotl.cli.parsing import Commands
from autotl.errors import Problem, SpaceError


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    command = commands.add_parser("spaces", help="list, show, copy or check search spaces")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="the shipped spaces").set_defaults(run=_spaces_list)
    show = actions.add_parser("show", help="print a space")
    copy = actions.add_parser("copy", help="copy a space to a file of your own")
    check = actions.add_parser("check", help="check a TOML file of your own")
    for action in (show, copy, check):
        action.add_argument("space", metavar="NAME", help="a shipped space's name or a TOML file")
    copy.add_argument("target", metavar="FILE", help="to write, a new one")
    show.set_defaults(run=_spaces_show)
    copy.set_defaults(run=_spaces_copy)
    check.set_defaults(run=_spaces_check)


def _spaces_list(chosen: argparse.Namespace) -> None:
    from autotl.console import Console
    from autotl.space.files import load_space, shipped_names

    Console().table(("space", "what it is for"), [(name, load_space(name).description) for name in shipped_names()])


def _spaces_show(chosen: argparse.Namespace) -> None:
    print_text(_read_space(chosen.space))


def _read_space(name: str) -> str:
    from autotl.space.files import find_space

    path = find_space(name)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError([Problem("space", str(path), f"cannot be read ({error})")]) from error


def _spaces_copy(chosen: argparse.Namespace) -> None:
    target = Path(chosen.target)
    if target.exists():
        raise SpaceError([Problem("space", str(target), "exists already", "the name of a new file")])
    text = _read_space(chosen.space)
    try:
        target.write_text(text, "utf-8")
    except OSError as error:
        raise SpaceError([Problem("space", str(target), f"cannot be written ({error})")]) from error
    print_text(f"{chosen.space} copied to {target}; use it with autotl fit --space {target}")


def _spaces_check(chosen: argparse.Namespace) -> None:
    from autotl.space.files import load_space

    space = load_space(chosen.space)
    print_text(f"{chosen.space}: fine, {len(space.parameters)} parameters, fingerprint {space.fingerprint()}")
