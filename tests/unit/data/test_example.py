"""The example data set that needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autotl.data.example import write_digits
from autotl.data.folder import list_folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    root = tmp_path_factory.mktemp("digits")
    return root, write_digits(root)


def test_a_quarter_of_the_1797_images_is_for_testing(digits: tuple[Path, dict[str, int]]) -> None:
    assert digits[1] == {"train": 1347, "test": 450}


def test_it_is_a_sound_data_set_of_ten_classes(digits: tuple[Path, dict[str, int]]) -> None:
    listing, problems = list_folder(digits[0])
    assert problems == []
    assert listing.classes == tuple("0123456789")
    assert sum(image.split == "train" for image in listing.images) == 1347
    assert sum(image.split == "test" for image in listing.images) == 450
    assert [finding.code for finding in listing.findings] == []


def test_classes_are_of_about_equal_size_in_both_parts(digits: tuple[Path, dict[str, int]]) -> None:
    for split, low, high in [("train", 130, 138), ("test", 43, 47)]:
        for digit in range(10):
            assert low <= len(list((digits[0] / split / str(digit)).iterdir())) <= high


def test_images_are_64_pixels_wide_with_dark_ground_and_bright_ink(digits: tuple[Path, dict[str, int]]) -> None:
    # Image 0 of the UCI set is a zero: dark in the middle, bright around it.
    path = next(digits[0].glob("*/0/0000.png"))
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (64, 64)
    assert pixels[30:34, 30:34].mean() < 60
    assert pixels[:, :4].max() < 60
    assert pixels.max() > 200
