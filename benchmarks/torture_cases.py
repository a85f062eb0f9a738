"""The cases of torture.py: what is run, and what it may do.

A fit that is meant to be refused has no time limit of its own; one that is meant to work has few images and 20 to 40 s.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

AUTOTL = (sys.executable, "-m", "autotl.cli")
LITE0 = "tf_efficientnet_lite0.in1k"
QUICK = ("--backbone", LITE0, "--space", "quick")
NAMELESS = ("unshare", "-U", "--map-user=54321")
"""Runs a command as a user whose id has no name."""
POWERLESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Runs a command without root's right to read and write everything."""


class Skipped(Exception):
    """The case cannot be tried on this machine."""


@dataclass
class Prepared:
    """A case that is ready to run.

    Attributes:
        command: of the process.
        environment: changes; None takes a variable away.
        cwd: where it runs; None for the case's own folder.
        fault: what befalls the process while it runs, with the time by which it has to be over.
        check: what is wrong with what it left, given what it said.
        undo: called afterwards.
    """

    command: Sequence[str]
    environment: dict[str, str | None] = field(default_factory=dict)
    cwd: Path | None = None
    fault: Callable[[subprocess.Popen, float], None] | None = None
    check: Callable[[str], list[str]] | None = None
    undo: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Case:
    """One thing that is tried.

    Attributes:
        kind, name: of the case.
        prepare: makes it ready in a folder of its own.
        codes: exit codes that it may have.
        says: patterns of what it has to say.
        seconds: in which it has to be over.
        fits: whether it takes longer than a few seconds.
        wrapped: a program and its options that run it as somebody else.
        longest: characters of output.
    """

    kind: str
    name: str
    prepare: Callable[[Stage, Path], Prepared]
    codes: tuple[int, ...] = (2,)
    says: tuple[str, ...] = ()
    seconds: float = 60.0
    fits: bool = False
    wrapped: tuple[str, ...] = ()
    longest: int = 6000


class Stage:
    """Data sets and a run that all cases share, and folders of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        write_shapes(self.data, 14)
        self.run = root / "run"
        self._places = 0
        self._shared = root / "shared-cache"
        self._fit()

    def _fit(self) -> None:
        place = self.new_place()
        subprocess.run(
            autotl("fit", self.data, *QUICK, "--timeout", "60s", "--n-trials", "1", "--output", self.run, "--quiet"),
            env=self.environment(place),
            check=True,
            cwd=place / "cwd",
        )

    def new_place(self) -> Path:
        """A folder for a case, with a home, a temporary and a working folder."""
        place = self.root / f"case-{self._places}"
        self._places += 1
        for name in ("home", "tmp", "cwd"):
            (place / name).mkdir(parents=True)
            (place / name).chmod(0o777)
        return place

    def environment(self, place: Path) -> dict[str, str]:
        """Of a case: its own home and temporary folder, a cache that all share, no network."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "LANG")}
        folders = {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "AUTOTL_CACHE_DIR": str(self._shared)}
        return kept | folders | {"HF_HUB_OFFLINE": "1", "TERM": "dumb", "COLUMNS": "100"}

    def fingerprint(self) -> str:
        """Of the shared data set and run."""
        digest = hashlib.sha256()
        for path in sorted(self.data.rglob("*")) + sorted(self.run.rglob("*")):
            if path.name not in (".lock",):
                digest.update(f"{path} {path.stat().st_size}".encode())
        return digest.hexdigest()

    def copy_of_run(self, place: Path) -> Path:
        """The run, to be damaged."""
        return Path(shutil.copytree(self.run, place / "run"))

    def copy_of_data(self, place: Path) -> Path:
        """The data set, to be damaged."""
        return Path(shutil.copytree(self.data, place / "data"))


def autotl(*arguments: object) -> list[str]:
    """The command line."""
    return [*AUTOTL, *map(str, arguments)]


