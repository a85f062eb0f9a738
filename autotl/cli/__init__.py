"""The `autotl` command: a file a group of commands. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from autotl.cli import backbones, cache, fit, predict, reference, spaces
from autotl.cli.output import print_failure
from autotl.errors import AutotlError, InputError

GROUPS = (fit, predict, spaces, backbones, reference, cache)
"""In the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    chosen = _make_parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except InputError as error:
        print_failure(str(error))
        return 2
    except AutotlError as error:
        print_failure(str(error))
        return 1
    except KeyboardInterrupt:
        print_failure("interrupted")
        return 130
    return 0


def _make_parser() -> argparse.ArgumentParser:
    from autotl import __version__

    parser = argparse.ArgumentParser(
        prog="autotl",
        description="Advice and automatic tuning for transfer learning on images.",
        epilog="DIR holds DIR/CLASS/images, or DIR/train/CLASS/images with optional val and test beside train.",
    )
    parser.add_argument("--version", action="version", version=f"autotl {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add_commands(commands)
    return parser
