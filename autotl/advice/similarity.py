"""How far a set of images is from a reference set, with an interval, and which of its classes are nearest.

Two questions decide, both one-sided: a set of only ants and bees is narrow, but ImageNet covers it.

- Is the set *distributed* like a mixture of the reference set's photographs? The squared MMD to the nearest mixture
  says so. It sees sets that are crowded where few photographs are, but not sets that are widely spread where none
  are: in these, hardly any two images are alike, and the mean over the kernel is small wherever they lie.
- Does each *image* lie where photographs are? Deep nearest neighbours (Sun et al., arXiv 2204.06507) say so: the share
  of images whose nearest photograph is as near as that of 95% of the photographs themselves. It sees widely spread
  sets, but not those of little texture, which always lie near something.

`similarity` is the lower of the two on one scale from 0 to 1, and data is similar above 0.5.
Two-sided distances are reported beside it for comparison: Fréchet, Kernel Inception and energy distance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autotl.advice.distances import Matrix, Rows, energy_distance, frechet_distance, kernel_distance, rbf
from autotl.advice.mixture import bootstrap_distances, distance_to, nearest_mixture
from autotl.advice.reference_set import ReferenceSet
from autotl.train.probe import unit

FAR = 0.075
"""Distance from which data counts as dissimilar: between clothes (0.04), cats and dogs (0.02 to 0.05) on one side and
satellite tiles (0.10) on the other. An independent sample of ImageNet has 0.001, handwritten digits 0.44. Following the
advice has the lowest regret with any threshold between these two, see benchmarks/table."""
FAR_IS_OF = ("ImageNet-1k", "tf_efficientnet_lite0.in1k")
"""Reference set and backbone that the threshold was found with."""
EXPECTED_COVER = 0.95
"""Share of the reference set's own photographs that count as covered, by definition."""
MAX_IMAGES = 1000
"""More images than this are sampled: the distance no longer changes."""
DRAWS = 400
MIN_FOR_INTERVAL = 10
"""With fewer images the bootstrap's intervals are too short."""
SUBSAMPLES, SUBSAMPLE = 8, 30
"""So many subsamples of so many images show whether the distance would have come out the same with a few images."""
NEAREST = 3
IMAGES_A_CLASS = 50

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Similarity:
    """The distances and what they mean.

    Attributes:
        distance: squared MMD to the nearest mixture; about 0 for the reference set's own data, 0.45 for white
            digits on black.
        similarity: from 0 to 1; 0.5 where the distance is `threshold`, or where half as many images are covered as
            of the reference set's own.
        threshold: from this distance on the data counts as dissimilar.
        frechet: Fréchet distance of the embeddings scaled to length 1.
        n_images: of the set that were used.
        reference, backbone: name of the reference set, and what made it.
        covered: share of the images that lie as near to a photograph as 95% of the photographs to another.
        distance_interval, similarity_interval: 95%, by the bootstrap over images; None for fewer than
            `MIN_FOR_INTERVAL` images.
        probability: share of the bootstrap's draws in which the data counts as similar; None as for the intervals.
        spread: standard deviation of the distance over subsamples of `SUBSAMPLE` images; None if there are fewer than
            twice as many.
        kid: Kernel Inception distance of the embeddings, scaled so that the mean square of their entries is 1.
        energy: energy distance of the embeddings scaled to length 1.
        nearest: for each class of the set, the reference set's classes that are nearest, the nearest first.
        learned: whether the backbone was trained on the data of the reference set; False where that is an earlier run's
            and its model is a linear probe, whose backbone is still as pretrained.
    """

    distance: float
    similarity: float
    threshold: float
    frechet: float
    n_images: int
    reference: str
    backbone: str
    covered: float = 1.0
    distance_interval: Interval | None = None
    similarity_interval: Interval | None = None
    probability: float | None = None
    spread: float | None = None
    kid: float = 0.0
    energy: float = 0.0
    nearest: dict[str, tuple[str, ...]] = field(default_factory=dict)
    learned: bool = True

    @property
    def by_distance(self) -> float:
        """What the distance alone makes of the similarity."""
        return _by_distance(self.distance, self.threshold)

    @property
    def by_cover(self) -> float:
        """What the share of covered images alone makes of it."""
        return self.covered / EXPECTED_COVER

    @property
    def similar(self) -> bool:
        """Whether the data counts as similar to the reference set."""
        return self.similarity > 0.5

    @property
    def doubtful(self) -> bool:
        """Whether other images of the same kind might have come out on the other side."""
        interval = self.similarity_interval
        return interval is None or interval[0] <= 0.5 < interval[1]


