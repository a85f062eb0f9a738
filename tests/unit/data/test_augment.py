"""Evaluation views and random views of a batch of bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autotl.data.augment import RECIPES, Recipe, affine_grid, eval_view, random_view, recipe_named

IDENTITY = Recipe("identity", (1.0, 1.0))


def noise(n: int = 4, side: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def plain(batch: torch.Tensor) -> torch.Tensor:
    return batch.permute(0, 3, 1, 2) / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_eval_view_of_the_full_size_is_the_bytes_over_255() -> None:
    batch = noise()
    torch.testing.assert_close(eval_view(batch, 16, 1.0), plain(batch), rtol=0, atol=1e-7)


def test_eval_view_crops_the_centre() -> None:
    batch = torch.arange(16, dtype=torch.uint8).view(1, 4, 4, 1).repeat(1, 1, 1, 3)
    expected = torch.tensor([[5, 6], [9, 10]]) / 255
    torch.testing.assert_close(eval_view(batch, 2, 0.5)[0, 0], expected, rtol=0, atol=1e-7)


def test_eval_view_keeps_the_order_of_channels_and_images() -> None:
    batch = torch.zeros((2, 4, 4, 3), dtype=torch.uint8)
    batch[0, ..., 0] = 255
    batch[1, ..., 2] = 51
    views = eval_view(batch, 4, 1.0)
    assert views[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert views[1, :, 0, 0].tolist() == pytest.approx([0.0, 0.0, 0.2])


@pytest.mark.parametrize("size", [5, 7, 32])
def test_eval_view_of_one_colour_is_that_colour_at_any_size(size: int) -> None:
    view = eval_view(torch.full((1, 16, 16, 3), 102, dtype=torch.uint8), size, 0.875)
    assert view.shape == (1, 3, size, size)
    torch.testing.assert_close(view, torch.full_like(view, 0.4), rtol=0, atol=1e-5)


def test_eval_view_averages_when_it_shrinks() -> None:
    stripes = torch.zeros((1, 32, 32, 3), dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    inner = eval_view(stripes, 8, 1.0)[:, :, :, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), rtol=0, atol=0.02)


def test_eval_view_stays_in_range_where_bicubic_overshoots() -> None:
    edge = torch.zeros((1, 16, 16, 3), dtype=torch.uint8)
    edge[:, :, 8:] = 255
    view = eval_view(edge, 40, 1.0)
    assert view.min() == 0.0
    assert view.max() == 1.0


def test_eval_view_leaves_the_batch_alone() -> None:
    batch = noise()
    before = batch.clone()
    eval_view(batch, 8, 0.875)
    assert torch.equal(batch, before)


def test_the_recipe_none_changes_nothing() -> None:
    batch = noise()
    torch.testing.assert_close(random_view(batch, 16, recipe_named("none"), seeded()), plain(batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_views_have_their_shape_and_range(recipe: Recipe) -> None:
    views = random_view(noise(32, 24), 20, recipe, seeded())
    assert views.shape == (32, 3, 20, 20)
    assert views.dtype == torch.float32
    assert views.min() >= 0.0
    assert views.max() <= 1.0


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=lambda recipe: recipe.name)
def test_the_same_seed_gives_the_same_views_and_another_seed_others(recipe: Recipe) -> None:
    batch = noise()
    first = random_view(batch, 16, recipe, seeded(1))
    assert torch.equal(first, random_view(batch, 16, recipe, seeded(1)))
    assert not torch.allclose(first, random_view(batch, 16, recipe, seeded(2)), atol=0.01)


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=lambda recipe: recipe.name)
def test_every_image_of_a_batch_gets_a_view_of_its_own(recipe: Recipe) -> None:
    views = random_view(noise(1).repeat(2, 1, 1, 1), 16, recipe, seeded())
    assert not torch.allclose(views[0], views[1], atol=0.01)


def test_a_certain_flip_mirrors_left_and_right() -> None:
    batch = noise()
    views = random_view(batch, 16, replace(IDENTITY, flip=1.0), seeded())
    torch.testing.assert_close(views, plain(batch).flip(3), rtol=0, atol=1e-5)


def test_half_the_images_are_flipped_at_one_half() -> None:
    batch = noise(200, 8)
    views = random_view(batch, 8, replace(IDENTITY, flip=0.5), seeded())
    flipped = (views - plain(batch).flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    straight = (views - plain(batch)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (flipped ^ straight).all()
    assert 70 <= flipped.sum() <= 130


def test_light_views_are_never_mirrored() -> None:
    half = torch.zeros((64, 16, 16, 3), dtype=torch.uint8)
    half[:, :, 8:] = 255
    views = random_view(half, 16, recipe_named("light"), seeded())
    assert (views[..., 12:].mean(dim=(1, 2, 3)) > views[..., :4].mean(dim=(1, 2, 3))).all()


def test_a_crop_shows_its_share_of_the_area() -> None:
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).view(1, 1, 64, 1).repeat(8, 64, 1, 3)
    views = random_view(ramp, 64, Recipe("quarter", (0.25, 0.25)), seeded())
    shown = (views[:, 0, 32, -1] - views[:, 0, 32, 0]) * 255
    torch.testing.assert_close(shown, torch.full((8,), 4 * 31.5), rtol=0, atol=0.1)  # half of the width


def test_rotation_keeps_the_centre_and_moves_the_rim() -> None:
    cross = torch.zeros((16, 33, 33, 3), dtype=torch.uint8)
    cross[:, 16, :] = 255
    views = random_view(cross, 33, replace(IDENTITY, rotate=45.0), seeded())
    assert (views[:, 0, 16, 16] > 0.5).all()
    assert (views[:, 0, 16, 0] < 0.5).any()


def test_rotation_is_at_most_as_given() -> None:
    bar = torch.zeros((64, 65, 65, 3), dtype=torch.uint8)
    bar[:, 32, :] = 255
    views = random_view(bar, 65, replace(IDENTITY, rotate=15.0), seeded())
    brightest = views[:, 0, :, 52].argmax(dim=1) - 32  # 20 pixels right of the centre: 20 * tan(15 deg) = 5.4
    assert brightest.abs().max() <= 6
    assert brightest.abs().max() >= 4


def test_jitter_keeps_gray_gray_and_changes_its_brightness() -> None:
    gray = torch.full((16, 8, 8, 3), 100, dtype=torch.uint8)
    views = random_view(gray, 8, replace(IDENTITY, jitter=0.4), seeded())
    torch.testing.assert_close(views[:, 0], views[:, 2], rtol=0, atol=1e-6)
    level = views.mean(dim=(1, 2, 3)) * 255 / 100
    assert level.min() >= 0.6 - 1e-4
    assert level.max() <= 1.4 + 1e-4
    assert level.std() > 0.1


def test_the_grid_is_that_of_torch() -> None:
    matrices = torch.randn(5, 2, 3, generator=seeded())
    expected = torch.nn.functional.affine_grid(matrices, [5, 3, 23, 23], align_corners=False)
    torch.testing.assert_close(affine_grid(matrices, 23), expected)


def test_jitter_is_saturation_then_contrast_then_brightness() -> None:
    photo = torch.randint(90, 160, (4, 8, 8, 3), generator=seeded()).to(torch.uint8)  # nothing is clipped at 0 or 1
    generator = seeded()
    torch.rand(6, 4, generator=generator)  # what crop, rotation and flip draw
    brightness, contrast, saturation = (torch.rand(4, generator=generator).view(4, 1, 1, 1) * 0.4 + 0.8 for _ in "bcs")
    expected = photo.permute(0, 3, 1, 2) / 255
    gray = expected.mean(dim=1, keepdim=True)
    expected = gray + (expected - gray) * saturation
    middle = gray.mean(dim=(2, 3), keepdim=True)
    expected = (middle + (expected - middle) * contrast) * brightness
    torch.testing.assert_close(random_view(photo, 8, replace(IDENTITY, jitter=0.2), seeded()), expected)


def test_erasing_blanks_5_to_20_percent() -> None:
    white = torch.full((32, 100, 100, 3), 255, dtype=torch.uint8)
    views = random_view(white, 100, replace(IDENTITY, erase=1.0), seeded())
    blank = (views == 0.5).all(dim=1)
    shares = blank.float().mean(dim=(1, 2))
    assert shares.min() >= 0.045
    assert shares.max() <= 0.205
    assert shares.std() > 0.01
    assert (views[~blank.unsqueeze(1).expand_as(views)] > 0.999).all()
    # A rectangle: as many pixels as its rows times its columns.
    assert torch.equal(blank.sum(dim=(1, 2)), blank.any(dim=2).sum(dim=1) * blank.any(dim=1).sum(dim=1))


def test_strong_erases_about_a_quarter_of_the_images() -> None:
    white = torch.full((200, 20, 20, 3), 255, dtype=torch.uint8)
    recipe = replace(IDENTITY, erase=recipe_named("strong").erase)
    erased = (random_view(white, 20, recipe, seeded()) == 0.5).any(dim=1).any(dim=2).any(dim=1)
    assert 30 <= erased.sum() <= 70


def test_recipes_grow_stronger() -> None:
    batch = noise(32, 24)
    changes = [
        (random_view(batch, 24, recipe_named(name), seeded()) - plain(batch)).abs().mean().item()
        for name in ("none", "light", "medium", "strong")
    ]
    assert changes[0] < 1e-5 < changes[1]
    assert [recipe.scale[0] for recipe in RECIPES] == [1.0, 0.7, 0.4, 0.2]


def test_an_unknown_recipe_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="wild"):
        recipe_named("wild")
