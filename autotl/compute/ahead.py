"""Loading the next batch while a GPU works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Loaded = TypeVar("Loaded")

IN_FLIGHT = 2


def ahead(load: Callable[[Part], Loaded], parts: Iterable[Part], device: torch.device) -> Iterator[Loaded]:
    """What `load` makes of every part, in their order; for a GPU a thread is up to `IN_FLIGHT` parts ahead.

    Only what is cheap on the GPU belongs into `load`: convolutions choose their kernels anew in every thread.

    Raises:
        Exception: what `load` raises, when its part is asked for.
    """
    if device.type != "cuda":
        yield from map(load, parts)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="autotl-ahead") as pool:
        begun: deque[Future[Loaded]] = deque()
        try:
            for part in parts:
                begun.append(pool.submit(load, part))
                if len(begun) > IN_FLIGHT:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
