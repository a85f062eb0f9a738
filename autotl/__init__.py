"""autotl: advice and automatic tuning for transfer learning on images.

    import autotl
    result = autotl.fit("photos", timeout="10m")
    result.predictor.predict("new.jpg")

Importing this package is cheap: torch, timm and Ray are loaded when they are needed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from autotl.errors import (
    AutotlError,
    BackboneError,
    DatasetError,
    InputError,
    MachineError,
    ModelFileError,
    Problem,
    RunFolderError,
    SearchError,
    SettingsError,
    SpaceError,
)

if TYPE_CHECKING:
    from autotl.api import advise, build_reference_set, evaluate, fit, load, reproduce, resume
    from autotl.records import Estimate, Status, TrialRecord
    from autotl.result import Callback, FitResult, Reproduction
    from autotl.settings import Resources
    from autotl.space.files import load_space
    from autotl.space.search_space import SearchSpace

__version__ = "0.1.0"

# What is logged goes to a run's fit.log, and to whoever else asks for it; without this, Python would print it.
logging.getLogger("autotl").addHandler(logging.NullHandler())

__all__ = [
    "AutotlError",
    "BackboneError",
    "Callback",
    "DatasetError",
    "Estimate",
    "FitResult",
    "InputError",
    "MachineError",
    "ModelFileError",
    "Problem",
    "Reproduction",
    "Resources",
    "RunFolderError",
    "SearchError",
    "SearchSpace",
    "SettingsError",
    "SpaceError",
    "Status",
    "TrialRecord",
    "advise",
    "build_reference_set",
    "evaluate",
    "fit",
    "load",
    "load_space",
    "reproduce",
    "resume",
]

_LAZY = {
    "Callback": "autotl.result",
    "Estimate": "autotl.records",
    "FitResult": "autotl.result",
    "Reproduction": "autotl.result",
    "Resources": "autotl.settings",
    "SearchSpace": "autotl.space.search_space",
    "Status": "autotl.records",
    "TrialRecord": "autotl.records",
    "advise": "autotl.api",
    "build_reference_set": "autotl.api",
    "evaluate": "autotl.api",
    "fit": "autotl.api",
    "load": "autotl.api",
    "load_space": "autotl.space.files",
    "reproduce": "autotl.api",
    "resume": "autotl.api",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'autotl' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