def measure_similarity(
    embeddings: Rows, reference: ReferenceSet, classes: NDArray[np.str_] | None = None, seed: int = 0
) -> Similarity:
    """Distances between a set and a reference set.

    Args:
        embeddings: of the set by the reference set's backbone, shape (images, dimensions), at least 2 images.
        reference: what the set is measured against.
        classes: the name of each image's class, shape (images,); None leaves `nearest` empty.
        seed: of the sample that is taken of more than `MAX_IMAGES` images, of the bootstrap and the subsamples.

    Raises:
        ValueError: if there are fewer than 2 images or the dimensions differ.
    """
    if len(embeddings) < 2 or embeddings.shape[1] != reference.embeddings.shape[1]:
        raise ValueError(f"need 2 images or more of {reference.embeddings.shape[1]} dimensions, not {embeddings.shape}")
    generator = np.random.default_rng(seed)
    nearest = {} if classes is None else nearest_classes(unit(embeddings), classes, reference)
    if len(embeddings) > MAX_IMAGES:
        embeddings = embeddings[generator.choice(len(embeddings), MAX_IMAGES, replace=False)]
    x, z = unit(embeddings), reference.embeddings
    inside = is_covered(x, z)
    parts = _subsamples(len(x), generator)
    own, cross = rbf(x, x, reference.squared_bandwidth), rbf(x, z, reference.squared_bandwidth)
    kernel = rbf(z, z, reference.squared_bandwidth)
    weights = nearest_mixture(kernel, np.stack([cross[part].mean(axis=0) for part in parts], axis=1))
    distance, *others = (
        distance_to(weights[:, place], own[np.ix_(part, part)], cross[part], kernel) for place, part in enumerate(parts)
    )
    covered = float(inside.mean())
    draws = _draws(weights[:, 0], own, cross, kernel, inside, generator)
    scale = float(np.sqrt(x.shape[1]))
    return Similarity(
        distance=distance,
        similarity=to_similarity(distance, covered),
        threshold=FAR,
        frechet=frechet_distance(x, z),
        n_images=len(x),
        reference=reference.name,
        backbone=reference.backbone,
        covered=covered,
        distance_interval=_interval(draws[0]) if draws else None,
        similarity_interval=_interval(draws[1]) if draws else None,
        probability=float((draws[1] > 0.5).mean()) if draws else None,
        spread=float(np.std(others, ddof=1)) if others else None,
        kid=kernel_distance(scale * x, scale * z),
        energy=energy_distance(x, z),
        nearest=nearest,
    )


def to_similarity(distance: float, covered: float = EXPECTED_COVER, threshold: float = FAR) -> float:
    """The lower of 1 / (1 + (distance / threshold)^2) and the share of covered images over the reference set's.

    The first is 1 at distance 0, 0.5 at the threshold, about 0.03 for handwritten digits.
    """
    return min(_by_distance(distance, threshold), covered / EXPECTED_COVER)


def _by_distance(distance: float, threshold: float) -> float:
    return 1.0 / (1.0 + (max(distance, 0.0) / threshold) ** 2)


def is_covered(x: Rows, z: Rows) -> NDArray[np.bool_]:
    """Which rows of `x` lie as near to a row of `z` as `EXPECTED_COVER` of the rows of `z` to another; shape (n,).

    Args:
        x, z: rows of length 1.
    """
    among = z @ z.T
    np.fill_diagonal(among, -np.inf)
    limit = np.quantile(among.max(axis=1), 1.0 - EXPECTED_COVER)
    inside: NDArray[np.bool_] = (x @ z.T).max(axis=1) >= limit
    return inside


def nearest_classes(x: Rows, classes: NDArray[np.str_], reference: ReferenceSet) -> dict[str, tuple[str, ...]]:
    """For each class, the `NEAREST` reference classes with the largest mean kernel between images and photographs.

    Of a class with more than `IMAGES_A_CLASS` images, so many are used, evenly spaced.
    """
    names, place_of = np.unique(np.array(reference.class_names), return_inverse=True)
    photographs = np.bincount(place_of)
    nearest = {}
    for class_name in np.unique(classes):
        rows = np.flatnonzero(classes == class_name)
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), IMAGES_A_CLASS)).astype(np.int64)]
        affinity = rbf(x[some], reference.embeddings, reference.squared_bandwidth).mean(axis=0)
        of_class = np.bincount(place_of, weights=affinity) / photographs
        nearest[str(class_name)] = tuple(str(names[place]) for place in np.argsort(-of_class, kind="stable")[:NEAREST])
    return nearest


def _subsamples(n: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """All rows, and the subsamples if there are enough."""
    n_parts = SUBSAMPLES if n >= 2 * SUBSAMPLE else 0
    return [np.arange(n), *(generator.choice(n, SUBSAMPLE, replace=False) for _ in range(n_parts))]


def _draws(
    weights: NDArray[np.float64],
    own: Matrix,
    cross: Matrix,
    kernel: Matrix,
    inside: NDArray[np.bool_],
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Distances and similarities of resampled sets, shape (DRAWS,) each; None for too few images."""
    n = len(own)
    if n < MIN_FOR_INTERVAL:
        return None
    counts = generator.multinomial(n, np.full(n, 1.0 / n), size=DRAWS)
    distances = bootstrap_distances(weights, own, cross, kernel, counts)
    covered = counts @ inside / n
    similarities = [to_similarity(*pair) for pair in zip(distances.tolist(), covered.tolist(), strict=True)]
    return distances, np.array(similarities)


def _interval(draws: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
