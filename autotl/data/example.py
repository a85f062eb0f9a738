"""An example data set that needs no download: scikit-learn's handwritten digits as a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from autotl.data.splits import stratified_holdout

TEST_SHARE = 0.25


def write_digits(target: Path, seed: int = 0) -> dict[str, int]:
    """Write the 1,797 real images of the UCI optical digits (8 x 8, 16 grays) below `target`.

    A quarter of each class goes to test/, the rest to train/; the classes are "0" to "9".

    Returns:
        The number of images in each split.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    in_test = stratified_holdout(labels, np.arange(len(labels)), TEST_SHARE, seed)
    for place, (values, label) in enumerate(zip(digits.images, labels, strict=True)):
        folder = target / ("test" if in_test[place] else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.round(values * (255 / 16)).astype(np.uint8))
        image.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{place:04d}.png")
    return {"train": int((~in_test).sum()), "test": int(in_test.sum())}