def write_shapes(root: Path, a_class: int) -> None:
    """Three classes of coloured pictures that can be learned."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir(parents=True)
        for place in range(a_class):
            pixels = rng.integers(0, 120, (72, 72, 3), dtype=np.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(root / name / f"{place}.png")


def small_fit(stage: Stage, place: Path, *more: object, data: Path | None = None) -> list[str]:
    """A fit that works, of one trial."""
    options = ("--timeout", "24s", "--n-trials", "1", "--slots", "1", "--output", place / "run")
    return autotl("fit", data or stage.data, *QUICK, *options, *more)


def has_model(place: Path) -> Callable[[str], list[str]]:
    """Complains unless there is a whole run in `place`."""

    def check(output: str) -> list[str]:
        missing = [name for name in ("result.json", "model/model.json") if not (place / "run" / name).exists()]
        wrong = [f"no {name}" for name in missing]
        return wrong + (["the cache is left"] if (place / "run" / "cache").exists() else [])

    return check


def has_nothing(place: Path) -> Callable[[str], list[str]]:
    """Complains if there is a run folder in `place`, which was refused or never had a model."""
    return lambda output: ["a run folder without a model is left"] if (place / "run").exists() else []


# --- options


def option(
    name: str, words: Sequence[object], *says: str, codes: tuple[int, ...] = (2,), seconds: float = 20.0
) -> Case:
    """A fit with wrong options, which is refused before anything is done."""

    def prepare(stage: Stage, place: Path) -> Prepared:
        filled = [str(word).format(data=stage.data, place=place, run=stage.run) for word in words]
        has_data = any(word.startswith(str(stage.data)) or word == "" for word in filled[:1])
        command = autotl("fit", "--output", place / "run", *([] if has_data else [stage.data]), *filled)
        return Prepared(command, check=has_nothing(place))

    return Case("options", name, prepare, codes, says, seconds)


def options() -> Iterator[Case]:
    """Every option with what it cannot be."""
    for value in ("soon", "-5s", "0", "nan", "inf", "10 parsecs", "1e400", "", "5s", "19", "٣"):
        yield option(f"--timeout {value!r}", ["--timeout", value], "timeout")
    for value in ("0", "-1", "1.5", "many", "1e3", "", "nan"):
        yield option(f"--n-trials {value!r}", ["--n-trials", value], "n.trials")
    for value in ("-1", "4294967296", "1.5", "abc", "", "1e400"):
        yield option(f"--seed {value!r}", ["--seed", value], "seed")
    for value in ("0", "1", "-0.1", "1.5", "nan", "inf", "half", "", "0.9999"):
        yield option(f"--val-fraction {value!r}", ["--val-fraction", value], "val.fraction")
    for value in ("0", "-1", "1.5", "100000", "x", ""):
        yield option(f"--slots {value!r}", ["--slots", value], "slots")
    for value in ("0", "-1", "100000", "two"):
        yield option(f"--cpus-per-trial {value!r}", ["--cpus-per-trial", value], "cpus.per.trial")
    for value in ("-1", "99", "nan", "inf", "x"):
        yield option(f"--gpus-per-trial {value!r}", ["--gpus-per-trial", value], "gpus.per.trial")
    for value in ("nowhere", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:99999", ":6379", ""):
        yield option(f"--address {value!r}", ["--address", value], "address")
    yield Case("options", "--address where nothing listens", _nothing_listens, (2,), ("no Ray cluster answers",), 20.0)
    yield Case("options", "--address of something else", _something_else_listens, (1, 2), ("ray",), 60.0)
    for value in ("speed", "", "Accuracy ", "auto,accuracy"):
        yield option(f"--metric {value!r}", ["--metric", value], "metric")
    for value in ("tpu", "cuda:7", "", "CPU"):
        yield option(f"--device {value!r}", ["--device", value], "device")
    for value in ("resnet1", "", "hf-hub:timm/resnet18.a1_in1k", "x=", "x=/nowhere.pth", "tf_efficientnet_lite0.in1k="):
        yield option(f"--backbone {value!r}", ["--backbone", value], "backbone|no such file|not")
    yield option("--backbone twice", ["--backbone", LITE0, "--backbone", LITE0], "more than once")
    for value in ("warp", "", "/nowhere/space.toml", "."):
        yield option(f"--space {value!r}", ["--space", value], "space")
    for value in ("/nowhere", "", "{data}"):
        yield option(f"--reuse {value!r}", ["--reuse", value], "run folder|reuse|model")
    for value in ("/nowhere.npz", "", "{data}"):
        yield option(f"--reference {value!r}", ["--reference", value], "reference")
    yield option("--output in the data", ["--output", "{data}/run"], "lies in the data set")
    yield option("an unknown option", ["--tiemout", "5m"], "tiemout")
    yield option("an empty DIR", [""], "path|folder|dataset")
    yield option("a DIR that is not there", ["{data}/none"], "no such|does not exist|not a folder")
    yield option(
        "all wrong at once",
        ["--seed", "-1", "--timeout", "3s", "--metric", "x", "--device", "y", "--slots", "0"],
        "seed",
        "timeout",
        "metric",
        "device",
        "slots",
    )
    for command in ("advise", "predict", "evaluate", "spaces check", "spaces show", "reference build", "nonsense"):
        words = command.split()
        yield Case(
            "options",
            f"autotl {command} without what it needs",
            lambda stage, place, words=words: Prepared(autotl(*words)),
        )
    for words in (
        ["spaces", "show", "warp"],
        ["spaces", "check", "/nowhere"],
        ["advise", "/nowhere"],
        ["example", "cats", "x"],
    ):
        yield Case(
            "options", shlex.join(["autotl", *words]), lambda stage, place, words=words: Prepared(autotl(*words))
        )


def _nothing_listens(stage: Stage, place: Path) -> Prepared:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Prepared(small_fit(stage, place, "--address", f"127.0.0.1:{port}"), check=has_nothing(place))


def _something_else_listens(stage: Stage, place: Path) -> Prepared:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    command = autotl("fit", stage.data, *QUICK, "--timeout", "20s", "--output", place / "run", "--address", address)
    return Prepared(command, undo=listener.close)


# --- data sets


def folder(
    name: str,
    damage: Callable[[Path], object],
    *says: str,
    codes: tuple[int, ...] = (2,),
    wrapped: tuple[str, ...] = (),
) -> Case:
    """Advice about a data set that was damaged."""

    def prepare(stage: Stage, place: Path) -> Prepared:
        data = stage.copy_of_data(place)
        damage(data)
        return Prepared(autotl("advise", data, "--backbone", LITE0, "--timeout", "20s"))

    return Case("data sets", name, prepare, codes, says, 60.0, fits=0 in codes, wrapped=wrapped)


def folders() -> Iterator[Case]:
    """Folders that are no data sets, or odd ones."""

    def only(data: Path, *names: str) -> None:
        for path in data.iterdir():
            if path.name not in names:
                shutil.rmtree(path)

    yield folder("an empty folder", lambda data: only(data), "no images|no class|holds no")
    yield folder("one class", lambda data: only(data, "red"), "class")
    yield folder(
        "two images", lambda data: [path.unlink() for path in data.rglob("*.png") if path.stem != "0"], "image"
    )
    yield folder("a broken image", lambda data: (data / "red" / "0.png").write_bytes(b"no image"), "0.png")
    yield folder("an empty image", lambda data: (data / "red" / "0.png").write_bytes(b""), "0.png")
    yield folder("half an image", lambda data: _cut(data / "red" / "0.png"), "0.png")
    yield folder("2,000 broken images", _two_thousand_broken, "2,?000")
    yield folder("a pipe among the images", lambda data: os.mkfifo(data / "red" / "pipe.jpg"), "pipe.jpg")
    yield folder("a link to nothing", lambda data: (data / "red" / "gone.png").symlink_to("/nowhere.png"), "gone.png")
    yield folder("a link to itself", lambda data: (data / "red" / "loop").symlink_to(data), codes=(0, 2))
    yield folder("a name that is no UTF-8", _latin_name, codes=(0, 2))
    yield folder("a class that is no UTF-8", _latin_class, codes=(0, 2))
    yield folder(
        "an image of one pixel", lambda data: Image.new("RGB", (1, 1)).save(data / "red" / "tiny.png"), codes=(0, 2)
    )
    yield folder(
        "an image of 60,000 x 1 pixels",
        lambda data: Image.new("RGB", (60000, 1)).save(data / "red" / "long.png"),
        codes=(0, 2),
    )
    yield folder("an image that says it is huge", lambda data: _huge(data / "red" / "huge.png"), "huge.png")
    yield folder("a file in place of the folder", _a_file, "folder|file")
    yield folder("no permission", _no_permission, "permission", codes=(1, 2), wrapped=POWERLESS)
    yield folder(
        "a class without permission", _no_class_permission, "permission|cannot be read|denied", wrapped=POWERLESS
    )
    yield folder("a val without a class", _lame_val, codes=(0, 2))
    yield folder("every image the same", _all_same, codes=(0, 2))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _two_thousand_broken(data: Path) -> None:
    for number in range(2000):
        (data / "red" / f"broken-{number}.png").write_bytes(b"x")


def _latin_name(data: Path) -> None:
    path = data / "red" / "0.png"
    os.rename(path, os.fsencode(path.parent) + b"/caf\xe9.png")


def _latin_class(data: Path) -> None:
    os.rename(data / "red", os.fsencode(data) + b"/caf\xe9")


def _huge(path: Path) -> None:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))


def _a_file(data: Path) -> None:
    shutil.rmtree(data)
    data.write_text("no folder")


def _no_permission(data: Path) -> None:
    data.chmod(0)


def _no_class_permission(data: Path) -> None:
    (data / "red").chmod(0)


def _lame_val(data: Path) -> None:
    (data / "train").mkdir()
    for name in ("red", "green", "blue"):
        (data / name).rename(data / "train" / name)
    (data / "val" / "green").mkdir(parents=True)
    shutil.copy(data / "train" / "green" / "0.png", data / "val" / "green" / "v.png")


def _all_same(data: Path) -> None:
    content = (data / "red" / "0.png").read_bytes()
    for path in data.rglob("*.png"):
        path.write_bytes(content)


# --- search spaces


def spaces() -> Iterator[Case]:
    """TOML files that are no search spaces."""
    from autotl.space.files import load_space, to_toml

    good = to_toml(load_space("quick"))
    contents: dict[str, bytes] = {
        "empty": b"",
        "no TOML": b"{not toml",
        "binary": bytes(range(256)),
        "a BOM and then nothing": b"\xef\xbb\xbf",
        "UTF-16": good.encode("utf-16"),
        "nested 100,000 deep": b"a = " + b"[" * 100_000 + b"]" * 100_000,
        "10 MB of comments": b"# x\n" * 2_500_000,
        "a number of 10,000 digits": b"a = " + b"9" * 10_000,
        "NaN as a bound": good.replace("low = ", "low = nan #", 1).encode(),
        "infinite bounds": good.replace("high = ", "high = inf #", 1).encode(),
        "low above high": good.replace("low = ", "low = 1e9 #", 1).encode(),
        "text as a bound": good.replace("low = ", 'low = "a" #', 1).encode(),
        "an unknown table": (good + "\n[parameters.warp]\nlow = 1\nhigh = 2\n").encode(),
        "an unknown key": ("warp = 9\n" + good).encode(),
        "a date": b"name = 2020-01-01\n",
        "the same key twice": ("name = 'a'\nname = 'b'\n" + good).encode(),
        "a list in place of a table": b"parameters = [1, 2]\n",
    }
    for name, content in contents.items():

        def prepare(stage: Stage, place: Path, content: bytes = content) -> Prepared:
            (place / "space.toml").write_bytes(content)
            return Prepared(autotl("spaces", "check", place / "space.toml"))

        yield Case("search spaces", name, prepare, (2,), ("space",), 20.0)


# --- run folders


def card(name: str, change: Callable[[dict], object], *says: str) -> Case:
    """A prediction with a model card that was changed."""

    def prepare(stage: Stage, place: Path) -> Prepared:
        run = stage.copy_of_run(place)
        path = run / "model" / "model.json"
        plain = json.loads(path.read_text("utf-8"))
        changed = change(plain)
        path.write_text(json.dumps(plain if changed is None else changed), "utf-8")
        return Prepared(autotl("predict", run, stage.data / "red" / "0.png"))

    return Case("run folders", name, prepare, (1, 2), says or ("model",), 40.0)


def cards() -> Iterator[Case]:
    """Cards that may come from anybody."""
    values: dict[str, list[object]] = {
        "backbone": ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/etc", "", 7, None, "../x", "no_such_model"],
        "classes": [[], ["a", "a"], "abc", None, [1, 2, 3], ["a", "b"]],
        "weights": ["../../etc/passwd", "/etc/passwd", "", 3, "none.safetensors"],
        "sha256": ["", "0" * 64, None],
        "preprocessing": [{}, None, []],
        "metric": ["speed", None],
        "score": ["high", None, float("nan")],
        "validation": [{}, None],
        "format_version": [99, "1", None],
        "config": [None, []],
        "freeze_depth": [-1, "all", 1e9],
    }
    for key, some in values.items():
        for value in some:
            yield card(
                f"model.json with {key} {value!r}", lambda plain, key=key, value=value: plain.update({key: value})
            )
    for key, value in {"std": [0, 0, 0], "mean": [1], "input_size": 7, "crop": 0, "store_size": 10**9}.items():
        yield card(
            f"model.json with preprocessing.{key} {value!r}",
            lambda plain, key=key, value=value: plain["preprocessing"].update({key: value}),
        )
    yield card("model.json is a list", lambda plain: [plain])
    yield card("model.json without classes", lambda plain: plain.pop("classes") and None)


def run_file(
    name: str,
    damage: Callable[[Path], object],
    *arguments: str,
    says: tuple[str, ...] = (),
    codes: tuple[int, ...] = (1, 2),
) -> Case:
    """A command on a run folder that was damaged; {run} and {image} in its arguments are filled in."""

    def prepare(stage: Stage, place: Path) -> Prepared:
        run = stage.copy_of_run(place)
        damage(run)
        image, words = stage.data / "red" / "0.png", arguments or ("predict", "{run}", "{image}")
        filled = [word.format(run=run, image=image, data=stage.data, place=place) for word in words]
        return Prepared(autotl(*filled))

    return Case("run folders", name, prepare, codes, says, 60.0)


def run_files() -> Iterator[Case]:
    """Files of a run that are damaged."""

    def weights(run: Path) -> Path:
        return next((run / "model").glob("*.safetensors"))

    yield run_file("no weights", lambda run: weights(run).unlink(), says=("weights",))
    yield run_file("empty weights", lambda run: weights(run).write_bytes(b""), says=("weights|damaged",))
    yield run_file("half the weights", lambda run: _cut(weights(run)), says=("damaged",))
    yield run_file("weights with NaN", _nan_weights, says=("not finite",))
    yield run_file("weights of another kind, with the right sum", _other_weights, says=("safetensors|tensor",))
    yield run_file("no model", lambda run: shutil.rmtree(run / "model"), says=("no model|not a run|without a model",))
    yield run_file("an empty folder", lambda run: [shutil.rmtree(run), run.mkdir()], says=("run",))
    yield run_file(
        "a file in place of the folder", lambda run: [shutil.rmtree(run), run.write_text("x")], says=("folder",)
    )
    resume = ("fit", "--resume", "{run}", "--timeout", "20s")
    for file, content in (
        ("settings.json", "{}"),
        ("settings.json", "[" * 100_000),
        ("settings.json", ""),
        ("data.json", "null"),
        ("trials.jsonl", ""),
        ("trials.jsonl", "{}\n"),
        ("trials.jsonl", "\0" * 1000),
        ("space.toml", "name = 1"),
        ("study.journal", "{"),
        ("study.journal", "\0" * 5000),
    ):
        shown = content if len(content) < 20 else f"{content[:3]!r} x {len(content)}"
        yield run_file(
            f"resume with {file}: {shown!r}",
            lambda run, file=file, content=content: (run / file).write_text(content, "utf-8"),
            *resume,
        )
    yield run_file("resume of a run that is not there", shutil.rmtree, *resume, says=("no such folder",))
    yield run_file("resume with DIR as well", lambda run: None, "fit", "{data}", "--resume", "{run}")
    yield run_file("resume with a seed", lambda run: None, *resume, "--seed", "3")
    reuse = ("fit", "{data}", "--reuse", "{run}", "--timeout", "20s", "--output", "{place}/new")
    yield run_file("reuse of a run whose weights are gone", lambda run: weights(run).unlink(), *reuse)
    yield run_file("reuse of a run with NaN", _nan_weights, *reuse)
    yield run_file(
        "reuse of a run with result.json {}", lambda run: (run / "result.json").write_text("{}"), *reuse, codes=(0,)
    )
    yield run_file(
        "output is a run", lambda run: None, "fit", "{data}", "--output", "{run}", says=("already holds a run",)
    )
    yield run_file("predict: no such image", lambda run: None, "predict", "{run}", "/nowhere.png", says=("nowhere",))
    yield run_file(
        "predict: an empty folder",
        lambda run: (run / "none").mkdir(),
        "predict",
        "{run}",
        "{run}/none",
        says=("no images",),
    )
    yield run_file(
        "predict: a text file",
        lambda run: (run / "a.png").write_text("x"),
        "predict",
        "{run}",
        "{run}/a.png",
        says=("a.png",),
    )
    yield run_file(
        "predict: a pipe", lambda run: os.mkfifo(run / "a.png"), "predict", "{run}", "{run}/a.png", says=("a.png",)
    )
    yield run_file("predict: an empty name", lambda run: None, "predict", "{run}", "")
    yield run_file(
        "evaluate: other classes",
        lambda run: write_shapes_named(run / "d"),
        "evaluate",
        "{run}",
        "{run}/d",
        says=("classes",),
    )


def write_shapes_named(root: Path) -> None:
    """A data set of two unknown classes."""
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (32, 32), (number, 9, 9)).save(root / name / f"{number}.png")


def _nan_weights(run: Path) -> None:
    import torch
    from safetensors.torch import load_file, save

    path = next((run / "model").glob("*.safetensors"))
    state = load_file(path)
    name = next(name for name, tensor in state.items() if tensor.is_floating_point())
    state[name] = torch.full_like(state[name], float("nan"))
    _replace_weights(run, save(state))


def _other_weights(run: Path) -> None:
    _replace_weights(run, b"no tensors at all")


def _replace_weights(run: Path, content: bytes) -> None:
    path = next((run / "model").glob("*.safetensors"))
    path.write_bytes(content)
    plain = json.loads((run / "model" / "model.json").read_text("utf-8"))
    plain["sha256"] = hashlib.sha256(content).hexdigest()
    (run / "model" / "model.json").write_text(json.dumps(plain), "utf-8")


# --- environments


def environment(
    name: str,
    change: Callable[[Stage, Path], dict[str, str | None]],
    *says: str,
    codes: tuple[int, ...] = (0,),
    shell: str = "",
    wrapped: tuple[str, ...] = (),
) -> Case:
    """A fit of one trial in an odd environment: it works, or it names the setting to change."""

    def prepare(stage: Stage, place: Path) -> Prepared:
        changes = change(stage, place)
        command = small_fit(stage, place)
        if shell:
            command = ["bash", "-c", shell.format(command=shlex.join(command))]

        def check(output: str) -> list[str]:
            worked = (place / "run" / "result.json").exists()
            return [] if worked or codes != (0,) else ["no result.json"]

        return Prepared(command, changes, check=check)

    return Case("environments", name, prepare, codes, says, 120.0, fits=True, wrapped=wrapped)


def environments() -> Iterator[Case]:
    """What machines are like."""

    def made(folder: Path, mode: int = 0o777) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        return str(folder)

    yield environment("no HOME", lambda stage, place: {"HOME": None, "AUTOTL_CACHE_DIR": None})
    yield environment("HOME is not there", lambda stage, place: {"HOME": "/nowhere/at/all", "AUTOTL_CACHE_DIR": None})
    yield environment(
        "HOME is a file",
        lambda stage, place: {"HOME": "/etc/hostname", "AUTOTL_CACHE_DIR": None},
        "Not a directory: '/etc/hostname",
        codes=(1,),
    )
    yield environment("the cache is read-only", lambda stage, place: {"AUTOTL_CACHE_DIR": "/proc/none"})
    yield environment("the cache is a file", lambda stage, place: {"AUTOTL_CACHE_DIR": "/etc/hostname"})
    yield environment("TMPDIR is long", lambda stage, place: {"TMPDIR": made(place / "odd" / ("long" * 40) / "more")})
    yield environment(
        "TMPDIR is not ASCII", lambda stage, place: {"TMPDIR": made(place / "odd" / "Zwischenablage für Übung")}
    )
    yield environment(
        "TMPDIR has spaces and quotes", lambda stage, place: {"TMPDIR": made(place / "odd" / 'it\'s a "test"')}
    )
    yield environment("TMPDIR is not there", lambda stage, place: {"TMPDIR": "/nowhere"})
    yield environment("256 open files", lambda stage, place: {}, shell="ulimit -n 256; exec {command}")
    yield environment(
        "64 open files",
        lambda stage, place: {},
        codes=(0, 1, 2),
        shell="ulimit -n 64; exec {command}",
    )
    yield environment(
        "LANG=C and ASCII output", lambda stage, place: {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    )
    yield environment("an unknown locale", lambda stage, place: {"LC_ALL": "xx_YY.UTF-8"})
    yield environment("10 columns", lambda stage, place: {"COLUMNS": "10"})
    yield environment("COLUMNS is no number", lambda stage, place: {"COLUMNS": "wide"})
    yield environment("OMP_NUM_THREADS=64", lambda stage, place: {"OMP_NUM_THREADS": "64"})
    yield environment(
        "a proxy that is not there",
        lambda stage, place: {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
    )
    yield environment("RAY_ADDRESS of nothing", lambda stage, place: {"RAY_ADDRESS": "127.0.0.1:9"})
    yield environment("PYTHONOPTIMIZE=2", lambda stage, place: {"PYTHONOPTIMIZE": "2"})
    yield environment("PYTHONWARNINGS=error", lambda stage, place: {"PYTHONWARNINGS": "error::UserWarning:autotl"})
    yield environment("a user without a name", lambda stage, place: {"AUTOTL_CACHE_DIR": None}, wrapped=NAMELESS)
    yield environment("stdout is closed", lambda stage, place: {}, shell="exec {command} >&-")
    yield environment("stdout and stderr are closed", lambda stage, place: {}, shell="exec {command} >&- 2>&-")
    yield environment("stdout is /dev/full", lambda stage, place: {}, shell="exec {command} > /dev/full")
    yield environment("| head -1", lambda stage, place: {}, shell="{command} | head -1; exit ${{PIPESTATUS[0]}}")
    yield environment("nohup, without a terminal", lambda stage, place: {}, shell="exec nohup {command}")
    yield environment(
        "the working folder is gone", lambda stage, place: {}, shell='cd "$(mktemp -d)"; rmdir "$PWD"; exec {command}'
    )
    yield environment(
        "little address space", lambda stage, place: {}, codes=(0, 1), shell="ulimit -v 12000000; exec {command}"
    )
    yield environment("a small stack", lambda stage, place: {}, shell="ulimit -s 1024; exec {command}")
    yield environment(
        "umask 777", lambda stage, place: {}, codes=(0, 1, 2), shell="umask 777; exec {command}", wrapped=POWERLESS
    )

    for size in (1500, 3000):
        yield Case(
            "environments",
            f"a container of {size} MB",
            lambda stage, place, size=size: _container(stage, place, size),
            (0, 1),
            (),
            150.0,
            fits=True,
        )


def _container(stage: Stage, place: Path, size: int) -> Prepared:
    """A control group with a limit of memory, where this machine lets us make one."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, name = (first, "memory.limit_in_bytes") if first.is_dir() else (second, "memory.max")
    group = root / f"autotl-torture-{os.getpid()}-{size}"
    try:
        group.mkdir()
        (group / name).write_text(str(size * 2**20))
    except OSError as error:
        raise Skipped(f"no control group can be made: {error}") from error
    command = shlex.join(small_fit(stage, place))

    def check(output: str) -> list[str]:
        there = (place / "run" / "model" / "model.json").exists()
        return [] if there or size < 2000 else ["no model"]

    def undo() -> None:
        with contextlib.suppress(OSError):
            group.rmdir()

    return Prepared(["bash", "-c", f"echo $$ > {group}/cgroup.procs; exec {command}"], check=check, undo=undo)


