"""The way of the data, step by step: check, decode, embed, advise, search, hand back. `api` opens the door to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotl.advice.advisor import Advice
from autotl.advice.advisor import advise as put_together
from autotl.advice.benefit import Benefit
from autotl.advice.evidence import BackboneEvidence, look_closer, probe_backbone, rank
from autotl.advice.hindsight import look_back
from autotl.advice.probes import LabelledFeatures
from autotl.advice.reference import load_yardstick
from autotl.advice.similarity import Similarity, measure_similarity
from autotl.benefit import benefit_seconds, measure_benefit
from autotl.checks import Checked, available_backbones
from autotl.console import Console
from autotl.data.folder import Listing, check_classes, unreadable_problems, without
from autotl.data.pixels import PixelStore, build_store
from autotl.data.splits import Dataset, make_dataset, stratified_order
from autotl.errors import SearchError, raise_if_any
from autotl.interrupt import raise_if_pressed
from autotl.models.backbone import preprocessing_named
from autotl.models.catalog import BackboneEntry, find_entry
from autotl.models.saved import load_card, offer
from autotl.planning import ADVICE_SHARE, MOST, chosen_backbones, epochs, expected_seconds, starts_with, without_twins
from autotl.predictor import Predictor, load_predictor
from autotl.result import FitResult, Status, TrialRecord
from autotl.rundir import RunDir, write_json
from autotl.settings import FitSettings
from autotl.soup import average_winner
from autotl.sources import YARDSTICK_IMAGES, leave_yardstick
from autotl.space.files import load_space, to_toml
from autotl.space.search_space import Config, SearchSpace
from autotl.train.cache import DiskCache, default_folder
from autotl.train.cost import START_SECONDS, base_depth, measure_backbones
from autotl.train.device import Precision, give_back_memory, keep_freed_memory, measure_precision, pick_device
from autotl.train.metrics import all_metrics, default_metric, estimate, majority_score
from autotl.train.prepare import Prepared, prepare, probe_card, probe_state, save_head
from autotl.train.probe import Probe
from autotl.train.task import BackboneFiles, TrainingTask, save_manifest
from autotl.tune.pace import predictor
from autotl.tune.runner import RaySession, SearchPlan, Slots, local_cpus, run_search

PACKAGES = ("autotl", "torch", "timm", "ray", "optuna", "numpy", "scipy", "scikit-learn")
EXPECTED_PASSES = 4
"""How often a fit sends the images through frozen stages: once to embed them, and for the views of the trials."""
BASE_BYTES = 4 * 2**30
"""Largest size of the views from which deeper ones are computed."""
MAX_VIEWS = 4
"""Augmented views of the training images that are cached for a frozen prefix."""
STAGE_IMAGES = 2000
"""Training and validation images for which the features of every stage are kept, at most."""
LOOKED_CLOSER = 2
"""So many of the best backbones are probed at every stage."""
CLOSING_FACTOR = 2.0
"""The winner predicts in plain torch, up to so many times as slow as the images were embedded."""
SOUP_SECONDS = 2.0
"""Kept back for averaging the best models; validating the averages comes on top."""
CLOSING_SECONDS = 5.0
"""Kept back for ending Ray and loading the winner; the test split and the yardstick come on top."""
YARDSTICK_SHARE = 0.05
"""Of the time, at most, for the yardstick: fewer images are embedded for it where that is short."""


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
        advice, benefit = None, None
        try:
            probed = self.probe_backbones(ground, keep=True)
            advice = self.put_together(ground, probed)
            write_json(self.run.advice, advice.to_json())
            raise_if_pressed()
            interrupted = self.search(ground, probed, advice, ray.wait())
            benefit = None if interrupted else self.measure_benefit(ground, advice)
        except KeyboardInterrupt:
            if advice is None:
                if self.run.has_model:
                    self.console.line(f"  interrupted; the best model so far is in {self.run.path}")
                raise
            interrupted = True
        return self.close(ground, advice, interrupted, benefit)

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
        required, optional = self._candidates()
        size = max(preprocessing_named(entry.timm_name).store_size for entry in (*required, *optional))
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
        required, optional = self._candidates()
        limit = self.begun + ADVICE_SHARE * self.settings.budget.timeout
        probed: list[Probed] = []
        for entry in (*required, *optional):
            expected = expected_seconds(entry, probed[0].prepared if probed else None)
            if entry in optional and time.time() + expected > limit:
                left = max(0.0, limit - time.time())
                self.console.line(f"  {entry.name}: left out, probing would take {expected:.0f} s of {left:.0f} s left")
                continue
            probed.append(self._probe(entry, ground, keep=keep))
            give_back_memory()
            if keep:
                self._keep_probe(probed[-1], ground)
        return probed

    def _candidates(self) -> tuple[tuple[BackboneEntry, ...], tuple[BackboneEntry, ...]]:
        """Backbones that are probed in any case (those asked for, or the cheapest), and those for which time decides.

        The cheapest pretrained one comes before own sources, so that these have a rival whatever the time.
        """
        if self.checked.entries:
            return self.checked.entries, ()
        own = tuple(source.entry for source in self.checked.sources)
        here = available_backbones()
        return (*here[:1], *own), here[1:]

    def _probe(self, entry: BackboneEntry, ground: Ground, *, keep: bool) -> Probed:
        rows = ground.dataset.indices("train", "val")
        stage_rows = _stage_rows(ground.dataset, self.settings.seed)
        passes = EXPECTED_PASSES if keep else 1
        with self.console.progress(f"embedding with {entry.name}", len(rows)) as show:
            prepared = self._prepare(entry, ground, rows, "weights", passes, show, stage_rows)
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

    def _prepare(
        self,
        entry: BackboneEntry,
        ground: Ground,
        rows: NDArray[np.int64],
        folder: str,
        passes: int,
        show: Callable[[int], None],
        stage_rows: NDArray[np.int64] | None = None,
    ) -> Prepared:
        def on_progress(done: int) -> None:
            raise_if_pressed()
            show(done)

        return prepare(
            entry,
            ground.store,
            rows,
            self.run.cache / folder,
            ground.precision,
            allow_download=self.settings.allow_download,
            workers=local_cpus(),
            passes=passes,
            cache=self.cache,
            on_progress=on_progress,
            stage_rows=stage_rows,
        )

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
        to_sources = self._measure_source_similarities(ground, probed)
        advice = put_together(ground.dataset, similarity, self._look_closer(ground, probed), to_sources)
        self.console.heading("Advice")
        for statement in advice.statements:
            self.console.line(f"  {statement.text}", "yellow" if statement.severity == "warning" else None)
        return advice

    def _look_closer(self, ground: Ground, probed: list[Probed]) -> list[BackboneEvidence]:
        """The evidence, with stages and learning curve of the best backbones."""
        best = rank([one.evidence for one in probed])[:LOOKED_CLOSER]
        return [
            look_closer(
                one.evidence,
                one.probe,
                _features(one.prepared, ground.dataset),
                _stage_features(one.prepared, ground.dataset),
                balanced=ground.balanced,
            )
            if one.evidence in best
            else one.evidence
            for one in probed
        ]

    def _measure_similarity(self, ground: Ground, probed: list[Probed]) -> Similarity:
        yardstick = self.checked.yardstick or load_yardstick()
        entry = find_entry(yardstick.backbone)
        rows = ground.dataset.indices("train", "val")
        prepared = next((one.prepared for one in probed if one.prepared.entry == entry), None)
        if prepared is None:
            rows = np.sort(np.random.default_rng(self.settings.seed).permutation(rows)[:1000])
            prepared = self._prepare(entry, ground, rows, "yardstick", 1, lambda done: None)
        classes = np.array(ground.dataset.classes)[ground.dataset.labels[rows]]
        return measure_similarity(prepared.of(rows), yardstick, classes, self.settings.seed)

    def _measure_source_similarities(self, ground: Ground, probed: list[Probed]) -> tuple[Similarity, ...]:
        rows = ground.dataset.indices("train", "val")
        classes = np.array(ground.dataset.classes)[ground.dataset.labels[rows]]
        prepared = {one.evidence.name: one.prepared for one in probed}
        return tuple(
            measure_similarity(prepared[source.entry.name].of(rows), source.yardstick, classes, self.settings.seed)
            for source in self.checked.sources
        )

    # -- search --------------------------------------------------------------------------------------------------

    def search(self, ground: Ground, probed: list[Probed], advice: Advice, slots: Slots) -> bool:
        """Run the trials; whether the user ended them early."""
        weights = {one.evidence.name: one.prepared.weights_sha256 for one in probed}
        chosen, twins = without_twins(chosen_backbones(advice), weights)
        for twin, name in twins.items():
            self.console.line(f"  {twin}: not searched, its weights are those of {name}")
        space = self.checked.space or load_space(advice.scenario.space)
        space = space.narrow(backbone=tuple(one.name for one in chosen))
        self.run.space.write_text(to_toml(space), "utf-8")
        deadline = self.begun + self.settings.budget.timeout - self._closing_seconds(ground, advice)
        n_stages = {one.name: one.n_stages for one in chosen}
        starts = [space.clip(point, n_stages) for point in starts_with(advice, space.backbones, twins)]
        task = self._make_task(ground, probed, space, starts, slots, deadline)
        plan = SearchPlan(
            run=self.run,
            task=task,
            space=space,
            n_stages=n_stages,
            start_points=starts,
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
        self._tell_costs(task)
        for record in self.records:
            self.console.note_score(record)
        self.console.trial_header(len(chosen))
        interrupted = False
        give_back_memory()  # the driver only waits now
        with self.console.countdown(left):
            try:
                searched = run_search(plan, lambda record: self._tell_trial(record, plan))
                interrupted = searched.interrupted
            except SearchError as error:
                self.console.line(f"  {error}", "red")
        if not interrupted and self.run.has_model:
            self._average(replace(task, deadline=deadline + self._soup_seconds(ground, advice)))
        return interrupted

    def _tell_costs(self, task: TrainingTask) -> None:
        """What an epoch and a full trial of each backbone will take, at some freeze depths."""
        predict = predictor(task)
        for name, files in task.backbones.items():
            depths = sorted({files.n_stages - 1, *range(0, files.n_stages, 3)}, reverse=True)
            configs = [{"backbone": name, "freeze_depth": depth, "augmentation": "light"} for depth in depths]
            told = [
                f"{depth}: {predict(config, 1, depth) - START_SECONDS:.1f} / {predict(config, task.max_t, 0):.0f} s"
                for depth, config in zip(depths, configs, strict=True)
            ]
            self.console.line(f"  {name}, an epoch / a full trial at freeze depth {', '.join(told)}")

    def _average(self, task: TrainingTask) -> None:
        name = f"probe-{load_card(self.run.model).config['backbone']}"
        probe = next((one for one in self.records if one.trial_id == name), None)
        self.console.line(f"  {average_winner(task, self.run, probe)}")

    def _tell_trial(self, record: TrialRecord, plan: SearchPlan) -> None:
        self.records.append(record)
        self.console.trial(record, plan.n_stages[record.config["backbone"]])

    def _make_task(
        self,
        ground: Ground,
        probed: list[Probed],
        space: SearchSpace,
        start_points: list[Config],
        slots: Slots,
        deadline: float,
    ) -> TrainingTask:
        manifest = self.run.cache / "manifest.npz"
        save_manifest(manifest, ground.dataset.labels, ground.dataset.split)
        searched = [one for one in probed if one.evidence.name in space.backbones]
        stages = measure_backbones(
            {one.evidence.name: (one.prepared.entry.timm_name, one.prepared.state) for one in searched},
            len(ground.dataset.classes),
            ground.precision,
        )
        n_viewed = MAX_VIEWS * len(ground.dataset.indices("train")) + len(ground.dataset.indices("val"))
        files = {}
        for one in searched:
            name = one.evidence.name
            lowest = space.lowest_depth(one.prepared.n_stages)
            head = self.run.cache / "heads" / f"{name}.npz"
            head.parent.mkdir(parents=True, exist_ok=True)
            save_head(one.probe, head)
            files[name] = BackboneFiles(
                weights_sha256=one.prepared.weights_sha256,
                state=str(one.prepared.state),
                converted=str(one.prepared.converted or ""),
                head=str(head),
                source_learning_rate=one.prepared.entry.source_learning_rate(),
                n_stages=one.prepared.n_stages,
                seconds_per_image=local_cpus() / one.prepared.images_per_second,
                timm_name=one.prepared.entry.timm_name,
                stages=stages[name],
                base_depth=base_depth(stages[name], lowest, n_viewed, min(BASE_BYTES, self.cache.limit // 2)),
            )
        task = TrainingTask(
            run_dir=str(self.run.path),
            store=str(ground.store.path),
            manifest=str(manifest),
            classes=ground.dataset.classes,
            metric=ground.metric,
            balanced=ground.balanced,
            backbones=files,
            precision=ground.precision,
            max_t=MOST,
            n_views=MAX_VIEWS,
            cache_dir=str(self.cache.folder),
            cache_limit=self.cache.limit,
            data_fingerprint=ground.dataset.image_fingerprint(),
            seed=self.settings.seed,
            deadline=deadline,
            threads=slots.cpus,
            provenance=self._provenance(ground),
        )
        max_t = epochs(space, start_points, predictor(task), deadline - time.time())
        return replace(task, max_t=max_t, n_views=min(MAX_VIEWS, max(2, max_t // 2)))

    def _provenance(self, ground: Ground) -> dict[str, Any]:
        return {
            "dataset": str(ground.dataset.root),
            "dataset_fingerprint": ground.dataset.fingerprint(),
            "seed": self.settings.seed,
            "precision": ground.precision,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.begun)),
            "versions": versions(),
            "majority_score": self._majority_score(ground),
            "sources": [source.to_json() for source in self.checked.sources],
        }

    def _majority_score(self, ground: Ground) -> float:
        """What a model has to beat to be worth reusing, see `autotl.sources`."""
        dataset = ground.dataset
        train, val = (dataset.labels[dataset.indices(split)] for split in ("train", "val"))
        return majority_score(ground.metric, train, val, len(dataset.classes))

    def _closing_seconds(self, ground: Ground, advice: Advice) -> float:
        """What comes after the search."""
        after = self._soup_seconds(ground, advice) + self._benefit_seconds(ground, advice)
        return after + self._end_seconds(ground, advice)

    def _soup_seconds(self, ground: Ground, advice: Advice) -> float:
        """What averaging the best models and validating two averages will take."""
        slowest = min(one.images_per_second for one in advice.backbones)
        return SOUP_SECONDS + 2 * len(ground.dataset.indices("val")) / slowest

    def _benefit_seconds(self, ground: Ground, advice: Advice) -> float:
        return benefit_seconds(self.settings, advice, len(ground.dataset.indices("train")))

    def _end_seconds(self, ground: Ground, advice: Advice) -> float:
        """What loading the winner, predicting the test split and embedding images for the yardstick will take."""
        slowest = min(one.images_per_second for one in advice.backbones)
        tested = CLOSING_FACTOR * len(ground.dataset.indices("test")) / slowest
        embedded = CLOSING_FACTOR * min(YARDSTICK_IMAGES, len(ground.dataset.indices("train"))) / slowest
        return CLOSING_SECONDS + tested + min(embedded, YARDSTICK_SHARE * self.settings.budget.timeout)

    # -- the end -------------------------------------------------------------------------------------------------

    def measure_benefit(self, ground: Ground, advice: Advice) -> Benefit | None:
        """What pretraining is worth, where time is kept back for that and there is a model; told and returned."""
        seconds = self._benefit_seconds(ground, advice)
        if not seconds and advice.scenario.scratch:
            self.console.line(
                "  benefit of pretraining not measured: training from scratch would not fit a fifth of the time"
            )
        if not seconds or not self.run.has_model:
            return None
        end = self.begun + self.settings.budget.timeout - self._end_seconds(ground, advice)
        measured = measure_benefit(self.run, self.records, min(end, time.time() + seconds))
        self.records += measured.trials
        if measured.benefit is None:
            self.console.line(f"  benefit of pretraining not measured: {measured.why}")
        else:
            self.console.benefit(measured.benefit)
        return measured.benefit

    def close(self, ground: Ground, advice: Advice, interrupted: bool, benefit: Benefit | None = None) -> FitResult:
        """Load the winner from the run folder, measure it on the test split, write and tell the result."""
        if not self.run.has_model:
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
        self._leave_yardstick(ground, interrupted)
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
            benefit=benefit,
            hindsight=look_back(advice, self.records, card),
        )
        write_json(self.run.result, result.to_json())
        n_stages = next(one.n_stages for one in advice.backbones if one.name == card.config["backbone"])
        self.console.winner(result, n_stages)
        return result

    def _leave_yardstick(self, ground: Ground, interrupted: bool) -> None:
        """For a later run that reuses this one's model. Whatever goes wrong, the model and the result are there."""
        left = self.begun + self.settings.budget.timeout - time.time()
        seconds = 0.0 if interrupted else min(left, YARDSTICK_SHARE * self.settings.budget.timeout)
        try:
            leave_yardstick(self.run, ground.dataset, ground.store, seconds, local_cpus())
        except (Exception, KeyboardInterrupt) as error:
            why = f"{type(error).__name__}: {error}"
            self.console.line(f"  no yardstick, so this run cannot be a source of later ones ({why})", "yellow")


