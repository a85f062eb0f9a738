"""The images of a call: split, decoded, and embedded by the first backbone, all three at once where that can be.

Images are decoded in the background while weights are loaded and a way to embed is chosen, and are embedded in the
order in which they are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from autotl.compute.device import Precision, Speed, measure_device, pick_device
from autotl.console import Console
from autotl.data.folder import Listing, check_classes, unreadable_problems, without
from autotl.data.on_demand import OnDemand, fits
from autotl.data.pixels import Decoding, PixelStore, store_bytes
from autotl.data.splits import Dataset, make_dataset, part_of
from autotl.errors import raise_if_any
from autotl.frozen.prepare import PreparedBackbone
from autotl.models.backbone import preprocessing_named
from autotl.models.catalog import BackboneEntry
from autotl.pipeline.budget import affordable_share, within_reach
from autotl.pipeline.context import (
    EXPECTED_PASSES,
    PreparedData,
    RunContext,
    candidates,
    embed,
    provenance,
    rows_for_stages,
    rows_to_embed,
    views_to_keep,
)
from autotl.pipeline.resume import describe, keep_or_compare
from autotl.threads import local_cpus
from autotl.train.metrics import default_metric


class _Damaged(Exception):
    """A file cannot be decoded, so that the data will not be these: embedding need not go on."""


def read_data(context: RunContext, passes: int = EXPECTED_PASSES) -> PreparedData:
    """Split the images, decode them, and embed them with the first backbone.

    Args:
        context: what was asked for.
        passes: how often its images will go through frozen stages; decides what is worth converting for that.

    Raises:
        DatasetError: if images cannot be decoded and are not to be skipped; all of them are listed.
        BackboneError: if the weights of the first backbone are missing or do not fit.
        RunFolderError: if a session goes on with a run, and its data is another now.
    """
    listing = context.inputs.listing
    while True:
        found = _read(context, listing, passes)
        if isinstance(found, PreparedData):
            if passes > 1:
                keep_or_compare(context.run, context.earlier, describe(found.dataset, found.share, found.store.size))
            return found
        if not context.settings.skip_unreadable:
            raise_if_any(unreadable_problems(listing.root, found))
        listing = without(listing, found)
        raise_if_any(check_classes(listing))


def _read(context: RunContext, listing: Listing, passes: int) -> PreparedData | dict[str, str]:
    """The data of a call; or, where files cannot be decoded, what is wrong with them, by path."""
    required, optional = candidates(context)
    speed, searches = measure_device(pick_device()), passes > 1
    dataset = make_dataset(listing, context.settings.val_fraction, context.settings.seed)
    dataset, share = _affordable(context, dataset, required, speed, searches=searches)
    rows = rows_to_embed(dataset, context.settings.seed)
    timeout = context.settings.budget.timeout
    optional = within_reach(optional, len(rows), timeout, speed, local_cpus(), searches=searches)
    size = max(preprocessing_named(entry.timm_name).store_size for entry in (*required, *optional))
    if context.earlier is not None:
        size = int(context.earlier.data["store_size"])
    with _decoding(context, dataset, size) as decoding:
        show = _shown_once(context.console, dataset, decoding, len(rows))

        def between() -> None:
            if decoding.is_damaged:
                raise _Damaged
            show()

        first = None
        with suppress(_Damaged):
            first = embed(
                context,
                required[0],
                decoding.store,
                rows,
                speed.precision,
                passes=passes,
                stage_rows=rows_for_stages(dataset, rows, context.settings.seed),
                decoding=decoding,
                between=between,
                keep=views_to_keep(context, dataset, rows) if searches else None,
                data_fingerprint=dataset.image_fingerprint(),
            )
        store, decoded = decoding.finish()
    show()
    if first is None or decoded.unreadable:
        return decoded.unreadable
    return _prepared_data(context, dataset, share, store, speed.precision, first, optional)


def _decoding(context: RunContext, dataset: Dataset, size: int) -> Decoding | OnDemand:
    """The images on their way into a store; or, where the disk has no room for that, as their files."""
    target = context.run.cache / "pixels.u8"
    if not fits(len(dataset.paths), size, target.parent):
        return OnDemand(dataset.root, dataset.paths, size, target, local_cpus())
    order = np.concatenate([dataset.indices("train", "val"), dataset.indices("test")])
    return Decoding(dataset.root, dataset.paths, size, target, local_cpus(), order)


def _affordable(
    context: RunContext, dataset: Dataset, required: Sequence[BackboneEntry], speed: Speed, *, searches: bool
) -> tuple[Dataset, float]:
    """The data set, or a part of it where embedding all of it would leave too little time for anything else; its share.

    A session that goes on uses what the first one did, whatever its time: scores are compared.
    """
    if context.earlier is not None:
        share, why = float(context.earlier.data["share"]), "as in the first session of this run"
        return (dataset, share) if share == 1.0 else (part_of(dataset, share, context.settings.seed, why), share)
    gmacs = sum(entry.gmacs for entry in required)
    n_images, timeout = len(dataset.indices("train", "val")), context.settings.budget.timeout
    share, seconds = affordable_share(n_images, gmacs, timeout, speed, local_cpus(), searches=searches)
    if share == 1.0:
        return dataset, share
    why = f"embedding all of them would take about {seconds:.0f} of {timeout:.0f} s; give it more time for all"
    return part_of(dataset, share, context.settings.seed, why), share


def _prepared_data(
    context: RunContext,
    dataset: Dataset,
    share: float,
    store: PixelStore,
    precision: Precision,
    first: PreparedBackbone,
    optional: tuple[BackboneEntry, ...],
) -> PreparedData:
    metric = (
        default_metric(dataset.counts("train", "val")) if context.settings.metric == "auto" else context.settings.metric
    )
    return PreparedData(
        dataset=dataset,
        share=share,
        store=store,
        metric=metric,
        balanced=metric in ("balanced_accuracy", "f1_macro"),
        precision=precision,
        provenance=provenance(context, dataset, metric, precision),
        first=first,
        optional=optional,
    )


def _shown_once(
    console: Console, dataset: Dataset, decoding: Decoding | OnDemand, n_embedded: int
) -> Callable[[], None]:
    """A function that shows what the images are, once, as soon as all of them are decoded."""
    shown = False

    def show() -> None:
        nonlocal shown
        if shown or not decoding.is_over:
            return
        shown = True
        decoded = decoding.found
        for finding in decoded.findings:
            console.line(f"  note: {finding.message}")
        if not decoded.unreadable:
            _show_data(console, dataset, decoding, n_embedded)

    return show


def _show_data(console: Console, dataset: Dataset, decoding: Decoding | OnDemand, n_embedded: int) -> None:
    console.heading(f"Data  {dataset.root}")
    counts = dataset.counts("train", "val")
    shown = ", ".join(f"{name} {count}" for name, count in zip(dataset.classes[:8], counts[:8], strict=True))
    more = f", and {len(counts) - 8} more" if len(counts) > 8 else ""
    console.line(f"  {len(dataset.classes)} classes: {shown}{more}")
    own = "its own" if dataset.own_validation else "held back"
    n_train, n_val = len(dataset.indices("train")), len(dataset.indices("val"))
    sizes = f"{n_train} training, {n_val} validation ({own})"
    test = len(dataset.indices("test"))
    tested = f"{test} test" if test else "no test split"
    console.line(f"  {len(dataset.paths)} images {_how_decoded(decoding)}: {sizes}, {tested}")
    if n_embedded < n_train + n_val:
        console.line(f"  the advice is from a stratified sample of {n_embedded} training and validation images")
    for finding in dataset.findings:
        named = f" ({', '.join(finding.paths[:3])}{', …' if len(finding.paths) > 3 else ''})" if finding.paths else ""
        mark = "warning" if finding.severity == "warning" else "note"
        console.line(f"  {mark}: {finding.message}{named}", "yellow" if mark == "warning" else None)


def _how_decoded(decoding: Decoding | OnDemand) -> str:
    if isinstance(decoding, Decoding):
        return f"decoded in {decoding.seconds:.1f} s"
    size = store_bytes(decoding.store.n_images, decoding.store.size) / 2**30
    return f"decoded whenever they are needed (all of them, {size:.1f} GiB, would fill the disk)"
