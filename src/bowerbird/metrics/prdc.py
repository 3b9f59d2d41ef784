"""Precision, recall, density and coverage: fidelity and variety of samples, told apart by nearest neighbours.

Around every point of a set lies a ball that reaches to its k-th nearest neighbour in the same set; the union of balls
stands for the set's support.

    precision = share of samples   inside at least one ball of the reference       (Kynkäänniemi et al. 2019,
    recall    = share of reference inside at least one ball of the samples          arXiv:1904.06991, eqs. 1-2, k = 3)
    density   = reference balls that contain a sample, mean over samples, / k      (Naeem et al. 2020,
    coverage  = share of reference balls that contain at least one sample           arXiv:2002.09797, k = 5)

Balls are closed.  All four depend on the number of points in both sets.  Expected for samples of the real distribution
(equal numbers n, m → ∞): density 1, coverage 1 - 2^-k (Naeem et al.).

Memory: blocks of distances (see ``neighbours``), never the whole matrix.  One sweep serves all four.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.neighbours import neighbour_distances, squared_distances

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
    sample_radius = neighbour_distances(samples, k_manifold)[:, -1]
    neighbours = neighbour_distances(reference, max(k_manifold, k_density))
    reference_radius, density_radius = neighbours[:, k_manifold - 1], neighbours[:, k_density - 1]
    precise = torch.zeros(len(samples), dtype=torch.float64)
    density = torch.zeros(len(samples), dtype=torch.float64)
    recalled = torch.zeros(len(reference), dtype=torch.bool)
    covered = torch.zeros(len(reference), dtype=torch.bool)
    for start, distance in squared_distances(samples, reference):
        rows = slice(start, start + len(distance))
        inside = distance <= density_radius
        precise[rows] = (distance <= reference_radius).any(1).double()
        density[rows] = inside.sum(1).double() / k_density
        recalled |= (distance <= sample_radius[rows, None]).any(0)
        covered |= inside.any(0)
    each = (precise, recalled.double(), density, covered.double())
    return PRDC(*(float(x.mean()) for x in each), *(float(x.std() / len(x) ** 0.5) for x in each))