# --- faults


def fault(
    name: str,
    befalls: Callable[[Stage, Path, subprocess.Popen, float], None],
    *says: str,
    codes: tuple[int, ...],
    keeps: bool = True,
) -> Case:
    """A fit that something befalls; afterwards there is a model where there was one before."""

    def prepare(stage: Stage, place: Path) -> Prepared:
        data = stage.copy_of_data(place)
        options = ("--timeout", "40s", "--slots", "1", "--output", place / "run")
        command = autotl("fit", data, *QUICK, *options)

        def check(output: str) -> list[str]:
            model = (place / "run" / "model" / "model.json").exists()
            left = ["the cache is left"] if (place / "run" / "cache").exists() and -9 not in codes else []
            return left + (["no model"] if keeps and not model else [])

        return Prepared(command, fault=lambda process, end: befalls(stage, place, process, end), check=check)

    return Case("faults", name, prepare, codes, says, 150.0, fits=True, longest=20_000)


def wait_for(condition: Callable[[], object], process: subprocess.Popen, end: float) -> None:
    """Wait until something is so, or the process is over."""
    while not condition() and process.poll() is None:
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


def trials_of(run: Path) -> int:
    """Trials that have ended, without the probes."""
    path = run / "trials.jsonl"
    return sum('"origin": "probe"' not in line for line in path.read_text("utf-8").splitlines()) if path.exists() else 0


