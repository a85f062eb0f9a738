"""Is the advice right? What following it alone gives, against an oracle that tried everything.

    python benchmarks/advice.py table DIR [DIR ...] --table cells.jsonl [--minutes N] [--jobs 2]
    python benchmarks/advice.py regret DIR [DIR ...] --table cells.jsonl
    python benchmarks/advice.py thresholds DIR [DIR ...] --table cells.jsonl
    python benchmarks/advice.py speed DIR [--images 1000] [--rounds 3]

`table` fills the oracle table of these folders (see `oracle.py`) and goes on where it was stopped; what it needs beside
the table lies in the folder `sets` next to it, and views of frozen stages in autotl's cache. `regret` asks
`autotl.advise` about each subset and looks up what its strategy gives. `thresholds` fits the constants of the advice.
`benchmarks/table/cells.jsonl` is the table as far as it was filled: give it as FILE to go on, from any machine.
Run them with OMP_NUM_THREADS=1. scikit-learn's digits come as a folder from `autotl example digits DIR`.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from oracle import FEATURES, FULL, SCRATCH, STRATEGIES, fill_table, read_draws, read_table, strategy_named
from ready import LITE0, Features, ReadySet, make_ready
from regret import (
    N_STAGES,
    SHIPPED,
    Correlation,
    Draw,
    Row,
    Rule,
    Thresholds,
    fair_regret,
    far_grid,
    fit_thresholds,
    follow,
    gain,
    leave_one_set_out,
    mean_regret,
    on_validation,
    rank_correlations,
    regret,
    strategy_at,
    to_rows,
)
from subsets import SUBSETS, SubsetData, link_subset, part_of

import autotl
from autotl.advice.advisor import Advice
from autotl.advice.evidence import BackboneEvidence, probe_backbone
from autotl.advice.hindsight import advised_depth
from autotl.advice.probes import LabelledFeatures, folds_of, stage_profile
from autotl.advice.ranking import rank
from autotl.advice.reference_set import load_reference_set
from autotl.advice.similarity import measure_similarity
from autotl.models.catalog import find_entry
from autotl.train.probe import Probe

_PROBES = {strategy.backbone: strategy.name for strategy in STRATEGIES if strategy.freeze_depth is None}
AUTOTL = [sys.executable, "-m", "autotl.cli"]


# -- rows -----------------------------------------------------------------------------------------------------------


def rows_of(folders: list[Path], table: Path) -> list[Row]:
    """The complete rows of these folders, with what the advice measures today."""
    names = {folder.name for folder in folders}
    rows, incomplete = to_rows([line for line in read_table(table) if line["set"] in names])
    for problem in incomplete:
        print(f"left out: {problem}")
    if not rows:
        raise SystemExit(f"no row of {table} is complete: run `advice.py table` on")
    found = {(draw.set, draw.seed) for row in rows for draw in row.draws}
    ready = {
        (data.name, data.seed): make_ready(data, table.parent / "sets")
        for data in read_draws(folders)
        if (data.name, data.seed) in found
    }
    return [Row(tuple(_measured(draw, ready[draw.set, draw.seed]) for draw in row.draws)) for row in rows]


def _measured(draw: Draw, ready: ReadySet) -> Draw:
    split, labels = ready.data.splits[draw.subset], ready.data.labels
    seen = np.isin(split, ("train", "val"))
    evidence, probes = zip(*(_probed(name, draw.subset, ready) for name in _PROBES), strict=True)
    best = rank(list(evidence))[0]
    similarity = measure_similarity(ready.embeddings(LITE0)[seen], load_reference_set())
    by_depth = ready.stages() | {evidence[0].n_stages: ready.embeddings(LITE0)}
    stages = {depth: _labelled(features, draw.subset, ready) for depth, features in by_depth.items()}
    profile = stage_profile(stages, probes[0].settings, "accuracy", balanced=False)
    return replace(
        draw,
        stages=profile.scores,
        stage_errors=profile.errors,
        per_class=float(np.median(np.bincount(labels[seen]))),
        distance=similarity.distance,
        covered=similarity.covered,
        recall=best.recall,
        probe=_PROBES[best.name],
    )


def _probed(name: str, subset: str, ready: ReadySet) -> tuple[BackboneEvidence, Probe]:
    """A backbone on a subset, as `autotl.advise` has it."""
    entry, features = find_entry(name), _labelled(ready.embeddings(name), subset, ready)
    return probe_backbone(
        name, features, "accuracy", balanced=False, top1=entry.top1, images_per_second=1.0, n_stages=entry.stages
    )


def _labelled(features: Features, subset: str, ready: ReadySet) -> LabelledFeatures:
    train, val = (np.flatnonzero(ready.data.splits[subset] == name) for name in ("train", "val"))
    rows, labels, n_classes = np.concatenate([train, val]), ready.data.labels, len(ready.data.classes)
    folds = folds_of(labels[rows], rows, n_classes, own_validation=False)  # there are no duplicates, and so no groups
    return LabelledFeatures(features[train], labels[train], features[val], labels[val], n_classes, folds)


def print_table(rows: Sequence[Row]) -> None:
    """Test accuracy of every strategy, its learning rate chosen on the validation images."""
    names = [strategy.name for strategy in STRATEGIES]
    short = {FEATURES: "probe", f"{FEATURES}, lite1": "lite1", f"{FEATURES}, lite2": "lite2", FULL: "full"}
    heads = " ".join(f"{short.get(name, name.removeprefix('from ')):>8}" for name in names)
    print(f"\nTest accuracy in %; epochs: {_epochs()}\n{'set':<14} {'subset':<11} draws {'distance':>8} {heads}  best")
    for row in rows:
        cells = " ".join(_cell_text([draw.test[name] for draw in row.draws if name in draw.test]) for name in names)
        print(f"{row.set:<14} {row.subset:<11} {len(row.draws):5d} {row.distance:8.3f} {cells}  {row.best}")


def _cell_text(accuracies: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(accuracies):8.2f}" if accuracies else f"{'-':>8}"


def _epochs() -> str:
    tuned = strategy_named(FULL)
    scratch = strategy_named(SCRATCH)
    return (
        f"{tuned.epochs} ({scratch.epochs} from scratch), more where they are fewer than {tuned.least_steps} "
        f"({scratch.least_steps}) steps"
    )


# -- regret ----------------------------------------------------------------------------------------------------------


def advised_strategy(advice: Advice) -> str:
    """The table's strategy nearest to the advice; depths below all stages are looked up with lite0."""
    best = advice.backbones[0]
    strategy = strategy_at(advised_depth(advice), best.n_stages)
    return _PROBES[best.name] if strategy == FEATURES else strategy


