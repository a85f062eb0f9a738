"""autotl: advice and automatic tuning for transfer learning on images.

    import autotl
    result = autotl.fit("photos", timeout="10m")
    result.predictor.predict("new.jpg")

Importing this package is cheap: torch, timm and Ray are loaded when they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autotl.errors import (
    AutotlError,
    BackboneError,
    DatasetError,
    InputError,
    ModelFileError,
    Problem,
    RunFolderError,
    SearchError,
    SettingsError,
    SpaceError,
)

if TYPE_CHECKING:
    from autotl.api import advise, build_yardstick, evaluate, fit, load
    from autotl.records import Estimate, Status, TrialRecord
    from autotl.result import FitResult
    from autotl.settings import Resources

__version__ = "0.1.0"

__all__ = [
    "AutotlError",
    "BackboneError",
    "DatasetError",
    "Estimate",
    "FitResult",
    "InputError",
    "ModelFileError",
    "Problem",
    "Resources",
    "RunFolderError",
    "SearchError",
    "SettingsError",
    "SpaceError",
    "Status",
    "TrialRecord",
    "advise",
    "build_yardstick",
    "evaluate",
    "fit",
    "load",
]

_LAZY = {
    "advise": "autotl.api",
    "build_yardstick": "autotl.api",
    "evaluate": "autotl.api",
    "fit": "autotl.api",
    "load": "autotl.api",
    "Estimate": "autotl.result",
    "FitResult": "autotl.result",
    "Status": "autotl.result",
    "TrialRecord": "autotl.result",
    "Resources": "autotl.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'autotl' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
