"""FID∞: what a Fréchet distance would be with endlessly many samples, extrapolated from the ones there are.

A Fréchet distance of n samples is too high by a bias that falls as 1/n, and by a different one for every model, so that
models can change places with n (Chong & Forsyth 2020, arXiv:1911.07023).  Averages over groups of N, N/2, N/4 and N/8
samples lie nearly on a line in 1/n, whose value at 0 is the estimate:

    d²(n) ≈ d²(∞) + a/n

The reference keeps its size: what is extrapolated is the number of samples alone.

Standard error.  Each level uses all N samples, so the levels rise and fall together with the luck of the draw; its
size is read from disjoint groups, whose spread at n scales with 1/√n: s² = pooled n · Var(group values), error s/√N.
A test draws Gaussians with a known distance and counts how often the interval holds it.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.frechet import Gaussian, fit_gaussian, frechet_distance

LEVELS = 4
"""Group sizes: N, N/2, … N/2^(LEVELS - 1), while a group has more samples than the features have dimensions."""
CONFIDENCE = 0.95


class Extrapolated(NamedTuple):
    """The distance at n = ∞ with its standard error and 95 % interval, and the distance at n = N."""

    value: float
    stderr: float
    low: float
    high: float
    at_n: float


def frechet_infinity(
    *, samples: Float[Tensor, "n d"], reference: Gaussian, seed: int = 0, levels: int = LEVELS
) -> Extrapolated:
    """Extrapolates the Fréchet distance of ``samples`` to endlessly many; below n = 2 d it means little."""
    n, d = samples.shape
    shuffled = samples[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]
    used = [level for level in range(levels) if level < 2 or n >> level > d]
    if n < 8:
        raise BowerbirdError(f"FID∞ needs at least 8 samples; there are {n}.")
    means, sizes, scatter, freedom = [], [], 0.0, 0
    for level in used:
        size = n >> level
        groups = shuffled[: size << level].split(size)
        values = [frechet_distance(fit_gaussian(group), reference) for group in groups]
        means.append(float(np.mean(values)))
        sizes.append(size)
        if len(values) > 1:
            scatter += size * float(np.sum((np.array(values) - means[-1]) ** 2))
            freedom += len(values) - 1
    _, intercept = np.polyfit(1 / np.array(sizes), means, 1)
    stderr = (scatter / freedom / n) ** 0.5
    from scipy.special import stdtrit  # Student's quantiles; scipy.stats has them too, and takes a second to import

    reach = stderr * float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
    value = float(intercept)
    return Extrapolated(value, stderr, value - reach, value + reach, means[0])