def after_model(then: Callable[[Stage, Path, subprocess.Popen], object]) -> Callable[..., None]:
    """Something that happens as soon as there is a model."""

    def befalls(stage: Stage, place: Path, process: subprocess.Popen, end: float) -> None:
        wait_for((place / "run" / "model" / "model.json").exists, process, end)
        then(stage, place, process)

    return befalls


def after_trial(then: Callable[[Stage, Path, subprocess.Popen], object]) -> Callable[..., None]:
    """Something that happens as soon as a trial has ended."""

    def befalls(stage: Stage, place: Path, process: subprocess.Popen, end: float) -> None:
        wait_for(lambda: trials_of(place / "run") > 0, process, end)
        then(stage, place, process)

    return befalls


def at_once(then: Callable[[Stage, Path, subprocess.Popen], object]) -> Callable[..., None]:
    """Something that happens while images are read."""

    def befalls(stage: Stage, place: Path, process: subprocess.Popen, end: float) -> None:
        wait_for((place / "run" / "settings.json").exists, process, end)
        then(stage, place, process)

    return befalls


def signalled(number: int) -> Callable[[Stage, Path, subprocess.Popen], object]:
    """The process gets a signal."""
    return lambda stage, place, process: process.send_signal(number)


def workers_below(process: subprocess.Popen) -> list[int]:
    """Ray's workers below a process."""
    found = []
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    todo = [process.pid]
    while todo:
        for child in children.get(todo.pop(), []):
            todo.append(child)
            with contextlib.suppress(OSError):
                if b"ray::" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def _kill_workers(stage: Stage, place: Path, process: subprocess.Popen) -> None:
    for worker in workers_below(process):
        with contextlib.suppress(OSError):
            os.kill(worker, signal.SIGKILL)


