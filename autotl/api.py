"""The public functions: they turn arguments into settings, join the parts, and hold no logic of their own."""

from __future__ import annotations

import os
import platform
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autotl import clock
from autotl.arguments import check_types
from autotl.console import Console, log_to_file
from autotl.data.folder import list_folder
from autotl.errors import Problem, SettingsError, raise_if_any
from autotl.interrupt import noticed
from autotl.records import Estimate
from autotl.result import Callback, FitResult, Reproduction
from autotl.settings import METRICS, Budget, FitSettings, Resources, as_names, as_paths, as_seconds, as_space
from autotl.storage import rundir
from autotl.storage.leftovers import Leftovers, listed, sweep
from autotl.storage.rundir import RunDir, write_json
from autotl.threads import local_cpus, sleep_if_others_work

if TYPE_CHECKING:
    from autotl.advice.advisor import Advice
    from autotl.advice.reference_set import ReferenceSet
    from autotl.pipeline.resume import Earlier
    from autotl.pipeline.validate import ValidInput
    from autotl.predictor import Predictor
    from autotl.space.search_space import SearchSpace

RESERVE = 3.0
"""Seconds that a fit takes to end without a search."""
_fitting = threading.Lock()
"""Held during a fit: Ray, the log and the signal handlers are the process's, and two fits would share the cores."""

PathLike = str | os.PathLike[str]


