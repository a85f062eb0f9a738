"""The way of the data, step by step: check, decode, embed, advise, search, hand back. `api` opens the door to it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotl.advice.advisor import Advice
from autotl.advice.advisor import advise as put_together
from autotl.advice.evidence import BackboneEvidence, LabelledFeatures, probe_backbone
from autotl.advice.reference import load_yardstick
from autotl.advice.similarity import Similarity, measure_similarity
from autotl.checks import Checked, available_backbones
from autotl.console import Console
from autotl.data.folder import Listing, check_classes, unreadable_problems, without
from autotl.data.pixels import PixelStore, build_store
from autotl.data.splits import Dataset, make_dataset
from autotl.errors import SearchError, raise_if_any
from autotl.models.backbone import preprocessing_named
from autotl.models.catalog import BackboneEntry, find_entry
from autotl.models.saved import load_card, offer
from autotl.planning import ADVICE_SHARE, chosen_backbones, epochs, expected_seconds
from autotl.predictor import Predictor, load_predictor
from autotl.refit import REFIT, refit_probe, refit_trial
from autotl.result import FitResult, Status, TrialRecord
from autotl.rundir import RunDir, write_json
from autotl.settings import FitSettings
from autotl.space.files import load_space, to_toml
from autotl.space.search_space import SearchSpace
from autotl.train.cache import DiskCache, default_folder
from autotl.train.device import Precision, keep_freed_memory, measure_precision, pick_device
from autotl.train.metrics import all_metrics, default_metric, estimate
from autotl.train.prepare import Prepared, prepare, probe_card, probe_state, save_head
from autotl.train.probe import Probe
from autotl.train.task import BackboneFiles, TrainingTask, save_manifest
from autotl.tune.runner import RaySession, SearchPlan, Slots, local_cpus, run_search

PACKAGES = ("autotl", "torch", "timm", "ray", "optuna", "numpy", "scipy", "scikit-learn")
EXPECTED_PASSES = 4
"""How often a fit sends the images through frozen stages: once to embed them, and for the views of the trials."""
REFIT_IMAGES = 1000
"""Training and validation images up to which the winner is trained on both, where autotl divided them."""
REFIT_SHARE = 0.12
"""Of the time, kept back for that."""
CLOSING_FACTOR = 2.0
"""The winner predicts in plain torch, up to so many times as slow as the images were embedded."""
CLOSING_SECONDS = 5.0
"""Kept back for ending Ray and loading the winner; the test split comes on top."""


@dataclass(frozen=True, slots=True)
class Probed:
    """A prepared backbone with its linear probe."""

    prepared: Prepared
    evidence: BackboneEvidence
    probe: Probe


@dataclass(frozen=True, slots=True)
class Ground:
    """What everything after the decoding stands on."""

    dataset: Dataset
    store: PixelStore
    metric: str
    balanced: bool
    precision: Precision


class Fitting:
    """One fit, or the part of it that ends with the advice.

    Args:
        settings: what was asked for.
        checked: what `check` returned for them.
        run: the run folder.
        console: where to tell about it.
        begun: time.time() at which the time given began to run.
    """

    def __init__(self, settings: FitSettings, checked: Checked, run: RunDir, console: Console, begun: float) -> None:
        self.settings = settings
        self.checked = checked
        self.run = run
        self.console = console
        self.begun = begun
        self.records: list[TrialRecord] = []
        self.cache = DiskCache(default_folder())
        keep_freed_memory()

    # -- the two ways through ------------------------------------------------------------------------------------

    def fit(self, ray: RaySession) -> FitResult:
        """Everything. The model in the run folder is usable from the first linear probe on."""
        ground = self.read_data()
        advice = None
        try:
            probed = self.probe_backbones(ground, keep=True)
            advice = self.put_together(ground, probed)
            write_json(self.run.advice, advice.to_json())
            interrupted = self.search(ground, probed, advice, ray.wait())
        except KeyboardInterrupt:
            if advice is None:
                if (self.run.model / "model.json").exists():
                    self.console.line(f"  interrupted; the best model so far is in {self.run.path}")
                raise
            interrupted = True
        return self.close(ground, advice, interrupted)

    def advise(self) -> Advice:
        """The advice alone."""
        ground = self.read_data()
        return self.put_together(ground, self.probe_backbones(ground, keep=False))

    # -- data ----------------------------------------------------------------------------------------------------

    def read_data(self) -> Ground:
        """Decode and split.

        Raises:
            DatasetError: if images cannot be decoded and are not to be skipped; all of them are listed.
        """
        listing = self.checked.listing
        entries = self.checked.entries or available_backbones()
        size = max(preprocessing_named(entry.name).store_size for entry in entries)
        begun = time.perf_counter()
        store, unreadable = self._decode(listing, size)
        if unreadable:
            if not self.settings.skip_unreadable:
                raise_if_any(unreadable_problems(listing.root, unreadable))
            listing = without(listing, unreadable)
            raise_if_any(check_classes(listing))
            store, _ = self._decode(listing, size)
        dataset = make_dataset(listing, self.settings.val_fraction, self.settings.seed)
        self._tell_data(dataset, time.perf_counter() - begun)
        counts = dataset.counts("train", "val")
        metric = default_metric(counts) if self.settings.metric == "auto" else self.settings.metric
        return Ground(
            dataset=dataset,
            store=store,
            metric=metric,
            balanced=metric in ("balanced_accuracy", "f1_macro"),
            precision=measure_precision(pick_device()),
        )

    def _decode(self, listing: Listing, size: int) -> tuple[PixelStore, dict[str, str]]:
        paths = [image.path for image in listing.images]
        with self.console.progress("decoding images", len(paths)) as on_progress:
            store, decoded = build_store(
                listing.root, paths, size, self.run.cache / "pixels.u8", local_cpus(), on_progress
            )
        for finding in decoded.findings:
            self.console.line(f"  note: {finding.message}")
        return store, decoded.unreadable

    def _tell_data(self, dataset: Dataset, seconds: float) -> None:
        self.console.heading(f"Data  {dataset.root}")
        counts = dataset.counts("train", "val")
        shown = ", ".join(f"{name} {count}" for name, count in zip(dataset.classes[:8], counts[:8], strict=True))
        more = f", and {len(counts) - 8} more" if len(counts) > 8 else ""
        self.console.line(f"  {len(dataset.classes)} classes: {shown}{more}")
        own = "its own" if dataset.own_validation else "held back"
        sizes = f"{len(dataset.indices('train'))} training, {len(dataset.indices('val'))} validation ({own})"
        test = len(dataset.indices("test"))
        tested = f"{test} test" if test else "no test split"
        self.console.line(f"  {len(dataset.paths)} images decoded in {seconds:.1f} s: {sizes}, {tested}")
        for finding in dataset.findings:
            named = (
                f" ({', '.join(finding.paths[:3])}{', …' if len(finding.paths) > 3 else ''})" if finding.paths else ""
            )
            mark = "warning" if finding.severity == "warning" else "note"
            self.console.line(f"  {mark}: {finding.message}{named}", "yellow" if mark == "warning" else None)

    # -- advice --------------------------------------------------------------------------------------------------

    def probe_backbones(self, ground: Ground, *, keep: bool) -> list[Probed]:
        """Embed the images with each backbone and fit the linear probes; `keep` saves the best as the run's model."""
        self.console.heading("Backbones on your images, frozen")
        asked = bool(self.checked.entries)
        limit = self.begun + ADVICE_SHARE * self.settings.budget.timeout
        probed: list[Probed] = []
        for entry in self.checked.entries or available_backbones():
            expected = expected_seconds(entry, probed[0].prepared if probed else None)
            if not asked and probed and time.time() + expected > limit:
                left = max(0.0, limit - time.time())
                self.console.line(f"  {entry.name}: left out, probing would take {expected:.0f} s of {left:.0f} s left")
                continue
            probed.append(self._probe(entry, ground, keep=keep))
            if keep:
                self._keep_probe(probed[-1], ground)
        return probed

    def _probe(self, entry: BackboneEntry, ground: Ground, *, keep: bool) -> Probed:
        rows = ground.dataset.indices("train", "val")
        with self.console.progress(f"embedding with {entry.name}", len(rows)) as on_progress:
            prepared = prepare(
                entry,
                ground.store,
                rows,
                self.run.cache / "weights",
                ground.precision,
                allow_download=self.settings.allow_download,
                workers=local_cpus(),
                passes=EXPECTED_PASSES if keep else 1,
                cache=self.cache,
                on_progress=on_progress,
            )
        evidence, probe = probe_backbone(
            entry.name,
            _features(prepared, ground.dataset),
            ground.metric,
            balanced=ground.balanced,
            top1=entry.top1,
            images_per_second=prepared.images_per_second,
            n_stages=prepared.n_stages,
        )
        self.console.line(
            f"  {entry.name}: {ground.metric} of linear probe {evidence.probe_score:.4f}, nearest neighbours "
            f"{evidence.knn_score:.4f} ({prepared.images_per_second:.0f} images/s with {prepared.engine})"
        )
        return Probed(prepared, evidence, probe)

    def _keep_probe(self, probed: Probed, ground: Ground) -> None:
        """Record the probe as a trial and offer it as the run's model, for as long as nothing beats it."""
        prepared, evidence, probe = probed.prepared, probed.evidence, probed.probe
        val = ground.dataset.indices("val")
        probabilities = probe.probabilities(prepared.of(val))
        labels = ground.dataset.labels[val]
        card = probe_card(
            prepared,
            ground.dataset.classes,
            ground.metric,
            evidence.probe_score,
            evidence.probe_metrics["log_loss"],
            estimate(ground.metric, probabilities, labels),
            self._provenance(ground),
        )
        state = probe_state(prepared, probe, len(ground.dataset.classes))
        if state is not None:
            offer(self.run, card, lambda: state)
        record = TrialRecord(
            number=len(self.records),
            trial_id=card.trial_id,
            config=card.config,
            status=Status.COMPLETED,
            score=evidence.probe_score,
            epochs=0,
            seconds=round(prepared.seconds, 2),
            metrics=evidence.probe_metrics,
            origin="probe",
        )
        self.records.append(record)
        self.run.append_trial(record.to_json())

    def put_together(self, ground: Ground, probed: list[Probed]) -> Advice:
        """The advice, told and returned."""
        similarity = self._measure_similarity(ground, probed)
        advice = put_together(ground.dataset, similarity, [one.evidence for one in probed])
        self.console.heading("Advice")
        for statement in advice.statements:
            self.console.line(f"  {statement.text}", "yellow" if statement.severity == "warning" else None)
        return advice

    def _measure_similarity(self, ground: Ground, probed: list[Probed]) -> Similarity:
        yardstick = load_yardstick()
        rows = ground.dataset.indices("train", "val")
        for one in probed:
            if one.prepared.entry.name == yardstick.backbone and one.prepared.entry.weights == "bundled":
                return measure_similarity(one.prepared.of(rows), yardstick, self.settings.seed)
        some = np.sort(np.random.default_rng(self.settings.seed).permutation(rows)[:1000])
        entry = find_entry(yardstick.backbone)
        prepared = prepare(
            entry,
            ground.store,
            some,
            self.run.cache / "yardstick",
            ground.precision,
            allow_download=False,
            workers=local_cpus(),
            passes=1,
            cache=self.cache,
            on_progress=lambda done: None,
        )
        return measure_similarity(prepared.embeddings, yardstick, self.settings.seed)

    # -- search --------------------------------------------------------------------------------------------------

    def search(self, ground: Ground, probed: list[Probed], advice: Advice, slots: Slots) -> bool:
        """Run the trials; whether the user ended them early."""
        chosen = chosen_backbones(advice)
        space = self.checked.space or load_space(advice.scenario.space)
        space = space.narrow(backbone=tuple(one.name for one in chosen))
        self.run.space.write_text(to_toml(space), "utf-8")
        deadline = self.begun + self.settings.budget.timeout - self._closing_seconds(ground, advice)
        task = self._make_task(ground, probed, space, slots, deadline - self._refit_seconds(ground))
        plan = SearchPlan(
            run=self.run,
            task=task,
            space=space,
            n_stages={one.name: one.n_stages for one in chosen},
            start_points=[point for point in advice.start_points if point["backbone"] in space.backbones],
            n_trials=self.settings.budget.n_trials,
            slots=slots,
            first_number=len(self.records),
        )
        left = task.deadline - time.time()
        self.console.heading("Search")
        self.console.line(
            f"  space {space.name}, {len(chosen)} backbones, {task.max_t} epochs a full trial, {slots.count} trials "
            f"at once, {max(0.0, left):.0f} s"
        )
        for record in self.records:
            self.console.note_score(record)
        self.console.trial_header(len(chosen))
        interrupted = False
        with self.console.countdown(left):
            try:
                searched = run_search(plan, lambda record: self._tell_trial(record, plan))
                interrupted = searched.interrupted
            except SearchError as error:
                self.console.line(f"  {error}", "red")
        if not interrupted and self._refit_seconds(ground) and (self.run.model / "model.json").exists():
            self._refit(ground, probed, replace(task, deadline=deadline))
        return interrupted

    def _refit_seconds(self, ground: Ground) -> float:
        """What is kept back to train the winner on validation images, too; 0 where that is not done."""
        small = len(ground.dataset.indices("train", "val")) <= REFIT_IMAGES
        return REFIT_SHARE * self.settings.budget.timeout if small and not ground.dataset.own_validation else 0.0

    def _refit(self, ground: Ground, probed: list[Probed], task: TrainingTask) -> None:
        card = load_card(self.run.model)
        record = next((one for one in self.records if one.trial_id == card.trial_id), None)
        probe = next((one for one in probed if f"probe-{one.evidence.name}" == card.trial_id), None)
        if probe is not None:
            labels = ground.dataset.labels[probe.prepared.rows]
            n_classes = len(ground.dataset.classes)
            why = refit_probe(
                probe.prepared, labels, probe.probe.strength, n_classes, self.run, balanced=ground.balanced
            )
        elif record is not None:
            why = refit_trial(task, self.run, record.seconds / max(1, record.epochs))
        else:
            why = "its record is missing"
        done = f"  winner {REFIT}" if not why else f"  winner not trained on validation images, too: {why}"
        self.console.line(done)

    def _tell_trial(self, record: TrialRecord, plan: SearchPlan) -> None:
        self.records.append(record)
        self.console.trial(record, plan.n_stages[record.config["backbone"]])

    def _make_task(
        self, ground: Ground, probed: list[Probed], space: SearchSpace, slots: Slots, deadline: float
    ) -> TrainingTask:
        manifest = self.run.cache / "manifest.npz"
        save_manifest(manifest, ground.dataset.labels, ground.dataset.split)
        files = {}
        for one in probed:
            if one.evidence.name in space.backbones:
                head = self.run.cache / "heads" / f"{one.evidence.name}.npz"
                head.parent.mkdir(exist_ok=True)
                save_head(one.probe, head)
                files[one.evidence.name] = BackboneFiles(
                    weights_sha256=one.prepared.weights_sha256,
                    state=str(one.prepared.state),
                    converted=str(one.prepared.converted or ""),
                    head=str(head),
                    source_learning_rate=one.prepared.entry.source_learning_rate(),
                    n_stages=one.prepared.n_stages,
                    seconds_per_image=local_cpus() / one.prepared.images_per_second,
                )
        max_t = epochs(space, files, len(ground.dataset.indices("train")), deadline - time.time(), slots)
        return TrainingTask(
            run_dir=str(self.run.path),
            store=str(ground.store.path),
            manifest=str(manifest),
            classes=ground.dataset.classes,
            metric=ground.metric,
            balanced=ground.balanced,
            backbones=files,
            precision=ground.precision,
            max_t=max_t,
            n_views=min(4, max(2, max_t // 2)),
            cache_dir=str(self.cache.folder),
            cache_limit=self.cache.limit,
            data_fingerprint=ground.dataset.image_fingerprint(),
            seed=self.settings.seed,
            deadline=deadline,
            threads=slots.cpus,
            provenance=self._provenance(ground),
        )

    def _provenance(self, ground: Ground) -> dict[str, Any]:
        return {
            "dataset": str(ground.dataset.root),
            "dataset_fingerprint": ground.dataset.fingerprint(),
            "seed": self.settings.seed,
            "precision": ground.precision,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.begun)),
            "versions": versions(),
        }

    def _closing_seconds(self, ground: Ground, advice: Advice) -> float:
        """What loading the winner and predicting the test split will take."""
        slowest = min(one.images_per_second for one in advice.backbones)
        return CLOSING_SECONDS + CLOSING_FACTOR * len(ground.dataset.indices("test")) / slowest

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self, ground: Ground, advice: Advice, interrupted: bool) -> FitResult:
        """Load the winner from the run folder, measure it on the test split, write and tell the result."""
        if not (self.run.model / "model.json").exists():
            if interrupted:
                raise KeyboardInterrupt
            raise SearchError("no trial came to an end, and the classifier of these backbones takes no linear probe")
        predictor = load_predictor(self.run.model)
        card = load_card(self.run.model)
        test = ground.dataset.indices("test")
        tested, metrics = None, {}
        if len(test):
            probabilities = _predict_rows(predictor, ground.store, test)
            labels = ground.dataset.labels[test]
            metrics = all_metrics(probabilities, labels)
            tested = estimate(ground.metric, probabilities, labels)
        result = FitResult(
            predictor=predictor,
            advice=advice,
            trials=tuple(self.records),
            metric=ground.metric,
            validation=card.validation,
            test=tested,
            test_metrics=metrics,
            run_dir=self.run.path,
            seconds=time.time() - self.begun,
            interrupted=interrupted,
        )
        write_json(self.run.result, result.to_json())
        n_stages = next(one.n_stages for one in advice.backbones if one.name == card.backbone)
        self.console.winner(result, n_stages)
        return result


def _features(prepared: Prepared, dataset: Dataset) -> LabelledFeatures:
    train, val = dataset.indices("train"), dataset.indices("val")
    return LabelledFeatures(
        prepared.of(train), dataset.labels[train], prepared.of(val), dataset.labels[val], len(dataset.classes)
    )


def _predict_rows(predictor: Predictor, store: PixelStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    pixels = store.open()
    blocks = [
        predictor.probabilities_of_pixels(pixels[rows[start : start + 256]]) for start in range(0, len(rows), 256)
    ]
    return np.concatenate(blocks)


def versions() -> dict[str, str]:
    """The versions of autotl and of what it is built on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
