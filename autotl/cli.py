"""The `autotl` command: the same doors as in Python. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotl.errors import AutotlError, InputError, Problem, SettingsError, SpaceError

if TYPE_CHECKING:
    from autotl.predictor import Prediction


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    chosen = _make_parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except InputError as error:
        _fail(str(error))
        return 2
    except AutotlError as error:
        _fail(str(error))
        return 1
    except KeyboardInterrupt:
        _fail("interrupted")
        return 130
    return 0


def _fail(text: str) -> None:
    from autotl.console import print_error

    print_error(f"autotl: {text}")


def _print(text: str) -> None:
    from autotl.console import print_plain

    print_plain(text)


def _print_json(value: Any) -> None:
    """JSON that every reader accepts: a number that is not finite (a metric without a value) is null."""
    _print(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _make_parser() -> argparse.ArgumentParser:
    from autotl import __version__

    parser = argparse.ArgumentParser(
        prog="autotl",
        description="Advice and automatic tuning for transfer learning on images.",
        epilog="DIR holds DIR/CLASS/images, or DIR/train/CLASS/images with optional val and test beside train.",
    )
    parser.add_argument("--version", action="version", version=f"autotl {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_fit(commands)
    _add_advise(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_spaces(commands)
    _add_backbones(commands)
    _add_yardstick(commands)
    _add_cache(commands)
    _add_example(commands)
    return parser


def _add_data_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset_dir", metavar="DIR", help="folder of labelled images")
    command.add_argument(
        "--metric", default="auto", help="auto (default), accuracy, balanced_accuracy, f1_macro, log_loss, roc_auc"
    )
    command.add_argument(
        "--backbone",
        action="append",
        metavar="NAME[=FILE]",
        help="a backbone to try; may be given more than once (default: all whose weights are here)",
    )
    command.add_argument(
        "--source",
        action="append",
        metavar="RUN",
        help="reuse the best model of an earlier run; may be given more than once",
    )
    command.add_argument("--seed", type=int, default=0, help="of split, sampler and trials (default: 0)")
    command.add_argument(
        "--val-fraction", type=float, default=0.2, metavar="SHARE", help="held back without a val split (default: 0.2)"
    )
    command.add_argument("--skip-unreadable", action="store_true", help="leave unreadable images out")
    command.add_argument("--allow-download", action="store_true", help="fetch missing weights from the model hub")
    command.add_argument("--yardstick", metavar="FILE", help="measure similarity with a file of `yardstick build`")
    command.add_argument("--json", action="store_true", help="print nothing but the result, as JSON")


def _add_fit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("fit", help="find the best fine-tuned model for a folder of images")
    _add_data_options(command)
    command.add_argument(
        "--timeout", default="10m", metavar="TIME", help="wall time for everything: 90s, 10m (default), 1.5h"
    )
    command.add_argument("--n-trials", type=int, metavar="N", help="end after so many trials")
    command.add_argument(
        "--space", default="auto", metavar="NAME", help="a search space's name or TOML file (default: the scenario's)"
    )
    command.add_argument("--output", metavar="RUN", help="the run folder (default: a new one below autotl_runs/)")
    command.add_argument("--slots", type=int, metavar="N", help="trials at once")
    command.add_argument("--cpus-per-trial", type=int, metavar="N", help="cores of a trial")
    command.add_argument("--gpus-per-trial", type=float, metavar="X", help="GPUs of a trial, or a share of one")
    command.add_argument("--address", metavar="HOST:PORT", help="join a running Ray cluster")
    command.add_argument(
        "--measure-benefit", action="store_true", help="train the winner from scratch as well: is pretraining worth it?"
    )
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")
    command.set_defaults(run=_fit)


def _fit(chosen: argparse.Namespace) -> None:
    from autotl.api import fit
    from autotl.settings import Resources

    result = fit(
        chosen.dataset_dir,
        timeout=chosen.timeout,
        n_trials=chosen.n_trials,
        metric=chosen.metric,
        search_space=chosen.space,
        backbones=chosen.backbone or "auto",
        source=chosen.source or (),
        output_dir=chosen.output,
        seed=chosen.seed,
        val_fraction=chosen.val_fraction,
        skip_unreadable=chosen.skip_unreadable,
        allow_download=chosen.allow_download,
        resources=Resources(chosen.address, chosen.slots, chosen.cpus_per_trial, chosen.gpus_per_trial),
        yardstick=chosen.yardstick,
        measure_benefit=chosen.measure_benefit,
        quiet=chosen.quiet or chosen.json,
    )
    if chosen.json:
        _print_json(result.to_json())


def _add_advise(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("advise", help="say how near the data is to ImageNet, how large, and what follows")
    _add_data_options(command)
    command.add_argument(
        "--timeout", default="25s", metavar="TIME", help="backbones are probed for as long as it allows (default: 25s)"
    )
    command.set_defaults(run=_advise)


def _advise(chosen: argparse.Namespace) -> None:
    from autotl.api import advise

    advice = advise(
        chosen.dataset_dir,
        timeout=chosen.timeout,
        backbones=chosen.backbone or "auto",
        source=chosen.source or (),
        metric=chosen.metric,
        seed=chosen.seed,
        val_fraction=chosen.val_fraction,
        skip_unreadable=chosen.skip_unreadable,
        allow_download=chosen.allow_download,
        yardstick=chosen.yardstick,
        quiet=chosen.json,
    )
    if chosen.json:
        _print_json(advice.to_json())


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("predict", help="classify images with a run's best model")
    command.add_argument("run_dir", metavar="RUN", help="a run folder")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image files or folders of them")
    command.add_argument(
        "--format", choices=("text", "csv", "json"), default="text", help="of the output (default: text)"
    )
    command.set_defaults(run=_predict)


def _predict(chosen: argparse.Namespace) -> None:
    from autotl.api import load

    predictions = load(chosen.run_dir).predict(chosen.images)
    if chosen.format == "json":
        _print_json([asdict(prediction) for prediction in predictions])
    elif chosen.format == "csv":
        _print(_as_csv(predictions))
    else:
        width = max(len(prediction.label) for prediction in predictions)
        _print("\n".join(f"{one.label:<{width}}  {one.probability:.3f}  {one.path}" for one in predictions))


def _as_csv(predictions: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = list(predictions[0].probabilities)
    writer.writerow(["path", "label", "probability", *classes])
    for one in predictions:
        shares = [f"{one.probabilities[name]:.6f}" for name in classes]
        writer.writerow([one.path, one.label, f"{one.probability:.6f}", *shares])
    return text.getvalue()


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("evaluate", help="measure a run's best model on labelled images")
    command.add_argument("run_dir", metavar="RUN", help="a run folder")
    command.add_argument("dataset_dir", metavar="DIR", help="labelled images: the test split; without one, all")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_evaluate)


def _evaluate(chosen: argparse.Namespace) -> None:
    from autotl.api import evaluate
    from autotl.console import interval_text

    estimates = evaluate(chosen.run_dir, chosen.dataset_dir)
    if chosen.json:
        _print_json({name: asdict(one) for name, one in estimates.items()})
    else:
        _print("\n".join(f"{name:<18} {interval_text(one, name)}" for name, one in estimates.items()))


def _add_spaces(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("spaces", help="list, show, copy or check search spaces")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="the shipped spaces").set_defaults(run=_spaces_list)
    show = actions.add_parser("show", help="print a space")
    copy = actions.add_parser("copy", help="copy a space to a file of your own")
    check = actions.add_parser("check", help="check a TOML file of your own")
    for action in (show, copy, check):
        action.add_argument("space", metavar="NAME", help="a shipped space's name or a TOML file")
    copy.add_argument("target", metavar="FILE", help="to write, a new one")
    show.set_defaults(run=_spaces_show)
    copy.set_defaults(run=_spaces_copy)
    check.set_defaults(run=_spaces_check)


def _spaces_list(chosen: argparse.Namespace) -> None:
    from autotl.console import Console
    from autotl.space.files import load_space, shipped_names

    Console().table(("space", "what it is for"), [(name, load_space(name).description) for name in shipped_names()])


def _spaces_show(chosen: argparse.Namespace) -> None:
    _print(_read_space(chosen.space))


def _read_space(name: str) -> str:
    from autotl.space.files import find_space

    path = find_space(name)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError([Problem("space", str(path), f"cannot be read ({error})")]) from error


def _spaces_copy(chosen: argparse.Namespace) -> None:
    target = Path(chosen.target)
    if target.exists():
        raise SpaceError([Problem("space", str(target), "exists already", "the name of a new file")])
    text = _read_space(chosen.space)
    try:
        target.write_text(text, "utf-8")
    except OSError as error:
        raise SpaceError([Problem("space", str(target), f"cannot be written ({error})")]) from error
    _print(f"{chosen.space} copied to {target}; use it with autotl fit --space {target}")


def _spaces_check(chosen: argparse.Namespace) -> None:
    from autotl.space.files import load_space

    space = load_space(chosen.space)
    _print(f"{chosen.space}: fine, {len(space.parameters)} parameters, fingerprint {space.fingerprint()}")


def _add_backbones(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("backbones", help="list the backbones on offer")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the catalog, with what can be loaded here")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_backbones_list)


def _backbones_list(chosen: argparse.Namespace) -> None:
    from autotl.console import Console
    from autotl.models.catalog import load_catalog
    from autotl.models.weights import is_available

    entries = load_catalog()
    here = {entry.name: is_available(entry) for entry in entries}
    if chosen.json:
        _print_json([asdict(entry) | {"available": here[entry.name]} for entry in entries])
        return
    columns = ("backbone", "here", "weights", "params M", "GMACs", "top-1 %", "input", "stages", "licence")
    rows = [
        (
            entry.name,
            "yes" if here[entry.name] else "-",
            entry.weights,
            f"{entry.parameters_m:.1f}",
            f"{entry.gmacs:.2f}",
            f"{entry.top1:.1f}",
            str(entry.input_size),
            str(entry.stages),
            entry.licence,
        )
        for entry in entries
    ]
    Console().table(columns, rows)


def _add_yardstick(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("yardstick", help="make a file to measure similarity to data of your own with")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="embed photographs and write the file")
    build.add_argument("--images", required=True, metavar="DIR", help="photographs at any depth, best in class folders")
    build.add_argument("--backbone", required=True, metavar="NAME[=FILE]", help="what to embed them with")
    build.add_argument("--source", metavar="TEXT", help="what they stand for (default: the folder's name)")
    build.add_argument("--output", required=True, metavar="FILE", help="a new file")
    build.add_argument("--allow-download", action="store_true", help="fetch missing weights from the model hub")
    build.set_defaults(run=_yardstick_build)


def _yardstick_build(chosen: argparse.Namespace) -> None:
    from autotl.api import build_yardstick

    made = build_yardstick(
        chosen.images,
        chosen.backbone,
        chosen.output,
        source=chosen.source,
        allow_download=chosen.allow_download,
        quiet=False,
    )
    _print(
        f"{len(made.names)} photographs of {len(set(made.names))} classes of {made.source} in {chosen.output}; use it "
        f"with autotl advise DIR --yardstick {chosen.output}"
    )


def _add_cache(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("cache", help="show or empty what runs share: activations, converted models")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("show", help="where it is and how large").set_defaults(run=_cache_show)
    actions.add_parser("clear", help="remove all of it").set_defaults(run=_cache_clear)


def _cache_show(chosen: argparse.Namespace) -> None:
    from autotl.storage.cache import FOLDER_VARIABLE, DiskCache, default_folder

    cache = DiskCache(default_folder())
    entries = cache.entries()
    size = sum(entry.size for entry in entries) / 2**30
    _print(f"{cache.folder} (set {FOLDER_VARIABLE} to move it)")
    _print(f"{len(entries)} files, {size:.2f} of at most {cache.limit / 2**30:.0f} GiB")


def _cache_clear(chosen: argparse.Namespace) -> None:
    from autotl.storage.cache import DiskCache, default_folder

    _print(f"{DiskCache(default_folder()).clear() / 2**30:.2f} GiB freed")


def _add_example(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("example", help="write an example data set as a folder of images")
    command.add_argument("name", choices=("digits",), help="digits: 1,797 handwritten digits of scikit-learn")
    command.add_argument("target", metavar="DIR", help="a new or empty folder")
    command.set_defaults(run=_example)


def _example(chosen: argparse.Namespace) -> None:
    from autotl.data.example import write_digits

    target = Path(chosen.target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingsError([Problem("settings", f"DIR {target}", "exists already", "a new or empty folder")])
    try:
        counts = write_digits(target)
    except OSError as error:
        raise SettingsError([Problem("settings", f"DIR {target}", f"cannot be written ({error})")]) from error
    _print(f"{sum(counts.values())} images in {target}: " + ", ".join(f"{n} {split}" for split, n in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
