"""The only file that knows Optuna: a search space as an Optuna study, driven by Ray Tune.

`StudySearch` is Ray's `OptunaSearch` with four of its habits mended (Ray 2.60, Optuna 5):
trials that were ended early are reported as PRUNED, not as COMPLETE with their last value, so that the sampler
does not compare one epoch with ten; a NaN ends a trial as FAIL instead of leaving it RUNNING for ever; a trial that
crashes keeps the scores it had reported; every run has a study name of its own.
"""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from autotl import clock
from autotl.records import Status, TrialRecord
from autotl.space.search_space import Config, SearchSpace
from autotl.storage.unfinished import Unfinished
from autotl.tune.optuna_space import suggest_config, to_optuna
from autotl.tune.pace import Pace
from autotl.tune.trainable import CONTINUES_KEY, EPOCHS_KEY, RESUMES_KEY

log = logging.getLogger("autotl")

SCORE = "score"
RATES = ("learning_rate_factor", "head_learning_rate_factor")
SHORTEST = 4
"""Epochs that have to fit the time for a variation of the best trial."""
ASKS = 6
"""Proposals that are looked at for one that fits the time left."""
LOST_TRIALS = 2
"""So many trials of a kind before the sampler's proposals of that kind may be withdrawn."""
MAX_FAILURES = 20
"""Trials that may fail one after another."""
MAX_RESUMED = 3
"""So often a trial is gone on with whose worker was lost: it may be what kills them."""
NEIGHBOUR_SPREAD = 0.5
"""Standard deviation of the logarithm of a varied rate."""
STARTUP_TRIALS = 8
"""So many trials have to end before the sampler's model says more than the best of them, varied."""
CONTINUED_RATE = 0.5
"""Factor on the rates of a trial that goes on from its weights: they are near a minimum, and so are its rates."""


def study_in(journal: Path) -> str | None:
    """The name of the study in a run's journal; None where there is none."""
    if not journal.exists():
        return None
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal))))
    return next(iter(optuna.get_all_study_names(storage)), None)