def faults() -> Iterator[Case]:
    """What happens to a fit."""
    yield fault("Ctrl-C while images are read", at_once(signalled(signal.SIGINT)), codes=(130,), keeps=False)
    yield fault("SIGTERM while images are read", at_once(signalled(signal.SIGTERM)), codes=(143,), keeps=False)
    yield fault("Ctrl-C after the first model", after_model(signalled(signal.SIGINT)), codes=(0, 130))
    yield fault("SIGTERM after the first model", after_model(signalled(signal.SIGTERM)), codes=(143,))
    yield fault("Ctrl-C in the search", after_trial(signalled(signal.SIGINT)), codes=(0,))
    yield fault("SIGTERM in the search", after_trial(signalled(signal.SIGTERM)), codes=(143,))
    yield fault("SIGHUP in the search", after_trial(signalled(signal.SIGHUP)), codes=(129,))
    yield fault(
        "SIGKILL in the search, and the next fit cleans up", after_trial(signalled(signal.SIGKILL)), codes=(-9,)
    )
    yield fault("all workers killed", after_trial(_kill_workers), codes=(0,))
    yield fault(
        "data vanishes", at_once(lambda stage, place, process: shutil.rmtree(place / "data")), codes=(1, 2), keeps=False
    )
    yield fault(
        "data vanishes in the search",
        after_trial(lambda stage, place, process: shutil.rmtree(place / "data")),
        codes=(0,),
    )
    yield fault(
        "the run folder vanishes",
        after_trial(lambda stage, place, process: shutil.rmtree(place / "run")),
        codes=(0, 1),
        keeps=False,
    )
    yield fault(
        "the model vanishes",
        after_trial(lambda stage, place, process: shutil.rmtree(place / "run" / "model")),
        codes=(0, 1),
        keeps=False,
    )
    yield fault(
        "the cache vanishes",
        after_trial(lambda stage, place, process: shutil.rmtree(place / "run" / "cache")),
        codes=(0, 1),
    )
    yield fault("trials.jsonl becomes a folder", after_trial(_trials_a_folder), codes=(0, 1))
    yield fault("stopped for ten seconds (SIGSTOP)", after_trial(_stop_for_a_while), codes=(0,))
    for size in (2, 20, 60):
        yield Case(
            "faults",
            f"a disk of {size} MB",
            lambda stage, place, size=size: _small_disk(stage, place, size),
            (0, 1, 2),
            (),
            120.0,
            fits=True,
        )
    yield Case("faults", "two fits into one folder", _two_at_once, (0, 2), (), 150.0, fits=True)


