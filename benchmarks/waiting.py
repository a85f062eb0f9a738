"""What threads that sleep while they wait for one another are worth and cost, see `autotl/threads.py`.

    python benchmarks/waiting.py [--rounds 3]

Steps of training (16 images, EfficientNet-Lite0 with random weights, all cores) at three freeze depths, with spinning
and with sleeping threads in turn: alone on the machine, and beside programs that keep one core and all cores busy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from autotl.threads import SLEEP, VARIABLE

STEPS = {0: 5, 5: 16, 7: 40}
"""Of training, by freeze depth."""
POLICIES = {"spinning": {}, "sleeping": {VARIABLE: SLEEP}}


def measure() -> dict[int, float]:
    """Median seconds of a step by freeze depth, in this process."""
    import torch
    import torch.nn.functional as F

    from autotl.compute.device import compute, measure_device
    from autotl.models.backbone import create
    from autotl.models.partition import divide

    precision = measure_device(torch.device("cpu")).precision
    medians = {}
    for depth, steps in STEPS.items():
        backbone = create("tf_efficientnet_lite0.in1k", 10, None)
        backbone.model.to(memory_format=torch.channels_last)
        backbone.freeze(depth)
        backbone.train_mode(keep_statistics=True)
        images = torch.rand(16, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        forward, inputs = backbone.model, images
        if depth:
            partition = divide(backbone, depth, images[:2])
            with torch.no_grad():
                forward, inputs = partition.suffix, partition.prefix(images).clone()
        trained = [parameter for parameter in backbone.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, 1e-4)
        seconds = []
        for _ in range(steps):
            begun = time.perf_counter()
            with compute(images.device, precision):
                loss = F.cross_entropy(forward(inputs).float(), torch.zeros(16, dtype=torch.long))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - begun)
        medians[depth] = statistics.median(seconds[1:])
    return medians


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Programs that keep so many cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Print a table of milliseconds a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measured:
        print(json.dumps(measure()))
        return
    cores = os.cpu_count() or 1
    print("| beside | freeze depth | spinning | sleeping | ratio |\n|---|---|---|---|---|")
    for name, others in (("nothing", 0), ("one busy core", 1), ("all cores busy", cores)):
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        with busy(others):
            for _ in range(chosen.rounds):
                for policy, changes in POLICIES.items():
                    environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | changes
                    command = [sys.executable, __file__, "--measured"]
                    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                    for depth, seconds in json.loads(done.stdout.splitlines()[-1]).items():
                        found[policy, depth].append(1000 * seconds)
        for depth in map(str, STEPS):
            spinning, sleeping = (statistics.median(found[policy, depth]) for policy in POLICIES)
            print(
                f"| {name} | {depth} | {spinning:.0f} ms | {sleeping:.0f} ms | {spinning / sleeping:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
