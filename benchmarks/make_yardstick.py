"""Make the yardstick that ships with the package: embeddings of a sample of ImageNet photographs.

    python benchmarks/make_yardstick.py FOLDER [--output autotl/advice/imagenet1k-lite0.npz]

FOLDER holds one photograph a class, named nXXXXXXXX_class_name.jpg. Only the embeddings are kept.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from autotl.advice.reference import SHIPPED, make_yardstick, save_yardstick
from autotl.data.decode import IMAGE_SUFFIXES
from autotl.data.pixels import build_store
from autotl.models.backbone import preprocessing_named
from autotl.models.catalog import find_entry
from autotl.train.cache import DiskCache
from autotl.train.prepare import prepare

BACKBONE = "tf_efficientnet_lite0.in1k"


def main() -> None:
    """Read the photographs, embed them in float32, write the npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    default = Path(__file__).parent.parent / "autotl" / "advice" / SHIPPED
    parser.add_argument("--output", type=Path, default=default)
    arguments = parser.parse_args()
    paths = sorted(file.name for file in arguments.folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    with tempfile.TemporaryDirectory() as folder:
        size = preprocessing_named(BACKBONE).store_size
        store, decoded = build_store(arguments.folder, paths, size, Path(folder, "pixels.u8"), workers=2)
        if decoded.unreadable:
            raise SystemExit(f"unreadable: {decoded.unreadable}")
        rows = np.arange(len(paths))
        prepared = prepare(
            find_entry(BACKBONE),
            store,
            rows,
            Path(folder),
            "fp32",
            allow_download=False,
            workers=2,
            passes=1,
            cache=DiskCache(Path(folder)),
            on_progress=lambda done: None,
        )
    names = tuple(Path(path).stem.partition("_")[2].replace("_", " ") for path in paths)
    yardstick = make_yardstick("ImageNet-1k", BACKBONE, prepared.embeddings, names)
    save_yardstick(yardstick, arguments.output)
    print(f"{len(paths)} photographs, squared bandwidth {yardstick.squared_bandwidth:.4f}, {arguments.output}")


if __name__ == "__main__":
    main()