def _kind(config: Config) -> tuple[Any, ...]:
    return config["backbone"], config["initial_weights"], config["freeze_depth"]


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """A search space explored by Optuna's TPE, with the study kept in a journal file.

    Args:
        space: what to search.
        n_stages: stages of every backbone of the space.
        journal: file of the study; optuna-dashboard opens it.
        study_name: of this run.
        seed: of the sampler.
        start_points: configs tried first, in this order; they are clipped to the space.
        deadline: clock.now() by which a proposed trial has to be through its first epoch.
        constants: added to every config, for the worker.
        pace: says what trials will take.
        least: says from which score on a trial may be as good as the best one so far.
        earlier: trials of earlier sessions of the run, whose study is in the journal.
        is_kept: says whether what a trial trained is still there to go on from.
        unfinished: trials that an earlier session was in the middle of, to go on with first.
        find_unfinished: gives what was kept of a trial whose worker was lost, or None.
    """

    def __init__(
        self,
        space: SearchSpace,
        n_stages: Mapping[str, int],
        journal: Path,
        study_name: str,
        seed: int,
        start_points: Sequence[Config],
        deadline: float,
        constants: Mapping[str, Any],
        pace: Pace,
        least: Callable[[], float] = lambda: -math.inf,
        earlier: Sequence[TrialRecord] = (),
        is_kept: Callable[[str], bool] = lambda trial_id: True,
        unfinished: Sequence[Unfinished] = (),
        find_unfinished: Callable[[str], Unfinished | None] = lambda trial_id: None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # group=True, on purpose
        self._search_space = space
        self._n_stages = dict(n_stages)
        self._deadline = deadline
        self._constants = dict(constants)
        self._n_scratch = 0
        self._n_suggested = 0
        self.configs: dict[str, Config] = {}
        self.finished = False
        self._pace = pace
        self._expected: dict[str, float] = {}
        self._elapsed: dict[str, float] = {}
        self._shown: dict[str, Config] = {}  # like `configs`, but never taken out
        self._failures = 0  # in a row
        self._scores: dict[str, float] = {}  # of every trial that trained, its best
        self._ends: dict[str, float] = {}  # of every trial that came to its end
        self._continues: dict[str, str] = {}
        self._least, self._is_kept, self._find_unfinished = least, is_kept, find_unfinished
        self._unfinished = list(unfinished)
        self._resumed: dict[str, Unfinished] = {}
        self._random = random.Random(seed)
        super().__init__(
            space=self._define,
            metric=SCORE,
            mode="max",
            # Conditional parameters need group=True; see optuna.samplers.TPESampler.
            sampler=optuna.samplers.TPESampler(
                multivariate=True, group=True, seed=seed, n_startup_trials=STARTUP_TRIALS
            ),
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))),
            study_name=study_name,
        )
        self._take_over([record for record in earlier if record.searched])
        clipped = [space.clip(point, n_stages) for point in start_points]
        tried = [*self._shown.values(), *(trial.config for trial in self._unfinished)]
        self._start_points = [
            point for place, point in enumerate(clipped) if point not in clipped[:place] and point not in tried
        ]
        self._start_point_fits = False  # one of them, so far
        self._too_long: list[Config] = []  # as long as none did: start points that did not fit the time left

    def _take_over(self, earlier: Sequence[TrialRecord]) -> None:
        """What is known of the trials of earlier sessions; those that one was killed in have failed."""
        for record in earlier:
            name = record.trial_id
            self._shown[name] = dict(record.config)
            self._n_suggested += 1
            self._n_scratch += record.config.get("initial_weights") == "scratch"
            self._completed_trials.add(name)
            if record.continues:
                self._continues[name] = record.continues
            if record.score is not None and record.epochs:
                self._scores[name] = record.score
                if record.status is Status.COMPLETED:
                    self._ends[name] = record.score
        for waiting in self._ot_study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._ot_study.ask()  # it is the next that is asked for
            log.info("trial %d of the study was never begun", waiting.number)
        for running in self._ot_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._ot_study.tell(running.number, state=TrialState.FAIL)

    def _define(self, trial: Any) -> Config:
        share = self._n_scratch / max(1, self._n_suggested)
        allowed = self._search_space.scratch_share > 0 and share <= self._search_space.scratch_share
        return suggest_config(trial, self._search_space, self._n_stages, scratch_allowed=allowed)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next config that fits the time left, or that there is none."""
        left = self._deadline - clock.now()
        if self._failures >= MAX_FAILURES:
            left = 0.0  # what fails every time will go on failing
        config = self._propose(trial_id, left) if left > 0 else None
        if config is None:
            self.finished = True
            return str(Searcher.FINISHED)
        self._n_suggested += 1
        self._n_scratch += config["initial_weights"] == "scratch"
        self.configs[trial_id] = self._shown[trial_id] = dict(config)
        self._ot_trials[trial_id].set_user_attr("config", config)
        epochs = max(1, self._pace.fitting_epochs(config, left))
        self._expected[trial_id] = self._pace.expect(config, epochs)
        self._pace.begin(trial_id, config)
        resumed = self._resumed.get(trial_id)
        if resumed is not None:
            epochs = min(resumed.planned, resumed.epoch + epochs)
            self._expected[trial_id] = resumed.elapsed + self._pace.expect(config, epochs - resumed.epoch)
        orders = {
            EPOCHS_KEY: epochs,
            CONTINUES_KEY: self._continues.get(trial_id, ""),
            RESUMES_KEY: "" if resumed is None else resumed.trial_id,
        }
        return {**config, **self._constants, **orders}

    def _propose(self, trial_id: str, left: float) -> Config | None:
        """A start point, a proposal of the sampler, or, when time is short, more of the best trial."""
        resumed = self._resume(trial_id, left)
        if resumed is not None:
            return resumed
        while self._start_points:
            point = self._start_points.pop(0)
            if self._fits(point, left):
                self._too_long.clear()
                self._start_point_fits = True
                return self._ask(trial_id, point, "advice")
            if not self._start_point_fits:
                self._too_long.append(point)
        shorter = None if self._scores else self._shorter(left)
        if shorter is not None:
            return self._ask(trial_id, shorter, "advice")
        proposal = self._ask_fitting(trial_id, left)
        return proposal or self._continue(trial_id, left) or self._refine(trial_id, left)

    def _resume(self, trial_id: str, left: float) -> Config | None:
        """A trial that was cut, and whose next epoch fits the time left."""
        for place, trial in enumerate(self._unfinished):
            if self._pace.fitting_epochs(trial.config, left) > 0:
                del self._unfinished[place]
                self._resumed[trial_id] = trial
                if trial.continues:
                    self._continues[trial_id] = trial.continues
                return self._ask(trial_id, trial.config, "resumption")
        return None

    def _continue(self, trial_id: str, left: float) -> Config | None:
        """The best trial once more, from its weights, with a further cosine in the time left; each only once."""
        best = self._best_ended()
        if best is None or best in self._continues.values() or not self._is_kept(best):
            return None
        config = self._shown[best]
        enough = min(SHORTEST, self._pace.max_t)
        if config["initial_weights"] == "scratch" or self._pace.fitting_epochs(config, left) < enough:
            return None
        rates = {name: CONTINUED_RATE * config[name] for name in RATES}
        self._continues[trial_id] = best
        return self._ask(trial_id, self._search_space.clip(config | rates, self._n_stages), "continuation")

    def _best_ended(self) -> str | None:
        """Of the trials that came to their end, the one with the highest score."""
        return max(self._ends, key=lambda name: self._ends[name], default=None)

    def _refine(self, trial_id: str, left: float) -> Config | None:
        """The best trial that fits, with other rates."""
        for best in sorted(self._scores, key=lambda name: -self._scores[name]):
            if self._pace.expect(self._shown[best], min(SHORTEST, self._pace.max_t)) <= left:
                return self._ask(trial_id, self._neighbour(self._shown[best]), "refinement")
        return None

    def _fits(self, config: Config, left: float) -> bool:
        """Whether there is time for at least half of a trial's epochs; it then plans for what there is."""
        return self._pace.expect(config, max(min(SHORTEST, self._pace.max_t), self._pace.max_t // 2)) <= left

    def _shorter(self, left: float) -> Config | None:
        """All start points were too long: the first of those left that fits with the evaluation view alone.

        Computing the views of the frozen stages is what takes long before the first epoch. If nothing fits, the very
        first trial is the shortest there is.
        """
        plain = [
            self._search_space.clip(point | {"augmentation": "none"}, self._n_stages)
            for point in self._too_long
            if point["freeze_depth"] > 0
        ]
        chosen = next((point for point in plain if self._fits(point, left)), None)
        if chosen is None and self._n_suggested == 0 and self._too_long:
            chosen = min([*self._too_long, *plain], key=self._pace.expect)
        if chosen is not None:
            taken = _kind(chosen)
            self._too_long = [point for point in self._too_long if _kind(point) != taken]
        return chosen

    def _lost(self, config: Config) -> bool:
        """Whether trials of the same backbone, weights and freeze depth have had their chance.

        None of them is a near-tie of the best, or others, as often tried, score higher in less time (score per second).
        The sampler alone goes on with depths that are cheap and so were tried often, when costly ones have long been
        better, and with costly ones that gain nothing.
        """
        tried = self._tried()
        count, best, seconds = tried.get(_kind(config), (0, -math.inf, 0.0))
        if count < LOST_TRIALS:
            return False
        rivals = [(score, cost) for tries, score, cost in tried.values() if tries >= LOST_TRIALS]
        return best < self._least() or any(score > best and cost < seconds for score, cost in rivals)

    def _tried(self) -> dict[tuple[Any, ...], tuple[int, float, float]]:
        """Of each kind how many trials have ended, their best score, and the fewest seconds of a full one now."""
        tried: dict[tuple[Any, ...], tuple[int, float, float]] = {}
        for name in self._completed_trials & self._scores.keys():
            config = self._shown[name]
            kind, expected = _kind(config), self._pace.expect(config)
            count, best, seconds = tried.get(kind, (0, -math.inf, math.inf))
            tried[kind] = count + 1, max(best, self._scores[name]), min(seconds, expected)
        return tried

    def _ask_fitting(self, trial_id: str, left: float) -> Config | None:
        """The sampler's next proposal that may win and fits the time left; None if a few did not.

        As long as the sampler has seen too few trials to know better, the best one is varied in its place.
        """
        best = self._best_ended()
        if best is not None and len(self._ends) < STARTUP_TRIALS:
            config = self._shown[best]
            return self._ask(trial_id, self._neighbour(config), "refinement") if self._fits(config, left) else None
        for _ in range(ASKS):
            config = self._ask(trial_id)
            lost = self._lost(config)
            if not lost and self._fits(config, left):
                return config
            trial = self._ot_trials.pop(trial_id)
            # An honest end for a proposal that was not tried; the sampler leaves failed trials out.
            too_long = f"{self._pace.expect(config):.1f} s of {left:.1f} s left"
            trial.set_user_attr("withdrawn", "trials of its kind lost" if lost else too_long)
            self._ot_study.tell(trial, state=TrialState.FAIL)
        return None

    def _ask(self, trial_id: str, point: Config | None = None, origin: str = "search") -> Config:
        """The study's next proposal: `point`, or the sampler's own."""
        if point is not None:
            parameters = to_optuna(point, self._search_space, self._n_stages)
            self._ot_study.enqueue_trial(parameters, user_attrs={"origin": origin})
        config = super().suggest(trial_id)
        assert config is not None
        # Ray adds every name that was asked of Optuna, such as freeze_depth_of_9.
        return {parameter.name: config[parameter.name] for parameter in self._search_space.parameters}

    def expected(self, trial_id: str) -> float | None:
        """Seconds that were expected of a full trial when it was proposed."""
        return self._expected.get(trial_id)

    def _neighbour(self, config: Config) -> Config:
        """A config with the same frozen stages and views, and rates and decays near those of `config`."""
        changed = dict(config)
        for name in (*RATES, "weight_decay"):
            changed[name] = config[name] * math.exp(self._random.gauss(0.0, NEIGHBOUR_SPREAD))
        return self._search_space.clip(changed, self._n_stages)

    def resumed(self, trial_id: str) -> Unfinished | None:
        """The trial, as far as it had got, that this one goes on with; None for all others."""
        return self._resumed.get(trial_id)

    def continued_by(self, trial_id: str) -> str:
        """The trial from whose weights this one began, or ""."""
        return self._continues.get(trial_id, "")

    def origin(self, trial_id: str) -> str:
        """Where a trial came from, see `TrialRecord.origin`."""
        trial = self._ot_trials.get(trial_id)
        return "search" if trial is None else str(trial.user_attrs.get("origin", "search"))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch's score to the study; a NaN is left out."""
        score = result.get(SCORE, math.nan)
        if trial_id not in self._completed_trials and math.isfinite(score):
            self._ot_trials[trial_id].report(score, int(result["epoch"]))
        elapsed = self._elapsed[trial_id] = float(result.get("elapsed", math.nan))
        self._pace.note(trial_id, int(result.get("epoch", 0)), elapsed)
        if result.get("epoch", 0) > 0 and math.isfinite(score):
            self._scores[trial_id] = max(score, self._scores.get(trial_id, score))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report to the study how a trial ended: with its best score, as pruned, or as failed."""
        if trial_id in self._completed_trials or trial_id not in self._ot_trials:
            return
        # Ray does not pass on the result with which a trial ends; one that its time budget ended has passed already.
        if result and not error and float(result.get("elapsed", math.nan)) != self._elapsed.get(trial_id):
            self.on_trial_result(trial_id, result)
        self._completed_trials.add(trial_id)
        status = Status(result["status"]) if result and "status" in result else Status.FAILED
        best = float(result.get("best_score", math.nan)) if result else math.nan
        if error or status is Status.FAILED or not math.isfinite(best):
            self._failures += 1
            lost = self._find_unfinished(trial_id) if error else None
            if lost is not None and lost.resumed < MAX_RESUMED:
                self._unfinished.append(lost)
            self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.FAIL)
            return
        self._failures = 0
        if status is Status.COMPLETED:
            self._ends[trial_id] = best
            self._ot_study.tell(self._ot_trials[trial_id], best)
        else:
            self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state, and pickles are not kept."""

    def restore(self, checkpoint_path: str) -> None:
        """Not offered: a study is continued from its journal."""
        raise NotImplementedError("a study is continued from its journal")