def ask_advice(data: SubsetData, subset: str) -> Advice:
    """What `autotl.advise` says about the training and validation images of a subset."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, data.name)
        link_subset(data, subset, root)
        return autotl.advise(root, timeout=60, backbones=list(_PROBES), metric="accuracy", seed=data.seed)


def ask_about(rows: Sequence[Row], sets: dict[tuple[str, int], SubsetData]) -> dict[tuple[str, str, int], str]:
    """The advised strategy of every draw by set, subset and seed."""
    draws = [draw for row in rows for draw in row.draws]
    return {
        (draw.set, draw.subset, draw.seed): advised_strategy(ask_advice(sets[draw.set, draw.seed], draw.subset))
        for draw in draws
    }


def print_regret(folders: list[Path], table: Path) -> None:
    """Regret of the advice and of plain rules, and whether similarity orders the sets by what fine-tuning gains."""
    rows = rows_of(folders, table)
    print_table(rows)
    advised = ask_about(rows, {(data.name, data.seed): data for data in read_draws(folders)})
    top = _PROBES[max(_PROBES, key=lambda name: find_entry(name).top1)]
    rules: dict[str, Rule] = {
        "the advice": lambda draw: advised[draw.set, draw.subset, draw.seed],
        "always features": lambda draw: FEATURES,
        "always full": lambda draw: FULL,
        "ImageNet's best": lambda draw: top,
        "best on val": on_validation,
    }
    print(
        f"\nRegret in points of test accuracy\n{'set':<14} {'subset':<11} " + " ".join(f"{name:>16}" for name in rules)
    )
    for row in rows:
        values = " ".join(f"{regret(row, rule):16.2f}" for rule in rules.values())
        strategies = "; ".join(dict.fromkeys(map(rules["the advice"], row.draws)))
        print(f"{row.set:<14} {row.subset:<11} {values}  advised: {strategies}")
    _print_totals(rows, rules)
    _print_correlations(rows)


def _print_totals(rows: Sequence[Row], rules: dict[str, Rule]) -> None:
    """Means and maxima; "fair" is against the strategy that is best on the other draw of the set."""
    twice = [row for row in rows if len(row.draws) > 1]
    for name, measure, some in (("", regret, rows), ("fair ", fair_regret, twice)):
        for subset in (*SUBSETS, None):
            chosen = [row for row in some if subset in (row.subset, None)]
            columns = [[measure(row, rule) for row in chosen] for rule in rules.values()]
            for what, summary in (("mean", statistics.fmean), ("worst", max)) if chosen else ():
                values = " ".join(f"{summary(column):16.2f}" for column in columns)
                print(f"{name + what:<14} {subset or 'all':<11} {values}  of {len(chosen)} rows")


def _print_correlations(rows: Sequence[Row]) -> None:
    print("\nSimilarity against the gain of the best fine-tuning over feature extraction (95%, bootstrap over sets)")
    for subset in (*SUBSETS, None):
        chosen = [row for row in rows if subset in (row.subset, None)]
        if len({row.set for row in chosen}) < 3:
            print(f"{subset or 'all':<11} too few sets")
            continue
        similarity, gains = [-row.distance for row in chosen], [gain(row) for row in chosen]
        correlations = rank_correlations(similarity, gains, [row.set for row in chosen])
        text = ", ".join(map(_correlation_text, correlations))
        print(f"{subset or 'all':<11} {text}; gain {min(gains):+.1f} to {max(gains):+.1f} points")


def _correlation_text(correlation: Correlation) -> str:
    return f"{correlation.name} {correlation.value:+.2f} ({correlation.low:+.2f} to {correlation.high:+.2f})"


# -- thresholds ------------------------------------------------------------------------------------------------------


def print_thresholds(folders: list[Path], table: Path) -> None:
    """The fit of the advice's constants, and what it is worth on sets it has not seen."""
    rows = rows_of(folders, table)
    if len({row.set for row in rows}) < 2:
        raise SystemExit("thresholds are judged on sets left out: rows of two sets or more are needed")
    fitted = fit_thresholds(rows)
    print(f"\nMean regret in points over {len(rows)} rows; margins in standard errors of the best stage's probe")
    for name, thresholds in (("shipped", SHIPPED), ("fitted", fitted)):
        print(f"{name:<10} {_thresholds_text(thresholds)}: {mean_regret(thresholds, rows):.2f}")
    left_out = leave_one_set_out(rows)
    for name, (thresholds, value) in left_out.items():
        print(f"without {name:<14} {_thresholds_text(thresholds)}: {value:.2f} on it")
    n_rows = {name: sum(row.set == name for row in rows) for name in left_out}
    total = sum(value * n_rows[name] for name, (_, value) in left_out.items()) / len(rows)
    print(f"leave one set out: {total:.2f}")
    print(f"\nAlong the distance, the others as fitted\n{'far':>8} {'regret':>8}")
    for far in sorted(set(far_grid(rows))):
        print(f"{far:8.4f} {mean_regret(replace(fitted, far=far), rows):8.2f}")
    print(f"\n{'set':<14} {'subset':<11} seed {'images':>6} {'distance':>8} best stage  fitted strategy, best")
    for row in sorted(rows, key=lambda row: row.distance):
        for draw in row.draws:
            stage = max(draw.stages, key=lambda depth: draw.stages[depth])
            probes = f"{stage}: {draw.stages[stage]:.3f} ({draw.stages[N_STAGES]:.3f})"
            measured = (
                f"{draw.set:<14} {draw.subset:<11} {draw.seed:4d} {draw.n_images:6d} {draw.distance:8.3f} {probes}"
            )
            print(f"{measured}  {follow(fitted, draw)}, {row.best}")


