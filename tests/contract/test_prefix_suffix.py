"""Contract of a partitioned model: two parts that make up the whole; training changes only the second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autotl.models.backbone import Backbone, create
from autotl.models.catalog import find_entry
from autotl.models.partition import Partition, divide
from autotl.models.weights import load_pretrained, locate, save_state

SIDE = 64
EVERY_DEPTH = range(1, 9)


def images(seed: int, n: int) -> torch.Tensor:
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class PrefixSuffixContract:
    """What `train.loop` relies on. A subclass gives `backbone` and `partition_at`, and the depths to try."""

    @pytest.fixture
    def backbone(self) -> Backbone:
        """A fresh backbone in evaluation mode; each test may train it."""
        raise NotImplementedError

    def partition_at(self, backbone: Backbone, depth: int) -> Partition:
        """`backbone` divided at `depth`."""
        raise NotImplementedError

    @pytest.mark.parametrize("depth", EVERY_DEPTH)
    def test_the_parts_are_the_whole(self, backbone: Backbone, depth: int) -> None:
        partition = self.partition_at(backbone, depth)
        other = images(7, 3)  # neither the images nor the batch size that the partition was made with
        with torch.inference_mode():
            whole = backbone.model(other)
            boundary = partition.prefix(other)
            joined = partition.suffix(boundary)
        assert partition.depth == depth
        assert boundary.shape == (3, *partition.shape)
        assert whole.std() > 1e-3
        torch.testing.assert_close(joined, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))

    @pytest.mark.parametrize("depth", EVERY_DEPTH)
    def test_images_of_a_batch_do_not_mix(self, backbone: Backbone, depth: int) -> None:
        partition = self.partition_at(backbone, depth)
        with torch.inference_mode():
            together = partition.prefix(images(8, 3))
            alone = torch.cat([partition.prefix(image[None]) for image in images(8, 3)])
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4 * float(together.abs().max()))

    @pytest.mark.parametrize("keep_statistics", [True, False], ids=["statistics-kept", "statistics-renewed"])
    @pytest.mark.parametrize("depth", EVERY_DEPTH)
    def test_training_the_suffix_leaves_the_prefix_as_it_was(
        self, backbone: Backbone, depth: int, keep_statistics: bool
    ) -> None:
        partition = self.partition_at(backbone, depth)
        x = images(9, 4)
        with torch.no_grad():
            before, logits_before = partition.prefix(x), backbone.model.eval()(x)
        backbone.freeze(depth)
        backbone.train_mode(keep_statistics=keep_statistics)
        trained = [parameter for parameter in backbone.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(partition.suffix(before), torch.tensor([0, 1, 2, 0])).backward()
            optimizer.step()
        backbone.model.eval()
        with torch.no_grad():
            after, logits_after = partition.prefix(x), backbone.model(x)
            joined = partition.suffix(before)
        assert torch.equal(after, before)
        assert (logits_after - logits_before).abs().max() > 1e-3
        # What was cached before training still stands for the images.
        torch.testing.assert_close(joined, logits_after, rtol=1e-3, atol=1e-3 * float(logits_after.abs().max()))

    def test_dividing_at_one_depth_leaves_a_partition_at_another_valid(self, backbone: Backbone) -> None:
        first, last = EVERY_DEPTH[0], EVERY_DEPTH[-1]
        shallow = self.partition_at(backbone, first)
        deep = self.partition_at(backbone, last)
        x = images(10, 2)
        with torch.inference_mode():
            whole = backbone.model(x)
            torch.testing.assert_close(shallow.suffix(shallow.prefix(x)), whole, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(deep.suffix(deep.prefix(x)), whole, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def lite0_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights, as the workers load them."""
    entry = find_entry("tf_efficientnet_lite0.in1k")
    path = tmp_path_factory.mktemp("lite0") / "state.safetensors"
    save_state(load_pretrained(entry, locate(entry)), path)
    return path


class TestDivideOnLite0(PrefixSuffixContract):
    """`autotl.models.partition.divide` on the bundled weights of EfficientNet-Lite0."""

    @pytest.fixture
    def backbone(self, lite0_state: Path) -> Backbone:
        torch.manual_seed(0)
        backbone = create("tf_efficientnet_lite0.in1k", 3, lite0_state)
        backbone.model.eval()
        return backbone

    def partition_at(self, backbone: Backbone, depth: int) -> Partition:
        return divide(backbone, depth, images(6, 2))

    def test_every_depth_is_tried(self, backbone: Backbone) -> None:
        assert list(EVERY_DEPTH) == list(range(1, backbone.n_stages + 1))
