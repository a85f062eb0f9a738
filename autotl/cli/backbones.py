"""`autotl backbones`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from autotl.cli.output import print_json
from autotl.cli.parsing import Commands


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    command = commands.add_parser("backbones", help="list the backbones on offer")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the catalog, with what can be loaded here")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_backbones_list)


def _backbones_list(chosen: argparse.Namespace) -> None:
    from autotl.console import Console
    from autotl.models.catalog import load_catalog
    from autotl.models.weights import is_available

    entries = load_catalog()
    here = {entry.name: is_available(entry) for entry in entries}
    if chosen.json:
        print_json([asdict(entry) | {"available": here[entry.name]} for entry in entries])
        return
    columns = ("backbone", "here", "weights", "params M", "GMACs", "top-1%", "input", "stages", "licence")
    rows = [
        (
            entry.name,
            "yes" if here[entry.name] else "-",
            entry.weights,
            f"{entry.parameters_m:.1f}",
            f"{entry.gmacs:.2f}",
            f"{entry.top1:.1f}",
            str(entry.input_size),
            str(entry.stages),
            entry.licence,
        )
        for entry in entries
    ]
    Console().table(columns, rows)
