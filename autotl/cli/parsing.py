"""What the files of commands add themselves to."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from autotl.settings import DEVICES

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_device(command: argparse.ArgumentParser) -> None:
    """Add the option that says where models run."""
    command.add_argument(
        "--device", default="auto", metavar="NAME", help=f"{', '.join(DEVICES)} (default: auto, a GPU if there is one)"
    )