def fit(
    dataset_dir: PathLike,
    *,
    timeout: float | str = 600,
    n_trials: int | None = None,
    metric: str = "auto",
    search_space: PathLike | SearchSpace = "auto",
    backbones: str | Sequence[str] = "auto",
    reuse: PathLike | Sequence[PathLike] = (),
    output_dir: PathLike | None = None,
    seed: int = 0,
    val_fraction: float = 0.2,
    skip_unreadable: bool = False,
    allow_download: bool = False,
    resources: Resources | None = None,
    reference: PathLike | None = None,
    measure_benefit: bool = False,
    device: str = "auto",
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> FitResult:
    """Find the best fine-tuned model for a folder of labelled images.

    Args:
        dataset_dir: DIR/CLASS/images, or DIR/{train,val,test}/CLASS/images; val may be called valid or
            validation, val and test may be missing. Without val, a stratified share of train is held back.
            The test split is only used to report.
        timeout: wall time for everything, in seconds or as "90s", "10m", "1.5h"; at least 20 s.
        n_trials: end after so many trials even if there is time left.
        metric: "accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc", or "auto": accuracy, balanced
            accuracy where the largest class is three times the smallest or more.
        search_space: "auto" (the one that the advice names), a shipped space's name, a TOML file, or a space, such as
            `autotl.load_space("default").narrow(freeze_depth=(0, 3))`.
        backbones: "auto" (all in the catalog whose weights are on this machine), names from the catalog or of
            timm models, or NAME=PATH for weights in a local file.
        reuse: the run folder of an earlier fit, or several: their best models are backbones as well, in the same
            search. Each has to outperform the majority-class baseline on its own test or validation images.
        output_dir: the run folder, new or empty; by default a new one below autotl_runs/.
        seed: of the split, the sampler and the trials.
        val_fraction: share of every class that is held back for validation where there is no val split.
        skip_unreadable: leave unreadable images out (they are named) instead of stopping.
        allow_download: fetch weights that are not on this machine from timm's model hub.
        resources: cores, GPUs, trials at once, the address of a Ray cluster.
        reference: a file of `build_reference_set`, to measure similarity to other data than ImageNet.
        measure_benefit: after the search, train the winner from scratch on the same images, in at most a fifth of the
            time, to say what pretraining is worth. Large data far from ImageNet get it unasked, where it fits.
        device: "auto" (a GPU where torch sees one, else the CPU), "cpu" or "cuda".
        callbacks: called with the advice, with every trial as it ends, and with the result.
        quiet: print nothing.

    Raises:
        InputError: before anything expensive starts, with every problem of the arguments, the folder, the space
            and the backbones at once; its subclass when all of them are of one kind.
        SearchError: if Ray could not be started; the best linear probe is in the run folder.
        MachineError: if the disk is full, files vanish or cannot be read or written; a model that was there by then is
            in the run folder, and the exception's notes name it.
    """
    check_types(locals())
    begun = clock.now()
    sleep_if_others_work(starts_workers=True)
    settings = FitSettings(
        dataset_dir=Path(dataset_dir),
        budget=Budget(as_seconds(timeout), None if n_trials is None else int(n_trials)),
        metric=metric,
        search_space=as_space(search_space),
        backbones=as_names(backbones),
        reuse=as_paths(reuse),
        output_dir=None if output_dir is None else Path(output_dir),
        seed=int(seed),
        val_fraction=float(val_fraction),
        skip_unreadable=skip_unreadable,
        allow_download=allow_download,
        resources=resources or Resources(),
        reference=None if reference is None else Path(reference),
        measure_benefit=measure_benefit,
        device=device,
    )
    from autotl.pipeline.validate import validate

    inputs = validate(settings, callbacks)
    from autotl.pipeline.context import versions  # only now: they load torch
    from autotl.pipeline.guard import told

    output = settings.output_dir or rundir.default_path(settings.dataset_dir)
    with (
        noticed(),
        _only_fit(),
        rundir.occupied(output) as run,
        log_to_file(run.log),
        told(run),
        listed() as leftovers,
    ):
        write_json(run.settings, settings.to_json() | {"versions": versions(), "python": platform.python_version()})
        return _fit(run, settings, inputs, leftovers, begun=begun, callbacks=callbacks, quiet=quiet)


def resume(
    run_dir: PathLike,
    *,
    timeout: float | str = 600,
    n_trials: int | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> FitResult:
    """Go on with a run: one that was interrupted or killed, or one that has ended and gets more time.

    The trials that have ended, the sampler's study, the best model and the caches are used; everything that was asked
    for is as it was, but for the time. Its images are read and probed again. Trials in the middle of which the run was
    ended or killed go on from the last epoch that was kept, before anything else is tried.

    Args:
        run_dir: the run folder, with a model.
        timeout: wall time for this session, as for `fit`.
        n_trials: end this session after so many trials even if there is time left.
        callbacks: called with the advice, with every trial of this session, and with the result.
        quiet: print nothing.

    Returns:
        The result of all sessions; `trials` says which session each trial is of.

    Raises:
        InputError: if the run cannot be gone on with: its data, the weights or the versions of packages have changed
            (what has is named), a fit is running there, or nothing had been tried; and as `fit`.
        SearchError, MachineError: as `fit`.
    """
    check_types(locals())
    begun = clock.now()
    sleep_if_others_work(starts_workers=True)
    from autotl.pipeline.context import versions
    from autotl.pipeline.guard import told
    from autotl.pipeline.resume import earlier_settings, inputs_of, read_earlier
    from autotl.pipeline.validate import validate

    with (
        noticed(),
        _only_fit(),
        rundir.reopened(Path(run_dir)) as run,
        log_to_file(run.log),
        told(run),
        listed() as leftovers,
    ):
        trials = None if n_trials is None else int(n_trials)
        settings = earlier_settings(run, versions(), as_seconds(timeout), trials)
        earlier = read_earlier(run)
        inputs = inputs_of(validate(settings, callbacks, resumes=True), earlier)
        return _fit(run, settings, inputs, leftovers, earlier, begun=begun, callbacks=callbacks, quiet=quiet)


def _fit(
    run: RunDir,
    settings: FitSettings,
    inputs: ValidInput,
    leftovers: Leftovers,
    earlier: Earlier | None = None,
    *,
    begun: float,
    callbacks: Sequence[Callback],
    quiet: bool,
) -> FitResult:
    """A session in a run folder that is its own, with input that has been checked."""
    from autotl.compute.device import use_device
    from autotl.pipeline.context import make_context
    from autotl.pipeline.fit import fit as run_fit
    from autotl.tune.session import RaySession

    leftovers.add(run.cache)
    sweep()
    use_device(settings.device)
    end = begun + settings.budget.timeout
    console = Console(quiet=quiet, deadline=end)
    with RaySession(_without_gpus(settings), leftovers.add, end - RESERVE) as ray:
        return run_fit(make_context(settings, inputs, run, console, begun, callbacks, earlier=earlier), ray)


def reproduce(run_dir: PathLike, *, device: str = "auto", quiet: bool = False) -> Reproduction:
    """Train a run's winner again, from its record, and compare the scores.

    The data is read, split and embedded as it was, and the winner trained with its config, its epochs and its seed,
    after the trials from whose weights it began; for an average, all that it is the mean of. The run folder is not
    written to.

    Args:
        run_dir: of the run; the data set has to be where it was.
        device: "auto" (a GPU where torch sees one, else the CPU), "cpu" or "cuda".
        quiet: print nothing.

    Returns:
        Both scores, and what is not as it was then: packages, the number format. On one machine, with the same packages
        and as many cores, they are the same number, or nearly so: threads add numbers up in another order.

    Raises:
        InputError: if the data has changed, weights or records are missing, or settings cannot be read.
        ModelFileError: if the winner's card cannot be read.
        MachineError: as `fit`.
    """
    check_types(locals())
    begun = clock.now()
    sleep_if_others_work()
    from autotl.compute.device import use_device
    from autotl.pipeline.context import make_context, versions
    from autotl.pipeline.guard import told
    from autotl.pipeline.reproduce import reproduce as train_again
    from autotl.pipeline.reproduce import with_its_backbone
    from autotl.pipeline.resume import changed_versions, read_earlier, read_settings
    from autotl.pipeline.validate import check_device, validate
    from autotl.storage.saved_model import load_card

    raise_if_any(check_device(device))
    run = rundir.find(run_dir)
    card, earlier, changed = load_card(run.model), read_earlier(run), changed_versions(run, versions())
    # Where it ran need not be here: a cluster, more cores.
    settings = replace(read_settings(run), output_dir=None, device=device, resources=Resources())
    inputs = with_its_backbone(validate(settings, resumes=True), card)
    use_device(device)
    console = Console(quiet=quiet)
    with _only_fit(), tempfile.TemporaryDirectory(prefix="autotl-reproduce-") as folder:
        scratch = RunDir(Path(folder))
        with told(scratch), noticed():
            context = make_context(settings, inputs, scratch, console, begun, earlier=earlier)
            result = train_again(context, card, earlier, changed)
    console.reproduction(result)
    return result


@contextmanager
def _only_fit() -> Iterator[None]:
    """One at a time in a process.

    Raises:
        SettingsError: if another thread fits.
    """
    if not _fitting.acquire(blocking=False):
        remedy = "wait for it, or start this one in a process of its own"
        raise SettingsError([Problem("settings", "fit", "another fit is running in this process", remedy=remedy)])
    try:
        yield
    finally:
        _fitting.release()


def _without_gpus(settings: FitSettings) -> Resources:
    """What the settings ask of Ray: no GPUs with device "cpu"."""
    return replace(settings.resources, gpus_per_trial=0.0) if settings.device == "cpu" else settings.resources


def advise(
    dataset_dir: PathLike,
    *,
    timeout: float | str = 25,
    backbones: str | Sequence[str] = "auto",
    reuse: PathLike | Sequence[PathLike] = (),
    metric: str = "auto",
    seed: int = 0,
    val_fraction: float = 0.2,
    skip_unreadable: bool = False,
    allow_download: bool = False,
    reference: PathLike | None = None,
    device: str = "auto",
    quiet: bool = True,
) -> Advice:
    """Say how near a data set is to ImageNet, how large it is, and what follows, without training anything.

    Other arguments are those of `fit`.

    Args:
        timeout: seconds, or as "90s", "10m", "1.5h"; at least 20 s. Backbones that are not named are probed, after the
            first, for as long as it allows; what has to be done takes the time it takes.

    Raises:
        InputError: with every problem of the arguments and the folder at once.
        MachineError: if a disk is full, or files vanish or cannot be read or written.
    """
    check_types(locals())
    begun = clock.now()
    sleep_if_others_work()
    settings = FitSettings(
        dataset_dir=Path(dataset_dir),
        budget=Budget(as_seconds(timeout)),
        metric=metric,
        backbones=as_names(backbones),
        reuse=as_paths(reuse),
        seed=int(seed),
        val_fraction=float(val_fraction),
        skip_unreadable=skip_unreadable,
        allow_download=allow_download,
        reference=None if reference is None else Path(reference),
        device=device,
    )
    from autotl.pipeline.validate import validate

    inputs = validate(settings)
    from autotl.compute.device import use_device  # only now: they load torch
    from autotl.pipeline.context import make_context
    from autotl.pipeline.fit import advise as run_advise
    from autotl.pipeline.guard import told

    use_device(device)
    with tempfile.TemporaryDirectory(prefix="autotl-advise-") as folder:
        run = RunDir(Path(folder))
        with told(run), noticed():
            return run_advise(make_context(settings, inputs, run, Console(quiet=quiet), begun))


def build_reference_set(
    images: PathLike,
    backbone: str,
    output: PathLike,
    *,
    name: str | None = None,
    allow_download: bool = False,
    quiet: bool = True,
) -> ReferenceSet:
    """Embed photographs of some data, and write a file to measure similarity to that data with.

    Args:
        images: a folder of photographs at any depth. Each is of the class that its folder is named after, or, where it
            lies directly in `images`, its file; a leading WordNet id is left out. Of more than 1,000 photographs so
            many are taken, from all classes alike.
        backbone: one of the catalog, a timm model, or NAME=PATH for weights in a local file.
        output: the file to write, which must not exist.
        name: what the photographs stand for, in the advice's words; by default the name of the folder.
        allow_download: fetch weights that are not on this machine from timm's model hub.
        quiet: print nothing.

    Returns:
        What was written.

    Raises:
        InputError: with every problem of the arguments, the photographs and the backbone at once.
    """
    check_types(locals())
    sleep_if_others_work()
    from autotl.compute.device import use_device
    from autotl.pipeline.reference_set import ReferenceRequest, build

    use_device("auto")
    root = Path(images)
    name = name or root.resolve().name
    request = ReferenceRequest(root, backbone, Path(output), name, allow_download, local_cpus())
    return build(request, Console(quiet=quiet))


def load(run_dir: PathLike, *, device: str = "auto") -> Predictor:
    """The best model of a run, ready to predict.

    Args:
        run_dir: of the run.
        device: "auto" (a GPU where torch sees one, else the CPU), "cpu" or "cuda".

    Raises:
        SettingsError: if there is no such device.
        RunFolderError: if the folder is not that of a run that has a model.
        ModelFileError: if the model is damaged or was written by a newer autotl.
    """
    check_types(locals())
    sleep_if_others_work()
    from autotl.compute.device import use_device
    from autotl.pipeline.validate import check_device
    from autotl.predictor import load_predictor

    raise_if_any(check_device(device))
    use_device(device)
    return load_predictor(rundir.find(run_dir).model)


def evaluate(run_dir: PathLike, dataset_dir: PathLike, *, device: str = "auto") -> dict[str, Estimate]:
    """The metrics of a run's best model on labelled images, with 95% intervals.

    Args:
        run_dir: of the run.
        dataset_dir: DIR/CLASS/images; where DIR has splits, the test split is taken, else the whole of it.

        device: as of `load`.

    Raises:
        SettingsError, RunFolderError, ModelFileError: as `load`.
        DatasetError: if the folder cannot be used or has classes that the model does not know.
    """
    check_types(locals())
    import numpy as np

    from autotl.data.splits import label_numbers
    from autotl.train.metrics import estimate

    predictor = load(run_dir, device=device)
    listing, problems = list_folder(Path(dataset_dir), for_training=False)
    unknown = sorted(set(listing.classes) - set(predictor.classes))
    if unknown:
        known = ", ".join(predictor.classes)
        found = f"classes the model does not know: {', '.join(unknown)}"
        problems.append(Problem("dataset", str(dataset_dir), found, known))
    raise_if_any(problems)
    tested = [image for image in listing.images if image.split == "test"] or list(listing.images)
    labels = label_numbers([image.label for image in tested], predictor.classes)
    probabilities = predictor.probabilities([listing.root / image.path for image in tested])
    defined = [metric for metric in METRICS if metric != "roc_auc" or len(np.unique(labels)) > 1]
    return {metric: estimate(metric, probabilities, labels) for metric in defined}