def _thresholds_text(thresholds: Thresholds) -> str:
    headroom = "no headroom" if math.isinf(thresholds.headroom) else f"headroom from {thresholds.headroom:.0%} missed"
    margin = "stage probes not followed" if math.isinf(thresholds.margin) else f"margin {thresholds.margin:g}"
    return f"far from {thresholds.far:g}, large from {thresholds.large:g} images, {margin}, {headroom}"


# -- speed -----------------------------------------------------------------------------------------------------------


def print_speed(folder: Path, n_images: int, rounds: int) -> None:
    """Wall seconds of `autotl advise` in a fresh process with an empty cache of its own."""
    data = part_of(folder, n_images)
    times = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as temporary:
            link_subset(data, "all", Path(temporary, data.name))
            environment = os.environ | {"AUTOTL_CACHE_DIR": str(Path(temporary, "cache"))}
            begun = time.perf_counter()
            command = [*AUTOTL, "advise", str(Path(temporary, data.name)), "--json"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            times.append(time.perf_counter() - begun)
    seconds = f"best {min(times):.1f} s, median {statistics.median(times):.1f} s of {rounds}"
    print(f"autotl advise on {len(data.paths)} images of {folder.name}: {seconds}")


# -- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="what", required=True)
    for name in ("table", "regret", "thresholds"):
        action = actions.add_parser(name)
        action.add_argument("folders", nargs="+", type=Path, metavar="DIR")
        action.add_argument("--table", type=Path, required=True, metavar="FILE")
    actions.choices["table"].add_argument("--minutes", type=float, default=math.inf)
    actions.choices["table"].add_argument("--jobs", type=int, default=1)
    speed = actions.add_parser("speed")
    speed.add_argument("folder", type=Path, metavar="DIR")
    speed.add_argument("--images", type=int, default=1000)
    speed.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.what == "table":
        fill_table(chosen.folders, chosen.table.resolve(), chosen.minutes, chosen.jobs)
    elif chosen.what == "speed":
        print_speed(chosen.folder, chosen.images, chosen.rounds)
    else:
        {"regret": print_regret, "thresholds": print_thresholds}[chosen.what](chosen.folders, chosen.table.resolve())


if __name__ == "__main__":
    main()