def _features(prepared: Prepared, dataset: Dataset) -> LabelledFeatures:
    train, val = dataset.indices("train"), dataset.indices("val")
    return LabelledFeatures(
        prepared.of(train), dataset.labels[train], prepared.of(val), dataset.labels[val], len(dataset.classes)
    )


def _stage_rows(dataset: Dataset, seed: int) -> NDArray[np.int64]:
    """The images whose stages are probed: all, or stratified samples of training and validation images alike."""
    train, val = dataset.indices("train"), dataset.indices("val")
    share = min(1.0, STAGE_IMAGES / (len(train) + len(val)))
    samples = [
        rows[stratified_order(dataset.labels[rows], seed)[: max(len(dataset.classes), int(share * len(rows)))]]
        for rows in (train, val)
    ]
    return np.sort(np.concatenate(samples))


def _stage_features(prepared: Prepared, dataset: Dataset) -> dict[int, LabelledFeatures]:
    """Features of the sampled images by freeze depth, the embeddings at the deepest."""
    rows = prepared.stage_rows
    labels, in_val = dataset.labels[rows], dataset.split[rows] == "val"
    by_depth = prepared.stage_features | {prepared.n_stages: prepared.of(rows)}
    return {
        depth: LabelledFeatures(
            features[~in_val], labels[~in_val], features[in_val], labels[in_val], len(dataset.classes)
        )
        for depth, features in by_depth.items()
    }


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
