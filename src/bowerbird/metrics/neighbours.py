"""Nearest neighbours: Euclidean distances between clouds of points, and what they say about memorisation.

Distances come from ‖a - b‖² = ‖a‖² + ‖b‖² - 2 a·b in float64, where cancellation leaves about 1e-13 of the squared
norms (float32 would leave 1e-5 and could not tell a copy from a neighbour), in blocks, so memory stays at a few ten MB
whatever the number of points.

What memorisation measures show.  If a model had learnt the distribution and not its examples, training and held-out
images would be interchangeable for its samples.  Two consequences are tested, and copies counted:

    ratio   mean d(sample, nearest training) / mean d(sample, nearest held-out), divided by the same quotient for
            held-out images as queries (each without itself).  The division takes out that the nearest of more images
            is nearer by chance alone.  1: no sign of memorisation; 0: copies.
    closer  share of samples whose nearest real image is a training image.  By exchangeability it is M/(M + m) by
            chance, for M training and m held-out images, whatever the model's quality.

    copied  share of samples that lie less than a third as far from their nearest training image as from the second
            nearest (Yoon et al. 2023; Gu et al. 2023, arXiv:2310.02664): what is that much nearer to one image is a
            copy of it.  Unseen real images give the value without memorisation.  A training image that occurs twice
            hides its near copies (not its exact ones).

What they do not show: that a model with clean numbers has memorised nothing (few copies among many samples barely move
a mean), nor copies that the feature space does not see (a shifted or recoloured copy in pixels, fine detail in
features).  Images that occur in both splits hide memorisation.  Held-out images must come from the same source as the
training images.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.sifting import nearest_squares

BLOCK = 1 << 22
"""Distances held in memory at once."""


def squared_distances(
    queries: Float[Tensor, "q d"], points: Float[Tensor, "p d"]
) -> Iterator[tuple[int, Float[Tensor, "rows p"]]]:
    """Blocks of rows of the matrix of squared Euclidean distances, float64, each with the number of its first row."""
    points = points.double()
    norms = points.square().sum(1)
    rows = max(1, BLOCK // max(1, len(points)))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows].double()
        product = torch.addmm(norms[None], block, points.T, alpha=-2)
        yield start, product.add_(block.square().sum(1, keepdim=True)).clamp_(min=0)


def nearest(
    *, queries: Float[Tensor, "q d"], points: Float[Tensor, "p d"]
) -> tuple[Float[Tensor, " q"], Int[Tensor, " q"]]:
    """For each query, the distance to its nearest point (feature units, float64) and that point's row."""
    if not len(points):
        raise BowerbirdError("There are no images to look for the nearest among.")
    found = [block.min(1) for _, block in squared_distances(queries, points)]
    return torch.cat([f.values for f in found]).sqrt(), torch.cat([f.indices for f in found])


def neighbour_distances(points: Float[Tensor, "p d"], k: int) -> Float[Tensor, "p {k}"]:
    """Squared distances of each point to its k nearest *other* points, ascending, float64, 1 ≤ k < p."""
    if not 1 <= k < len(points):
        raise BowerbirdError(f"The {k}-th nearest neighbour needs more than {k} images; there are {len(points)}.")
    return nearest_squares(points, k)


class Memorisation(NamedTuple):
    """Signs of memorisation, each with its standard error; see the module's docstring for what they mean."""

    ratio: float
    ratio_stderr: float
    closer: float
    closer_stderr: float
    chance: float
    """The value of ``closer`` without memorisation."""


COPY_RATIO = 1 / 3
ROUNDING = 1e-12
"""Squared distances below this part of the mean squared norm are rounding errors of 0."""


def gap(
    *, samples: Float[Tensor, "n d"], training: Float[Tensor, "M d"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """For each sample, its distance to the nearest training image over that to the second nearest, and the nearest.

    0 where the two nearest are one image: equal training images hide no copy that is exact.
    """
    if len(training) < 2:
        raise BowerbirdError("Copies are told by the two nearest training images; there are fewer than two.")
    found = [block.topk(2, dim=1, largest=False) for _, block in squared_distances(samples, training)]
    squares, rows = torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
    rounding = ROUNDING * training.double().square().sum(1).mean()
    squares = torch.where(squares < rounding, 0.0, squares)
    return (squares[:, 0] / squares[:, 1]).nan_to_num(0.0).sqrt(), rows[:, 0]


def copies(*, samples: Float[Tensor, "n d"], training: Float[Tensor, "M d"]) -> Bool[Tensor, " n"]:
    """Which samples are less than ``COPY_RATIO`` times as far from their nearest training image as from the next."""
    return gap(samples=samples, training=training)[0] < COPY_RATIO


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which stays within [0, 1] and honest for shares near 0."""
    share, spread = successes / n, z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    reach = z / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    return max(0.0, centre - reach), min(1.0, centre + reach)


def memorisation(
    *, samples: Float[Tensor, "n d"], training: Float[Tensor, "M d"], held_out: Float[Tensor, "m d"]
) -> Memorisation:
    """Compares distances from samples to training images with distances to held-out images (at least 2 of each)."""
    if min(len(samples), len(training), len(held_out)) < 2:
        raise BowerbirdError("Memorisation needs at least 2 samples, 2 training images and 2 held-out images.")
    to_training = nearest(queries=samples, points=training)[0]
    to_held_out = nearest(queries=samples, points=held_out)[0]
    unseen_to_training = nearest(queries=held_out, points=training)[0]
    unseen_to_held_out = neighbour_distances(held_out, 1)[:, 0].sqrt()
    value, relative = _ratio_of_means(to_training, to_held_out)
    expected, expected_relative = _ratio_of_means(unseen_to_training, unseen_to_held_out)
    ratio = value / expected if expected > 0 else torch.nan
    # Ties (a sample at the same distance from both) count half, so exact duplicates across splits stay neutral.
    closer = (to_training < to_held_out).double() + 0.5 * (to_training == to_held_out).double()
    return Memorisation(
        ratio=ratio,
        ratio_stderr=ratio * (relative**2 + expected_relative**2) ** 0.5,
        closer=float(closer.mean()),
        closer_stderr=float(closer.std() / len(closer) ** 0.5),
        chance=len(training) / (len(training) + len(held_out)),
    )


def _ratio_of_means(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> tuple[float, float]:
    """mean(a)/mean(b) and its relative standard error (delta method for paired values)."""
    if not (a.mean() > 0 and b.mean() > 0):
        return (float(a.mean() / b.mean()) if b.mean() > 0 else torch.nan), 0.0
    residual = a / a.mean() - b / b.mean()
    return float(a.mean() / b.mean()), float(residual.std() / len(a) ** 0.5)
