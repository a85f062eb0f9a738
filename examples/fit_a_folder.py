"""Fit a folder of labelled images and predict a few of them.

    python examples/fit_a_folder.py                         # handwritten digits, about five minutes
    python examples/fit_a_folder.py photos --timeout 30m    # your own: photos/CLASS/*.jpg

The folder may hold train/, val/ and test/ with the classes inside; otherwise a fifth is held back for validation.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import autotl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="labelled images (default: digits are written for you)")
    parser.add_argument("--timeout", default="5m", help="wall time for everything: 90s, 10m, 1.5h")
    parser.add_argument("--n-trials", type=int, help="end after so many trials")
    parser.add_argument("--space", default="auto", help="a search space's name or TOML file")
    parser.add_argument("--backbone", default="auto", help="a single backbone instead of all that are here")
    parser.add_argument("--output", type=Path, help="the run folder (default: a new one below autotl_runs/)")
    chosen = parser.parse_args()

    folder = chosen.folder
    if folder is None:
        from autotl.data.example import write_digits

        folder = Path(tempfile.mkdtemp(prefix="digits-"))
        write_digits(folder)

    result = autotl.fit(
        folder,
        timeout=chosen.timeout,
        n_trials=chosen.n_trials,
        search_space=chosen.space,
        backbones=chosen.backbone,
        output_dir=chosen.output,
    )
    print(f"\nvalidation {result.metric}: {result.validation}")
    if result.test is not None:
        print(f"test {result.metric}: {result.test}")

    # The model outlives this program: load it from the run folder.
    predictor = autotl.load(result.run_dir)
    images = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg", ".jpeg"))
    for prediction in predictor.predict(images[:: max(1, len(images) // 5)][:5]):
        print(f"{prediction.label:<12} {prediction.probability:.3f}  {prediction.path}")


if __name__ == "__main__":
    main()
