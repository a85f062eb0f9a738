"""Whatever goes wrong, the user is told what there is: a model that was found is not lost for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from autotl.console import Console
from autotl.errors import AutotlError, refused
from autotl.storage.rundir import RunDir

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


@contextmanager
def told(run: RunDir) -> Iterator[None]:
    """Name the best model so far, where there is one, in the notes of whatever exception leaves this.

    Raises:
        MachineError: for an OSError, whichever step met it: a full disk, a file that vanished, no permission.
    """
    try:
        yield
    except Exception as error:
        log.exception("the call ended early")
        raised = refused(error) if isinstance(error, OSError) else error
        if run.has_model and not (isinstance(raised, AutotlError) and str(run.path) in str(raised)):
            raised.add_note(f"the best model so far is in {run.path}: autotl predict {run.path} IMAGES...")
        if raised is error:
            raise
        raise raised from error
