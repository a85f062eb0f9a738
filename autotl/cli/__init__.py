"""The `autotl` command: a file a group of commands.

Exit codes: 0 done (also where Ctrl-C ended a search that has a model), 1 failed (also where `reproduce` did not reach
the score), 2 bad input, 130 interrupted before there was anything, 143 and 129 ended by SIGTERM and SIGHUP (with a
model, where there was one by then).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from autotl.cli import backbones, cache, fit, predict, reference, spaces
from autotl.cli.output import print_failure
from autotl.errors import AutotlError, InputError, MachineError, refused
from autotl.interrupt import told_to_end

GROUPS = (fit, predict, spaces, backbones, reference, cache)
"""In the order of the help."""


DEBUG = "--debug"
BROKEN_PIPE = 141
"""The exit code of a program that SIGPIPE ended, as other commands in a pipeline have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    code = _run(arguments)
    if told_to_end() is not None:
        _leave_at_once(code)
    return code


def _leave_at_once(code: int) -> None:
    """Without Python's own ending: Ray's threads would wait in it for servers that the same signal may have ended."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in words  # wherever it stands
    chosen = _make_parser().parse_args([word for word in words if word != DEBUG])
    failed: BaseException
    try:
        _see_where_we_are()
        own = chosen.run(chosen)  # the exit code of a command that did what it should, and has a verdict; else None
    except BrokenPipeError:  # `| head` has seen enough
        return BROKEN_PIPE
    except KeyboardInterrupt:
        failed, code = AutotlError("interrupted"), 128 + (told_to_end() or signal.SIGINT)
    except InputError as error:
        failed, code = error, 2
    except AutotlError as error:
        failed, code = error, 1
    except OSError as error:
        failed, code = refused(error), 1
        failed.__cause__ = error
    except Exception as error:  # nobody foresaw it: say what happened, and what there is nevertheless
        failed, code = _unforeseen(error), 1
    else:
        ended_by = told_to_end()
        return own or 0 if ended_by is None else 128 + ended_by
    if debug:
        traceback.print_exception(failed)
    print_failure(failed, as_json=getattr(chosen, "json", False) or getattr(chosen, "format", "") == "json")
    return code


def _see_where_we_are() -> None:
    """Libraries end the process as they are loaded where the current folder is gone.

    Raises:
        MachineError: if it is.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise MachineError("the current folder is no longer there\n    → change to one that is") from error


def _unforeseen(error: Exception) -> AutotlError:
    first = next(iter(str(error).strip().splitlines()), "")
    told = AutotlError(
        f"unexpected {type(error).__name__}: {first}\n    → this is a fault of autotl; --debug shows where"
    )
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    told.__cause__ = error
    return told


def _make_parser() -> argparse.ArgumentParser:
    from autotl import __version__

    parser = argparse.ArgumentParser(
        prog="autotl",
        description="Advice and automatic tuning for transfer learning on images.",
        epilog="DIR holds DIR/CLASS/images, or DIR/train/CLASS/images with optional val and test beside train.",
    )
    parser.add_argument(DEBUG, action="store_true", help="show the traceback of what goes wrong")
    parser.add_argument("--version", action="version", version=f"autotl {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add_commands(commands)
    return parser
