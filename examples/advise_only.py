"""Ask for advice about a folder of labelled images, without training anything.

    python examples/advise_only.py photos
    python examples/advise_only.py photos --backbone tf_efficientnet_lite0.in1k --json advice.json

It takes seconds to a few minutes: the images are embedded once with each backbone, frozen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import autotl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labelled images: FOLDER/CLASS/images")
    parser.add_argument("--backbone", default="auto", help="a single backbone instead of all that are here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the advice with its evidence, too")
    chosen = parser.parse_args()

    advice = autotl.advise(chosen.folder, backbones=chosen.backbone)
    print(advice)

    print(f"\nScenario {advice.scenario.number} of 4: {advice.strategy}")
    for backbone in advice.backbones:
        print(f"{backbone.name}: {backbone.metric} of a linear probe {backbone.probe_score:.3f}")
    print("A search would start from:")
    for point in advice.start_points:
        frozen = (
            f"{point['freeze_depth']} stages frozen" if point["initial_weights"] == "pretrained" else "from scratch"
        )
        print(f"  {point['backbone']}, {frozen}, learning rate × {point['learning_rate_factor']:g}")

    if chosen.json:
        chosen.json.write_text(json.dumps(advice.to_json(), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