def _trials_a_folder(stage: Stage, place: Path, process: subprocess.Popen) -> None:
    (place / "run" / "trials.jsonl").unlink()
    (place / "run" / "trials.jsonl").mkdir()


def _stop_for_a_while(stage: Stage, place: Path, process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGSTOP)
    time.sleep(10)
    process.send_signal(signal.SIGCONT)


def _small_disk(stage: Stage, place: Path, size: int) -> Prepared:
    disk = place / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", disk], capture_output=True).returncode
    ):
        raise Skipped("needs root, to mount a small disk")
    command = autotl("fit", stage.data, *QUICK, "--timeout", "30s", "--slots", "1", "--output", disk / "run")

    def check(output: str) -> list[str]:
        there = (disk / "run").exists()
        return (
            ["a run folder without a model"] if there and not (disk / "run" / "model" / "model.json").exists() else []
        )

    return Prepared(command, check=check, undo=lambda: subprocess.run(["umount", disk], capture_output=True) and None)


def _two_at_once(stage: Stage, place: Path) -> Prepared:
    command = shlex.join(small_fit(stage, place))
    both = f"{command} & first=$!; {command}; second=$?; wait $first; echo codes $? $second"

    def check(output: str) -> list[str]:
        codes = sorted(output.split("codes")[-1].split())
        return has_model(place)(output) + ([] if codes == ["0", "2"] else [f"exit codes {codes}, expected 0 and 2"])

    return Prepared(["bash", "-c", both], check=check)


def all_cases(stage: Stage) -> Iterator[Case]:
    """All of them."""
    yield from options()
    yield from folders()
    yield from spaces()
    yield from cards()
    yield from run_files()
    yield from environments()
    yield from faults()
