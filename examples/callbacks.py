"""Follow a fit from your own program: every trial becomes a line of a file as soon as it ends.

    python examples/callbacks.py photos
    python examples/callbacks.py photos --timeout 30m --file trials.jsonl

A callback may also define `on_advice` and `on_end`. If it raises an exception, the fit reports that and goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import autotl


class TrialLog(autotl.Callback):
    """Appends every trial to a file as a line of JSON."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_trial(self, trial: autotl.TrialRecord) -> None:
        with open(self.file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(trial.to_json()) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labelled images: FOLDER/CLASS/images")
    parser.add_argument("--file", type=Path, default=Path("trials.jsonl"), help="where the lines are appended")
    parser.add_argument("--timeout", default="5m", help="wall time for everything")
    parser.add_argument("--n-trials", type=int, help="end after so many trials")
    parser.add_argument("--space", default="auto", help="a search space's name or TOML file")
    parser.add_argument("--backbone", default="auto", help="a single backbone instead of all that are here")
    chosen = parser.parse_args()

    result = autotl.fit(
        chosen.folder,
        timeout=chosen.timeout,
        n_trials=chosen.n_trials,
        search_space=chosen.space,
        backbones=chosen.backbone,
        callbacks=[TrialLog(chosen.file)],
    )
    # Linear probes come first; they are trials of their own, which the search did not propose.
    print(f"{len(result.trials)} trials in {chosen.file}, {result.n_searched} of them proposed by the search")


if __name__ == "__main__":
    main()
