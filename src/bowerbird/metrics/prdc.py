"""Precision, recall, density and coverage: fidelity and variety of samples, told apart by nearest neighbours.

Around every point of a set lies a ball that reaches to its k-th nearest neighbour in the same set; the union of balls
stands for the set's support.

    precision = share of samples   inside at least one ball of the reference       (Kynkäänniemi et al. 2019,
    recall    = share of reference inside at least one ball of the samples          arXiv:1904.06991, eqs. 1-2, k = 3)
    density   = reference balls that contain a sample, mean over samples, / k      (Naeem et al. 2020,
    coverage  = share of reference balls that contain at least one sample           arXiv:2002.09797, k = 5)

Balls are closed.  All four depend on the number of points in both sets.  Expected for samples of the real distribution
(equal numbers n, m → ∞): density 1, coverage 1 - 2^-k (Naeem et al.).

Memory: blocks of distances, never the whole matrix.  One sweep serves all four; see ``sifting`` for its arithmetic.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.sifting import Cloud, Near, Pairs, exact_squares, pairs_within, slack

K_MANIFOLD, K_DENSITY = 3, 5
"""Neighbours of precision and recall; of density and coverage."""


class PRDC(NamedTuple):
    """Precision, recall and coverage in [0, 1], density ≥ 0, each with the standard error over its own points."""

    precision: float
    recall: float
    density: float
    coverage: float
    precision_stderr: float
    recall_stderr: float
    density_stderr: float
    coverage_stderr: float


def prdc(
    *,
    samples: Float[Tensor, "n d"],
    reference: Float[Tensor, "m d"],
    k_manifold: int = K_MANIFOLD,
    k_density: int = K_DENSITY,
) -> PRDC:
    """All four; ``k_manifold`` is the k of precision and recall, ``k_density`` that of density and coverage."""
    if samples.shape[1] != reference.shape[1]:
        raise BowerbirdError(f"Samples have {samples.shape[1]} features and the reference {reference.shape[1]}.")
    centre = reference.mean(0)
    made, real = Cloud(samples, centre), Cloud(reference, centre)
    around_made, around_real = _neighbours(made, k_manifold), _neighbours(real, max(k_manifold, k_density))
    near_made, near_real = around_made.rough, around_real.rough
    pairs = pairs_within(made, real, near_made[:, -1], near_real[:, -1])
    i, j, square = pairs
    radii = torch.cat([near_made[i, -1:], near_real[j][:, [k_manifold - 1, k_density - 1]]], 1)
    doubt = slack(made, real) + max(around_made.slack, around_real.slack)
    close = (square[:, None] - radii).abs() <= doubt
    anew = close.any(1)
    square[anew] = exact_squares(samples, reference, Pairs(i[anew], j[anew], square[anew]))
    settled = i[close[:, 0]].unique(), j[close[:, 1:].any(1)].unique()
    near_made[settled[0]], near_real[settled[1]] = around_made.exact(settled[0]), around_real.exact(settled[1])
    inside = square <= near_real[j, k_density - 1]
    precise, density = torch.zeros(2, len(samples), dtype=torch.float64)
    recalled, covered = torch.zeros(2, len(reference), dtype=torch.float64)
    precise[i[square <= near_real[j, k_manifold - 1]]] = 1
    recalled[j[square <= near_made[i, -1]]] = 1
    covered[j[inside]] = 1
    density += i[inside].bincount(minlength=len(samples)).double() / k_density
    each = (precise, recalled, density, covered)
    return PRDC(*(float(x.mean()) for x in each), *(float(x.std() / len(x) ** 0.5) for x in each))


def _neighbours(points: Cloud, k: int) -> Near:
    if not 1 <= k < len(points):
        raise BowerbirdError(f"The {k}-th nearest neighbour needs more than {k} images; there are {len(points)}.")
    return Near(points, k)
