from __future__ import annotations

import pytest
import torch

from autotl.train import microbatch
from autotl.train.microbatch import choose_part, saved_bytes

WIDTH = 1000


def linear_loss(n_images: int) -> torch.Tensor:
    """Keeps its input of 4,000 bytes an image for the weight's gradient, and nothing else that grows."""
    images = torch.ones(n_images, WIDTH)
    weight = torch.ones(1, WIDTH, requires_grad=True)
    return torch.nn.functional.linear(images, weight).sum()


def test_what_is_kept_for_the_backward_pass_is_counted_once() -> None:
    x = torch.ones(WIDTH, requires_grad=True)
    assert saved_bytes(lambda: (x * x).sum()) == 4 * WIDTH  # both factors are the same block
    with torch.no_grad():
        assert saved_bytes(lambda: (x * x).sum()) == 0


@pytest.mark.parametrize(("limit", "part"), [(64_000, 16), (63_999, 8), (32_000, 8), (8_000, 2), (7_999, 1), (10, 1)])
def test_the_largest_part_that_fits(monkeypatch: pytest.MonkeyPatch, limit: int, part: int) -> None:
    monkeypatch.setattr(microbatch, "PART_BYTES", limit)
    assert choose_part(linear_loss) == part


def test_a_part_is_bounded_where_nothing_grows() -> None:
    x = torch.ones(WIDTH, requires_grad=True)
    assert choose_part(lambda n_images: (x * x).sum()) == microbatch.PART
