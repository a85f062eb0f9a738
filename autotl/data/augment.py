"""Views of a batch, computed on tensors: the evaluation view, and random ones of four strengths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True)
class Recipe:
    """How strongly a view differs from the image.

    Attributes:
        name: as in the search space.
        scale: smallest and largest share of the area that is cropped.
        aspect: largest factor by which a crop may be wider or taller than a square.
        flip: probability of a left-right flip.
        rotate: largest rotation in degrees.
        jitter: largest relative change of brightness, contrast and saturation.
        erase: probability that a rectangle of 5 to 20% of the area is blanked (arXiv 1708.04896).
    """

    name: str
    scale: tuple[float, float]
    aspect: float = 1.0
    flip: float = 0.0
    rotate: float = 0.0
    jitter: float = 0.0
    erase: float = 0.0


RECIPES = (
    Recipe("none", (1.0, 1.0)),
    # No flip: letters, digits and signs mean something else in a mirror.
    Recipe("light", (0.7, 1.0), aspect=1.1, rotate=8.0, jitter=0.1),
    Recipe("medium", (0.4, 1.0), aspect=4 / 3, flip=0.5, rotate=5.0, jitter=0.2),
    Recipe("strong", (0.2, 1.0), aspect=4 / 3, flip=0.5, rotate=15.0, jitter=0.4, erase=0.25),
)


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        KeyError: if there is none.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise KeyError(name)


def _to_float(batch: torch.Tensor) -> torch.Tensor:
    """(n, side, side, 3) bytes to (n, 3, side, side) in 0..1."""
    return batch.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)


def eval_view(batch: torch.Tensor, size: int, crop: float) -> torch.Tensor:
    """The central square that has `crop` of the side, resized to `size`.

    Args:
        batch: uint8, shape (n, side, side, 3).
        size: side of the result in pixels.
        crop: share of the side that is kept, as timm's crop_pct.

    Returns:
        float32 in 0..1, shape (n, 3, size, size).
    """
    side = batch.shape[1]
    kept = min(side, max(1, math.floor(side * crop + 0.5)))
    start = (side - kept) // 2
    images = _to_float(batch[:, start : start + kept, start : start + kept])
    if kept == size:
        return images
    resized = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp_(0.0, 1.0)


def random_view(batch: torch.Tensor, size: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """A random view of every image: crop, flip and rotation in one resampling, then colours, then erasing.

    Args:
        batch: uint8, shape (n, side, side, 3).
        size: side of the result in pixels.
        recipe: how strong.
        generator: source of randomness, on the CPU.

    Returns:
        float32 in 0..1, shape (n, 3, size, size).
    """
    images = _to_float(batch)
    grid = affine_grid(_beside(_random_affine(len(images), recipe, generator), images), size)
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    views = _jitter(views, recipe.jitter, generator)
    return _erase(views, recipe.erase, generator)


def _beside(drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """What was drawn on the CPU where the images are; a GPU is not waited for."""
    return drawn.pin_memory().to(images.device, non_blocking=True) if images.is_cuda else drawn


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _random_affine(n: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Matrices of shape (n, 2, 3) that take the view's coordinates to the image's, both in -1..1."""
    area = _uniform(n, *recipe.scale, generator)
    stretch = torch.exp(_uniform(n, -1.0, 1.0, generator) * math.log(max(recipe.aspect, 1.0)) / 2)
    width, height = (area.sqrt() * stretch).clamp(max=1.0), (area.sqrt() / stretch).clamp(max=1.0)
    centre_x = _uniform(n, -1.0, 1.0, generator) * (1 - width)
    centre_y = _uniform(n, -1.0, 1.0, generator) * (1 - height)
    angle = _uniform(n, -1.0, 1.0, generator) * math.radians(recipe.rotate)
    mirror = torch.where(torch.rand(n, generator=generator) < recipe.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    first = torch.stack([width * cos * mirror, -width * sin, centre_x], dim=1)
    second = torch.stack([height * sin * mirror, height * cos, centre_y], dim=1)
    return torch.stack([first, second], dim=1)


def affine_grid(matrices: torch.Tensor, size: int) -> torch.Tensor:
    """As `torch.nn.functional.affine_grid` without aligned corners, four times as fast: a row and a column are enough.

    Args:
        matrices: shape (n, 2, 3).
        size: side of the views.

    Returns:
        Shape (n, size, size, 2).
    """
    line = torch.linspace(-1 + 1 / size, 1 - 1 / size, size, device=matrices.device).view(-1, 1)
    across = line * matrices[:, None, :, 0] + matrices[:, None, :, 2]
    down = line * matrices[:, None, :, 1]
    return down.unsqueeze(2) + across.unsqueeze(1)


def _jitter(views: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Saturation, contrast and brightness, in place.

    One after the other they are three linear maps of colour, gray value and mean gray value: put together they pass
    over the pixels once.
    """
    if strength == 0:
        return views
    brightness, contrast, saturation = (
        _beside(_uniform(len(views), 1 - strength, 1 + strength, generator).view(-1, 1, 1, 1), views) for _ in range(3)
    )
    gray = views.mean(dim=1, keepdim=True)
    middle = gray.mean(dim=(2, 3), keepdim=True)
    shift = gray.mul_(brightness * contrast * (1 - saturation)).add_(brightness * (1 - contrast) * middle)
    return views.mul_(brightness * contrast * saturation).add_(shift).clamp_(0.0, 1.0)


def _erase(views: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    if probability == 0:
        return views
    n, size = len(views), views.shape[-1]
    side = (_uniform(n, 0.05, 0.2, generator).sqrt() * size).round()
    left, top = (_uniform(n, 0.0, 1.0, generator) * (size - side) for _ in range(2))
    across = torch.arange(size).view(1, -1)
    columns = (across >= left.view(-1, 1)) & (across < (left + side).view(-1, 1))
    rows = (across >= top.view(-1, 1)) & (across < (top + side).view(-1, 1))
    chosen = (torch.rand(n, generator=generator) < probability).view(-1, 1, 1)
    hole = (rows.unsqueeze(2) & columns.unsqueeze(1) & chosen).unsqueeze(1)
    return views.masked_fill(_beside(hole, views), 0.5)
