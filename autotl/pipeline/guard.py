"""What comes after the search must not lose what the search found."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from autotl.console import Console

log = logging.getLogger(__name__)


@contextmanager
def guarded(console: Console, consequence: str) -> Iterator[None]:
    """Whatever fails inside is told, with its traceback in the log, and the run goes on; Ctrl-C passes.

    Args:
        console: where it is told.
        consequence: what there will not be.
    """
    try:
        yield
    except Exception as error:
        log.warning("%s", consequence, exc_info=True)
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        console.line(f"  {consequence} ({why}); the model is not affected", "yellow")
