"""The wheel, installed into a folder of its own: everything that autotl reads at run time is inside."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hatchling", reason="the wheel is built without a download")

CHECKOUT = Path(__file__).resolve().parents[2]
LOOK = """
import json, autotl
from autotl.advice.reference_set import load_reference_set
from autotl.models.catalog import load_catalog
from autotl.space.files import load_space, shipped_names, spaces_dir
print(json.dumps({
    "autotl": autotl.__file__,
    "spaces_dir": str(spaces_dir()),
    "spaces": [load_space(name).name for name in shipped_names()],
    "catalog": len(load_catalog()),
    "reference_set": load_reference_set().backbone,
}))
"""


@pytest.fixture(scope="module")
def wheel(commands: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, CHECKOUT)
    done = commands.run_program(*build, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(commands: Any, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    install = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel)
    done = commands.run_program(*install, cwd=wheel.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_it_holds_the_data_files_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("models/backbones.toml", "advice/imagenet1k-lite0.npz", "py.typed", "search_spaces/default.toml"):
        assert f"autotl/{name}" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"autotl"}


def test_its_own_files_are_found(commands: Any, installed: Path, tmp_path: Path) -> None:
    done = commands.run_program(sys.executable, "-c", LOOK, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert Path(seen["autotl"]).is_relative_to(installed)
    assert Path(seen["spaces_dir"]).is_relative_to(installed)
    assert seen["spaces"] == sorted(path.stem for path in (CHECKOUT / "search_spaces").glob("*.toml"))
    assert seen["catalog"] >= 3
    assert seen["reference_set"] == commands.LITE0


def test_its_command_line_works(commands: Any, installed: Path, tmp_path: Path) -> None:
    done = commands.run("--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    for word in ("fit", "advise", "predict", "evaluate", "spaces", "backbones", "example"):
        assert word in done.stdout
    done = commands.run("spaces", "show", "quick", cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.stdout == (CHECKOUT / "search_spaces" / "quick.toml").read_text("utf-8")


def test_it_predicts_with_a_run_of_the_checkout(
    commands: Any, installed: Path, json_fit: tuple[Path, Any], dataset: Path, tmp_path: Path
) -> None:
    image = dataset / "test" / "circle" / "00.png"
    done = commands.run("predict", json_fit[0], image, "--format", "json", cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["path"] == str(image)
