"""Kernel Inception Distance: the squared maximum mean discrepancy between features, without a bias from their number.

    KID = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j),     k(a, b) = (a·b / d + 1)³

(Bińkowski et al. 2018, arXiv:1801.01401, section 4; Gretton et al. 2012, eq. 3).  The estimate is unbiased, so it is
negative about half of the time when both sets come from one distribution, and it may be compared across sample counts,
within its error.

All pairs are used.  The standard error is that of a U-statistic to first order: with the means of row i

    h_i = mean_j k(x_i, x_j) - mean_j k(x_i, y_j),        g_j = mean_i k(y_j, y_i) - mean_i k(x_i, y_j)

the variance is 4 Var(h)/n + 4 Var(g)/m.  Papers usually print instead the mean over random subsets of 1,000, and the
*standard deviation* over them, which is no error of the mean; ``kid_of_subsets`` has both.

Products are taken in the precision of the features and summed in float64; kernel values exist in blocks that stay in
the processor's cache, each serving both of its sides.  Subsets that overlap much share the kernel values of all pairs:
with the matrices S, T of 0 and 1 that say which row is in which subset, the sums over subsets are diag Sᵀ K T.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.arithmetic import full_precision

ROWS, COLUMNS = 256, 512
"""Kernel values are computed in blocks of so many rows and columns."""


class KID(NamedTuple):
    """The distance and its spread: a standard error over all pairs, a standard deviation over subsets."""

    value: float
    spread: float


def kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """(x·y / d + 1)³."""
    with full_precision():
        return torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1]).pow_(3)


def kid(*, samples: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> KID:
    """The distance over all pairs, and its standard error; n, m ≥ 2."""
    _check(samples, reference)
    within_x, within_y = _row_means(samples), _row_means(reference)
    across_x, across_y = _cross_means(samples, reference)
    value = within_x.mean() + within_y.mean() - 2 * across_x.mean()
    variance = 4 * (within_x - across_x).var() / len(samples) + 4 * (within_y - across_y).var() / len(reference)
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
    drawn = [
        [torch.randperm(len(of), generator=generator)[:size] for of in (samples, reference)] for _ in range(n_subsets)
    ]
    n, m = len(samples), len(reference)
    of = _of_shared if (n * n + m * m) / 2 + n * m < 2.25 * n_subsets * size**2 else _of_each
    values = of(samples, reference, [a for a, _ in drawn], [b for _, b in drawn])
    return KID(float(values.mean()), float(values.std()))


Rows = list[Int64[Tensor, " size"]]
"""Which rows each subset consists of."""


def _of_each(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], of_x: Rows, of_y: Rows) -> Float[Tensor, " subsets"]:
    """The distance of every pair of subsets, one after the other."""
    values = [kid(samples=x[a], reference=y[b]).value for a, b in zip(of_x, of_y, strict=True)]
    return torch.tensor(values, dtype=torch.float64)


def _of_shared(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], of_x: Rows, of_y: Rows) -> Float[Tensor, " subsets"]:
    """The same from kernel values of all pairs, of which each is computed once."""
    s, t = _members(x, of_x), _members(y, of_y)
    size = len(of_x[0])
    within = sum(_within(z, member) for z, member in ((x, s), (y, t))) / (size * (size - 1))
    return within - 2 * _across(x, y, s, t) / size**2


def _members(x: Float[Tensor, "n d"], rows: Rows) -> Float[Tensor, "n subsets"]:
    """1 where a row is in a subset, else 0."""
    members = x.new_zeros(len(rows), len(x))
    return members.scatter_(1, torch.stack(rows), 1).T.contiguous()


def _within(x: Float[Tensor, "n d"], members: Float[Tensor, "n subsets"]) -> Float[Tensor, " subsets"]:
    """Sums of k(x_i, x_j), i ≠ j, over each subset."""
    total = torch.zeros(members.shape[1], dtype=torch.float64)
    for i, j, block in _upper_blocks(x):
        total += _sum(members[i : i + ROWS] * (block @ members[j : j + COLUMNS]), 0)
    return 2 * total


def _across(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], s: Float[Tensor, "n subsets"], t: Float[Tensor, "m subsets"]
) -> Float[Tensor, " subsets"]:
    """Sums of k(x_i, y_j) over each pair of subsets."""
    total = torch.zeros(s.shape[1], dtype=torch.float64)
    for i, j, block in _blocks(x, y):
        total += _sum(s[i : i + ROWS] * (block @ t[j : j + COLUMNS]), 0)
    return total


def _check(samples: Tensor, reference: Tensor) -> None:
    if samples.shape[1] != reference.shape[1]:
        raise BowerbirdError(f"Samples have {samples.shape[1]} features and the reference {reference.shape[1]}.")
    if min(len(samples), len(reference)) < 2:
        raise BowerbirdError("A kernel distance needs at least 2 images on each side.")


Block = tuple[int, int, Float[Tensor, "rows columns"]]
"""The first row and column of a block of kernel values, and the block."""


def _blocks(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Iterator[Block]:
    for i in range(0, len(x), ROWS):
        for j in range(0, len(y), COLUMNS):
            yield i, j, kernel(x[i : i + ROWS], y[j : j + COLUMNS])


def _upper_blocks(x: Float[Tensor, "n d"]) -> Iterator[Block]:
    """Every pair of different rows once, above the diagonal; 0 elsewhere."""
    for i in range(0, len(x), ROWS):
        for j in range(i, len(x), COLUMNS):
            block = kernel(x[i : i + ROWS], x[j : j + COLUMNS])
            yield i, j, block.triu_(1) if i == j else block


def _sum(block: Float[Tensor, "rows columns"], along: int) -> Float[Tensor, " _"]:
    return block.sum(along).double()


def _row_means(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """For each row the mean kernel value with every other one."""
    sums = torch.zeros(len(x), dtype=torch.float64)
    for i, j, block in _upper_blocks(x):
        sums[i : i + ROWS] += _sum(block, 1)
        sums[j : j + COLUMNS] += _sum(block, 0)
    return sums / (len(x) - 1)


def _cross_means(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    """Mean kernel value of each row of x with all of y, and of each row of y with all of x."""
    of_x, of_y = (torch.zeros(len(z), dtype=torch.float64) for z in (x, y))
    for i, j, block in _blocks(x, y):
        of_x[i : i + ROWS] += _sum(block, 1)
        of_y[j : j + COLUMNS] += _sum(block, 0)
    return of_x / len(y), of_y / len(x)
