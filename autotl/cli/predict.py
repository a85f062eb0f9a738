"""`autotl predict`, `autotl evaluate` and `autotl reproduce`."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from autotl.cli.output import print_json, print_text
from autotl.cli.parsing import Commands, add_device

if TYPE_CHECKING:
    from autotl.predictor import Prediction


def add_commands(commands: Commands) -> None:
    """Add them to the command line."""
    _add_predict(commands)
    _add_evaluate(commands)
    _add_reproduce(commands)


def _add_predict(commands: Commands) -> None:
    command = commands.add_parser("predict", help="classify images with a run's best model")
    command.add_argument("run_dir", metavar="RUN", help="a run folder")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image files or folders of them")
    command.add_argument(
        "--format", choices=("text", "csv", "json"), default="text", help="of the output (default: text)"
    )
    add_device(command)
    command.set_defaults(run=_predict)


def _predict(chosen: argparse.Namespace) -> None:
    from autotl.api import load

    predictions = load(chosen.run_dir, device=chosen.device).predict(chosen.images)
    if chosen.format == "json":
        print_json([asdict(prediction) for prediction in predictions])
    elif chosen.format == "csv":
        print_text(_as_csv(predictions))
    else:
        width = max(len(prediction.label) for prediction in predictions)
        print_text("\n".join(_as_line(prediction, width) for prediction in predictions))


def _as_line(prediction: Prediction, width: int) -> str:
    return f"{prediction.label:<{width}}  {prediction.probability:.3f}  {prediction.path}"


def _as_csv(predictions: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = list(predictions[0].probabilities)
    writer.writerow(["path", "label", "probability", *classes])
    for prediction in predictions:
        shares = [f"{prediction.probabilities[name]:.6f}" for name in classes]
        writer.writerow([prediction.path, prediction.label, f"{prediction.probability:.6f}", *shares])
    return text.getvalue()


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="measure a run's best model on labelled images")
    command.add_argument("run_dir", metavar="RUN", help="a run folder")
    command.add_argument("dataset_dir", metavar="DIR", help="labelled images: the test split; without one, all")
    command.add_argument("--json", action="store_true", help="print JSON")
    add_device(command)
    command.set_defaults(run=_evaluate)


def _evaluate(chosen: argparse.Namespace) -> None:
    from autotl.api import evaluate
    from autotl.records import interval_text

    estimates = evaluate(chosen.run_dir, chosen.dataset_dir, device=chosen.device)
    if chosen.json:
        print_json({name: asdict(estimate) for name, estimate in estimates.items()})
    else:
        print_text("\n".join(f"{name:<18} {interval_text(estimate, name)}" for name, estimate in estimates.items()))


def _add_reproduce(commands: Commands) -> None:
    command = commands.add_parser("reproduce", help="train a run's winner again: is its score the same?")
    command.add_argument("run_dir", metavar="RUN", help="a run folder; its data set has to be where it was")
    command.add_argument("--json", action="store_true", help="print nothing but the result, as JSON")
    add_device(command)
    command.set_defaults(run=_reproduce)


def _reproduce(chosen: argparse.Namespace) -> int:
    from autotl.api import reproduce

    result = reproduce(chosen.run_dir, device=chosen.device, quiet=chosen.json)
    if chosen.json:
        print_json(result.to_json())
    return 0 if result.agrees else 1
