"""What a call was given, checked as a whole. The command line's tests show every kind of problem in words."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autotl.errors import InputError, SettingsError, SpaceError
from autotl.pipeline.validate import validate
from autotl.settings import Budget, FitSettings, Resources
from autotl.space.files import load_space

LITE0 = "tf_efficientnet_lite0.in1k"


def settings(folder: Path, **changes: Any) -> FitSettings:
    return replace(FitSettings(folder, Budget(600.0), backbones=(LITE0,)), **changes)


def test_a_space_is_taken_as_it_is(shapes: Path) -> None:
    space = load_space("quick").narrow(freeze_depth=(2, 3))
    assert validate(settings(shapes, search_space=space)).space == space


def test_the_backbones_of_a_space_are_those_that_are_searched(shapes: Path) -> None:
    space = load_space("quick").narrow(backbone=(LITE0,))
    inputs = validate(settings(shapes, search_space=space, backbones=("auto",)))
    assert [entry.name for entry in inputs.entries] == [LITE0]


def test_a_space_of_the_callers_is_checked_like_a_file(shapes: Path) -> None:
    wrong = load_space("quick").narrow(batch_size=(32, 1), freeze_depth=("all", 0))
    with pytest.raises(SpaceError) as caught:
        validate(settings(shapes, search_space=wrong))
    assert [problem.where for problem in caught.value.problems] == [
        "search_space quick: [freeze_depth]",
        "search_space quick: [batch_size] choices",
    ]


def test_a_callback_without_all_methods_is_a_problem_beside_the_others(shapes: Path) -> None:
    half: Any = SimpleNamespace(on_trial=print)
    whole: Any = SimpleNamespace(on_advice=print, on_trial=print, on_end=print)
    with pytest.raises(SettingsError) as caught:
        validate(settings(shapes, seed=-1), (whole, half))
    assert [(problem.where, problem.found) for problem in caught.value.problems] == [
        ("seed", "-1"),
        ("callbacks[1]", "SimpleNamespace has no method on_advice, on_end"),
    ]


def test_a_gpu_that_is_not_there_is_a_problem(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError) as caught:
        validate(settings(shapes, device="cuda"))
    (problem,) = caught.value.problems
    assert problem.where == "device"
    assert problem.found.startswith("cuda, and torch")
    assert problem.remedy.startswith("use auto or cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert validate(settings(shapes, device="cuda")).entries


def test_problems_of_all_kinds_come_at_once(tmp_path: Path) -> None:
    asked = settings(tmp_path / "gone", seed=-1, search_space="fast", reuse=(tmp_path / "old",))
    with pytest.raises(InputError) as caught:
        validate(asked)
    assert {problem.area for problem in caught.value.problems} == {"settings", "space", "run folder", "dataset"}


def problems_of(asked: FitSettings) -> list[tuple[str, str]]:
    with pytest.raises(InputError) as caught:
        validate(asked)
    return [(problem.where, problem.found) for problem in caught.value.problems]


def test_what_the_machine_does_not_have_is_a_problem(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("autotl.pipeline.validate.local_cpus", lambda: 2)
    asked = settings(shapes, resources=Resources(slots=100_000, cpus_per_trial=3, gpus_per_trial=1))
    assert problems_of(asked) == [
        ("slots", "100000"),
        ("cpus_per_trial", "3"),
        ("gpus_per_trial", "1, and torch sees 0 GPUs on this machine"),
    ]
    assert validate(settings(shapes, resources=Resources(slots=4, cpus_per_trial=2, gpus_per_trial=0))).entries


def test_a_cluster_is_asked_for_what_this_machine_does_not_have(shapes: Path) -> None:
    with answering(b"\0\0\0\4\0\0\0\0\0") as address:  # as gRPC does: an empty frame of settings
        asked = Resources(address=address, slots=1000, cpus_per_trial=64, gpus_per_trial=8)
        assert validate(settings(shapes, resources=asked)).entries


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """The address of a server that answers the first that comes, whatever it says; with nothing, it is silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                there, _ = server.accept()
                with there:
                    there.recv(100)
                    there.sendall(reply)
                    there.recv(100)  # until the other side has had enough

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("reply", "why"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else does"), (b"", "timed out")]
)
def test_an_address_of_something_else_is_a_problem(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes, why: str
) -> None:
    monkeypatch.setattr("autotl.pipeline.validate.ANSWER_SECONDS", 0.2)
    with answering(reply) as address:
        assert problems_of(settings(shapes, resources=Resources(address=address))) == [
            ("address", f"{address}: no Ray cluster answers there ({why})")
        ]


def test_an_address_where_nothing_listens_is_a_problem(shapes: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    ((where, found),) = problems_of(settings(shapes, resources=Resources(address=address)))
    assert where == "address"
    assert found.startswith(f"{address}: no Ray cluster answers there (")


@pytest.mark.parametrize("address", ["localhost", ":6379", "host:", "host:port", "host:99999", "host:0"])
def test_a_malformed_address_is_a_problem(shapes: Path, address: str) -> None:
    assert problems_of(settings(shapes, resources=Resources(address=address))) == [("address", repr(address))]


def test_a_run_folder_in_the_data_is_a_problem(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = f"lies in the data set {shapes}"
    for output in (shapes / "run", shapes / "train" / "circle" / "run"):
        assert (f"output_dir {output}", found) in problems_of(settings(shapes, output_dir=output))
    monkeypatch.chdir(shapes)  # the default lies below the current folder
    assert problems_of(settings(shapes)) == [("output_dir autotl_runs", found)]
    assert validate(settings(shapes, output_dir=tmp_path / "run")).entries


def test_a_wrong_option_is_told_without_waiting_for_torch(shapes: Path) -> None:
    script = (
        "import sys, autotl\n"
        "try:\n"
        f"    autotl.fit({str(shapes)!r}, seed=-1, timeout=3)\n"
        "except autotl.SettingsError as error:\n"
        "    sys.exit('torch' in sys.modules or len(error.problems) != 2)\n"
        "sys.exit('nothing was wrong')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
