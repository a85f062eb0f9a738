"""The public names, and that importing them stays cheap."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import autotl

PUBLIC = [
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
SCRIPT = """
import sys
{code}
heavy = {{"torch", "torchvision", "timm", "ray", "optuna", "scipy", "sklearn"}}
print("loaded:", *sorted(heavy & set(sys.modules)))
"""
HELP = """
from autotl.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
else:
    raise AssertionError("help did not exit")
"""


def test_the_public_names_are_these() -> None:
    assert autotl.__all__ == PUBLIC
    assert dir(autotl) == sorted([*PUBLIC, "__version__"])


def test_no_public_name_is_also_that_of_a_module_which_would_take_its_place_once_imported() -> None:
    modules = {module.name for module in pkgutil.iter_modules(autotl.__path__)}
    assert sorted(modules & set(PUBLIC)) == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_what_it_is_called(name: str) -> None:
    value: Any = getattr(autotl, name)
    assert value.__name__ == name
    assert value.__module__.startswith("autotl.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError) as caught:
        autotl.train_model  # noqa: B018
    assert str(caught.value) == "module 'autotl' has no attribute 'train_model'"


@pytest.mark.parametrize(
    "code",
    [
        "import autotl",
        "from autotl import *",
        "import autotl.cli",
        "import autotl.api, autotl.console, autotl.settings, autotl.space.files, autotl.models.catalog",
        HELP,
    ],
    ids=["package", "star", "command", "modules", "help"],
)
def test_importing_and_asking_for_help_load_nothing_heavy(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(code=code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_what_is_logged_is_not_printed() -> None:
    script = "import autotl, logging; logging.getLogger('autotl.anything').error('told in another way')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
