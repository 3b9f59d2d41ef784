"""Fréchet distance: how far apart two clouds of features are, each summarised as a Gaussian.

    d² = ‖mean_a - mean_b‖² + tr(C_a) + tr(C_b) - 2 tr sqrt(sqrt(C_a) C_b sqrt(C_a))

(Dowson & Landau 1982, "The Fréchet distance between multivariate normal distributions"; Heusel et al. 2017,
arXiv:1706.08500, eq. 6, who call d² FID when the features are Inception's).  The field reports d², without the root,
and so do we.  Everything is float64.

The matrix root is never formed.  With any factors F_a F_aᵀ = C_a and F_b F_bᵀ = C_b, the matrices
sqrt(C_a) C_b sqrt(C_a), F_aᵀ C_b F_a and (F_aᵀ F_b)(F_aᵀ F_b)ᵀ have the same non-zero eigenvalues, so

    tr sqrt(sqrt(C_a) C_b sqrt(C_a)) = Σ sqrt(eigenvalues of F_aᵀ C_b F_a) = Σ singular values of F_aᵀ F_b

F is the Cholesky factor of C, or, with at most as many examples as dimensions, the centred features themselves, which
makes small problems out of large ones and loses nothing to squaring.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import BowerbirdError


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and unbiased covariance of n examples; with n ≤ d kept as centred rows, covariance = rowsᵀ rows."""

    n: int
    mean: Float[Tensor, " d"]
    full: Float[Tensor, "d d"] | None = None
    rows: Float[Tensor, "n d"] | None = None

    @property
    def dimension(self) -> int:
        return self.mean.shape[0]

    @cached_property
    def covariance(self) -> Float[Tensor, "d d"]:
        if self.full is not None:
            return self.full
        assert self.rows is not None
        return self.rows.T @ self.rows

    @cached_property
    def factor(self) -> Float[Tensor, "d r"]:
        """Some F with F Fᵀ = covariance."""
        if self.rows is not None:
            return self.rows.T
        factor, failed = torch.linalg.cholesky_ex(self.covariance)
        if not failed:
            return factor
        eigenvalues, vectors = torch.linalg.eigh(self.covariance)
        return vectors * eigenvalues.clamp(min=0).sqrt()

    @property
    def trace(self) -> float:
        """Total variance."""
        return float(self.rows.square().sum() if self.rows is not None else self.covariance.trace())


class Moments:
    """Mean and covariance of features that arrive in batches: numerically stable, in float64, one d×d matrix of memory.

    Each batch is centred by its own mean and merged exactly (Chan, Golub & LeVeque 1979):
    S ← S + S_batch + δ δᵀ · n·m / (n + m), δ = mean_batch - mean.
    """

    def __init__(self, dimension: int):
        self.n = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self.scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    def update(self, features: Float[Tensor, "m d"]) -> None:
        m = len(features)
        if m == 0:
            return
        features = features.double()
        batch_mean = features.mean(0)
        centred = features - batch_mean
        delta = batch_mean - self.mean
        self.scatter.addmm_(centred.T, centred)
        self.scatter.addr_(delta, delta, alpha=self.n * m / (self.n + m))
        self.mean += delta * (m / (self.n + m))
        self.n += m

    def gaussian(self) -> Gaussian:
        _require_two(self.n)
        return Gaussian(self.n, self.mean.clone(), full=self.scatter / (self.n - 1))


def fit_gaussian(features: Float[Tensor, "n d"], batch_size: int = 4096) -> Gaussian:
    """The Gaussian of all rows, n ≥ 2; keeps the rows when they are at most as many as the dimensions."""
    n, dimension = features.shape
    _require_two(n)
    if n <= dimension:
        rows = features.double()
        mean = rows.mean(0)
        return Gaussian(n, mean, rows=(rows - mean) / (n - 1) ** 0.5)
    moments = Moments(dimension)
    for batch in features.split(batch_size):
        moments.update(batch)
    return moments.gaussian()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance between two Gaussians, in squared feature units, ≥ 0; symmetric in its arguments."""
    if a.dimension != b.dimension:
        raise BowerbirdError(f"Features of {a.dimension} and {b.dimension} dimensions have no Fréchet distance.")
    between_means = float((a.mean - b.mean).square().sum())
    # Rounding can leave a tiny negative number where the distance is zero.
    return max(0.0, between_means + a.trace + b.trace - 2 * trace_of_root(a, b))


def trace_of_root(a: Gaussian, b: Gaussian) -> float:
    """tr sqrt(sqrt(C_a) C_b sqrt(C_a))."""
    if a.rows is not None and b.rows is not None:
        return float(torch.linalg.svdvals(a.factor.T @ b.factor).sum())
    thin, other = (a, b) if a.rows is not None or b.rows is None else (b, a)
    product = thin.factor.T @ other.covariance @ thin.factor
    return float(torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum())


def too_few(n: int, dimension: int) -> str | None:
    """A sentence of warning when n examples are too few for a trustworthy distance in so many dimensions, else None."""
    if n < dimension:
        return (
            f"{n} images in {dimension} feature dimensions give a covariance without full rank: this Fréchet distance "
            f"is far too high and compares only with others of exactly {n} images."
        )
    if n < min(10 * dimension, 2048):
        return (
            f"{n} images are few: this Fréchet distance is biased upwards and compares only with others of exactly "
            f"{n} images."
        )
    return None


def _require_two(n: int) -> None:
    if n < 2:
        raise BowerbirdError(f"A covariance needs at least 2 images; there are {n}.")
