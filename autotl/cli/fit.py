"""`autotl fit` and `autotl advise`."""

from __future__ import annotations

import argparse

from autotl.cli.output import print_json
from autotl.cli.parsing import Commands, add_device
from autotl.errors import Problem, SettingsError

GO_ON = ("resume", "timeout", "n_trials", "json", "quiet", "run", "defaults")
"""What may be given together with --resume."""


def add_commands(commands: Commands) -> None:
    """Add both to the command line."""
    _add_fit(commands)
    _add_advise(commands)


def _add_data_options(command: argparse.ArgumentParser, *, optional: bool = False) -> None:
    nargs = {"nargs": "?"} if optional else {}
    command.add_argument("dataset_dir", metavar="DIR", help="folder of labelled images", **nargs)  # type: ignore[arg-type]
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
        "--reuse",
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
    command.add_argument("--reference", metavar="FILE", help="measure similarity with a file of `reference build`")
    add_device(command)
    command.add_argument("--json", action="store_true", help="print nothing but the result, as JSON")


def _add_fit(commands: Commands) -> None:
    command = commands.add_parser("fit", help="find the best fine-tuned model for a folder of images")
    _add_data_options(command, optional=True)
    command.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run, in place of DIR: more time (--timeout, --n-trials), everything else as it was",
    )
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
    command.set_defaults(run=_fit, defaults=vars(command.parse_args([])))


def _resume(chosen: argparse.Namespace) -> None:
    from autotl.api import resume

    changed = sorted(
        name for name, value in chosen.defaults.items() if name not in GO_ON and getattr(chosen, name) != value
    )
    if changed:
        named = ", ".join("DIR" if name == "dataset_dir" else f"--{name.replace('_', '-')}" for name in changed)
        remedy = f"leave out {named}: a run goes on as it was asked for"
        raise SettingsError([Problem("settings", "--resume", f"given together with {named}", remedy=remedy)])
    quiet = chosen.quiet or chosen.json
    result = resume(chosen.resume, timeout=chosen.timeout, n_trials=chosen.n_trials, quiet=quiet)
    if chosen.json:
        print_json(result.to_json())


def _fit(chosen: argparse.Namespace) -> None:
    if chosen.resume is not None:
        _resume(chosen)
        return
    if chosen.dataset_dir is None:
        remedy = "name the folder of images, or a run to go on with (--resume RUN)"
        raise SettingsError([Problem("settings", "DIR", "is missing", remedy=remedy)])
    from autotl.api import fit
    from autotl.settings import Resources

    result = fit(
        chosen.dataset_dir,
        timeout=chosen.timeout,
        n_trials=chosen.n_trials,
        metric=chosen.metric,
        search_space=chosen.space,
        backbones=chosen.backbone or "auto",
        reuse=chosen.reuse or (),
        output_dir=chosen.output,
        seed=chosen.seed,
        val_fraction=chosen.val_fraction,
        skip_unreadable=chosen.skip_unreadable,
        allow_download=chosen.allow_download,
        resources=Resources(chosen.address, chosen.slots, chosen.cpus_per_trial, chosen.gpus_per_trial),
        reference=chosen.reference,
        measure_benefit=chosen.measure_benefit,
        device=chosen.device,
        quiet=chosen.quiet or chosen.json,
    )
    if chosen.json:
        print_json(result.to_json())


def _add_advise(commands: Commands) -> None:
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
        reuse=chosen.reuse or (),
        metric=chosen.metric,
        seed=chosen.seed,
        val_fraction=chosen.val_fraction,
        skip_unreadable=chosen.skip_unreadable,
        allow_download=chosen.allow_download,
        reference=chosen.reference,
        device=chosen.device,
        quiet=chosen.json,
    )
    if chosen.json:
        print_json(advice.to_json())
