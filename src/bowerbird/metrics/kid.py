"""Kernel Inception Distance: the squared maximum mean discrepancy between features, without a bias from their number.

    KID = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j),     k(a, b) = (a·b / d + 1)³

(Bińkowski et al. 2018, arXiv:1801.01401, section 4; Gretton et al. 2012, eq. 3).  The estimate is unbiased, so it is
negative about half of the time when both sets come from one distribution, and it may be compared across sample counts,
within its error.

All pairs are used.  The standard error is that of a U-statistic to first order: with the means of row i

    h_i = mean_j k(x_i, x_j) - mean_j k(x_i, y_j),        g_j = mean_i k(y_j, y_i) - mean_i k(x_i, y_j)

the variance is 4 Var(h)/n + 4 Var(g)/m.  Papers usually print instead the mean over random subsets of 1,000, and the
*standard deviation* over them, which is no error of the mean; ``kid_of_subsets`` has both.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import BowerbirdError

BLOCK = 1 << 22
"""Kernel values held in memory at once."""


class KID(NamedTuple):
    """The distance and its spread: a standard error over all pairs, a standard deviation over subsets."""

    value: float
    spread: float


def kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """(x·y / d + 1)³."""
    return torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1]).pow_(3)


def kid(*, samples: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> KID:
    """The distance over all pairs in float64, and its standard error; n, m ≥ 2."""
    _check(samples, reference)
    x, y = samples.double(), reference.double()
    within_x, within_y = _row_means(x), _row_means(y)
    across_x, across_y = _cross_means(x, y)
    value = within_x.mean() + within_y.mean() - 2 * across_x.mean()
    variance = 4 * (within_x - across_x).var() / len(x) + 4 * (within_y - across_y).var() / len(y)
    return KID(float(value), float(variance.sqrt()))


def kid_of_subsets(
    *,
    samples: Float[Tensor, "n d"],
    reference: Float[Tensor, "m d"],
    n_subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KID:
    """Mean and standard deviation over random subsets of ``subset_size`` (or fewer, when there are fewer) of each."""
    _check(samples, reference)
    size = min(subset_size, len(samples), len(reference))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(n_subsets):
        x, y = (
            of[torch.randperm(len(of), generator=generator)[:size]].double() for of in (samples, reference)
        )  # fmt: skip
        values.append(_row_means(x).mean() + _row_means(y).mean() - 2 * kernel(x, y).mean())
    found = torch.stack(values)
    return KID(float(found.mean()), float(found.std()))


def _check(samples: Tensor, reference: Tensor) -> None:
    if samples.shape[1] != reference.shape[1]:
        raise BowerbirdError(f"Samples have {samples.shape[1]} features and the reference {reference.shape[1]}.")
    if min(len(samples), len(reference)) < 2:
        raise BowerbirdError("A kernel distance needs at least 2 images on each side.")


def _row_means(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """For each row the mean kernel value with every other one; each product of two blocks serves both."""
    rows = max(1, int(BLOCK**0.5))
    sums = x.new_zeros(len(x))
    for i in range(0, len(x), rows):
        a = x[i : i + rows]
        own = kernel(a, a)
        sums[i : i + rows] += own.sum(1) - own.diagonal()
        for j in range(i + rows, len(x), rows):
            block = kernel(a, x[j : j + rows])
            sums[i : i + rows] += block.sum(1)
            sums[j : j + rows] += block.sum(0)
    return sums / (len(x) - 1)


def _cross_means(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    """Mean kernel value of each row of x with all of y, and of each row of y with all of x."""
    rows = max(1, BLOCK // len(y))
    of_x, of_y = [], y.new_zeros(len(y))
    for start in range(0, len(x), rows):
        block = kernel(x[start : start + rows], y)
        of_x.append(block.mean(1))
        of_y += block.sum(0)
    return torch.cat(of_x), of_y / len(x)
