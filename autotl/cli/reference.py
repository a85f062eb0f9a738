"""`autotl reference`."""

from __future__ import annotations

import argparse

from autotl.cli.output import print_text
from autotl.cli.parsing import Commands


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    command = commands.add_parser("reference", help="make a file to measure similarity to data of your own with")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="embed photographs and write the file")
    build.add_argument("--images", required=True, metavar="DIR", help="photographs at any depth, best in class folders")
    build.add_argument("--backbone", required=True, metavar="NAME[=FILE]", help="what to embed them with")
    build.add_argument("--name", metavar="TEXT", help="what they stand for (default: the folder's name)")
    build.add_argument("--output", required=True, metavar="FILE", help="a new file")
    build.add_argument("--allow-download", action="store_true", help="fetch missing weights from the model hub")
    build.set_defaults(run=_reference_build)


def _reference_build(chosen: argparse.Namespace) -> None:
    from autotl.api import build_reference_set

    made = build_reference_set(
        chosen.images,
        chosen.backbone,
        chosen.output,
        name=chosen.name,
        allow_download=chosen.allow_download,
        quiet=False,
    )
    print_text(
        f"{len(made.class_names)} photographs of {len(set(made.class_names))} classes of {made.name} in "
        f"{chosen.output}; use it with autotl advise DIR --reference {chosen.output}"
    )
