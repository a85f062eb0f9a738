"""The way of the data, step by step: read, probe, advise, search, hand back. `api` opens the door to it."""

from __future__ import annotations

import time

from autotl.advice.advisor import Advice
from autotl.advice.benefit import Benefit
from autotl.compute.memory import keep_freed_memory
from autotl.console import Console
from autotl.interrupt import raise_if_pressed
from autotl.pipeline.context import EXPECTED_PASSES, Call, Ground
from autotl.pipeline.finish import KeptBack, close, keep_back
from autotl.pipeline.ingest import read_data
from autotl.pipeline.probe import Probed, probe_backbones, put_together
from autotl.pipeline.scratch_baseline import measure_benefit
from autotl.pipeline.search import search
from autotl.pipeline.validate import Checked
from autotl.records import TrialRecord
from autotl.result import FitResult
from autotl.settings import FitSettings
from autotl.storage.cache import DiskCache, default_folder
from autotl.storage.rundir import RunDir, write_json
from autotl.tune.runner import RaySession, Slots


class Fitting:
    """One fit, or the part of it that ends with the advice.

    Args:
        settings: what was asked for.
        checked: what `check` returned for them.
        run: the run folder.
        console: where to tell about it.
        begun: time.time() at which the time given began to run.
        cache: of views and converted models; the user's own unless another is given.
    """

    def __init__(
        self,
        settings: FitSettings,
        checked: Checked,
        run: RunDir,
        console: Console,
        begun: float,
        cache: DiskCache | None = None,
    ) -> None:
        self.call = Call(settings, checked, run, console, begun, cache or DiskCache(default_folder()))
        self.records: list[TrialRecord] = []
        keep_freed_memory()

    # -- the two ways through ------------------------------------------------------------------------------------

    def fit(self, ray: RaySession) -> FitResult:
        """Everything. The model in the run folder is usable from the first linear probe on."""
        call = self.call
        ground = self.read_data()
        advice, benefit = None, None
        try:
            probed = self.probe_backbones(ground, keep=True)
            advice = self.put_together(ground, probed)
            write_json(call.run.advice, advice.to_json())
            raise_if_pressed()
            interrupted = self.search(ground, probed, advice, ray.wait())
            benefit = None if interrupted else self._measure_benefit(advice, keep_back(call, ground, advice))
        except KeyboardInterrupt:
            if advice is None:
                if call.run.has_model:
                    call.console.line(f"  interrupted; the best model so far is in {call.run.path}")
                raise
            interrupted = True
        return self.close(ground, advice, interrupted=interrupted, benefit=benefit)

    def advise(self) -> Advice:
        """The advice alone."""
        ground = self.read_data(passes=1)
        return self.put_together(ground, self.probe_backbones(ground, keep=False))

    # -- the steps -----------------------------------------------------------------------------------------------

    def read_data(self, passes: int = EXPECTED_PASSES) -> Ground:
        """See `autotl.pipeline.ingest`."""
        return read_data(self.call, passes)

    def probe_backbones(self, ground: Ground, *, keep: bool) -> list[Probed]:
        """See `autotl.pipeline.probe`."""
        probed, records = probe_backbones(self.call, ground, keep=keep)
        self.records += records
        return probed

    def put_together(self, ground: Ground, probed: list[Probed]) -> Advice:
        """See `autotl.pipeline.probe`."""
        return put_together(self.call, ground, probed)

    def search(self, ground: Ground, probed: list[Probed], advice: Advice, slots: Slots) -> bool:
        """See `autotl.pipeline.search`; whether the user ended it early."""
        searched = search(self.call, ground, probed, advice, slots, tuple(self.records), self.records.append)
        return searched.interrupted

    def close(
        self, ground: Ground, advice: Advice, *, interrupted: bool = False, benefit: Benefit | None = None
    ) -> FitResult:
        """See `autotl.pipeline.finish`."""
        return close(self.call, ground, advice, self.records, interrupted=interrupted, benefit=benefit)

    def _measure_benefit(self, advice: Advice, kept: KeptBack) -> Benefit | None:
        """What pretraining is worth, where time is kept back for that and there is a model; told and returned."""
        call = self.call
        if not kept.benefit and advice.scenario.scratch:
            call.console.line(
                "  benefit of pretraining not measured: training from scratch would not fit a fifth of the time"
            )
        if not kept.benefit or not call.run.has_model:
            return None
        measured = measure_benefit(call.run, self.records, min(call.end - kept.end, time.time() + kept.benefit))
        self.records += measured.trials
        if measured.benefit is None:
            call.console.line(f"  benefit of pretraining not measured: {measured.why}")
        else:
            call.console.benefit(measured.benefit)
        return measured.benefit
