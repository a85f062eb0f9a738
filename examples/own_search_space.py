"""Search a space of your own: take a shipped one, narrow it, keep it as a TOML file, and fit.

    python examples/own_search_space.py photos --timeout 10m

The file can as well be written by hand: `autotl spaces copy default mine.toml`, edit, `autotl fit photos --space
mine.toml`. Everything that is wrong in it is reported before the fit begins.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import autotl
from autotl.space.files import load_space, to_toml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labelled images: FOLDER/CLASS/images")
    parser.add_argument("--space", default="quick", help="the shipped space to start from")
    parser.add_argument("--file", type=Path, default=Path("mine.toml"), help="where your space is kept")
    parser.add_argument("--timeout", default="5m", help="wall time for everything")
    parser.add_argument("--n-trials", type=int, help="end after so many trials")
    parser.add_argument("--backbone", default="auto", help="a single backbone instead of all that are here")
    chosen = parser.parse_args()

    space = load_space(chosen.space)
    # A pair narrows a range, a tuple of any length narrows choices. "all" freezes every stage, "all-1" spares the last.
    space = space.narrow(
        freeze_depth=("all-1", "all"), learning_rate_factor=(0.02, 0.2), augmentation=("none",), batch_size=(16,)
    )
    space = replace(space, name="mine", description="Only the last stage, gently.", max_t=2)
    chosen.file.write_text(to_toml(space), "utf-8")
    print(f"{chosen.file} has the fingerprint {space.fingerprint()}")

    result = autotl.fit(
        chosen.folder,
        search_space=str(chosen.file),
        timeout=chosen.timeout,
        n_trials=chosen.n_trials,
        backbones=chosen.backbone,
    )
    for trial in result.trials:
        score = "no score" if trial.score is None else f"{trial.score:.4f}"
        print(f"trial {trial.number} ({trial.origin}): {trial.status}, {result.metric} {score}")
    print(f"best: {result.validation} in {result.run_dir}")


if __name__ == "__main__":
    main()
