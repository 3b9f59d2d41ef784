"""Metrics of pixels, which need no network: sliced Wasserstein distance, and PSNR and SSIM of reconstructions.

    SW² = E_θ W₂²(θ·x, θ·y),   θ uniform on the unit sphere of all pixels

(Bonneel et al. 2015; Rabin et al. 2011).  On a line the optimal transport matches sorted values, so a projection costs
a sort.  The square root is reported in grey levels (0…255): adding a constant c to every pixel moves it by c times
|θ·1|, so about c in the root mean square.  It sees brightness, colour and layout, and hardly any detail.

    PSNR = 10 log₁₀(255² / mean (x - y)²)
    SSIM = mean over windows of (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))

(Wang et al. 2004) with a Gaussian window of 11×11 pixels, σ = 1.5, C₁ = (0.01 · 255)², C₂ = (0.03 · 255)², windows that
lie inside the image, channels averaged.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from bowerbird.errors import BowerbirdError

PROJECTIONS = 512
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def sliced_wasserstein(
    *,
    samples: UInt8[Tensor, "n c h w"],
    reference: UInt8[Tensor, "m c2 h2 w2"],
    n_projections: int = PROJECTIONS,
    seed: int = 0,
) -> tuple[float, float]:
    """The distance in grey levels between equally many images of one shape, and its error over the projections."""
    if samples.shape != reference.shape:
        raise BowerbirdError(
            f"Sliced Wasserstein compares equally many images of one shape, not {tuple(samples.shape)} and "
            f"{tuple(reference.shape)}; give both sets one size."
        )
    x, y = samples.flatten(1), reference.flatten(1)
    theta = torch.randn(x.shape[1], n_projections, generator=torch.Generator().manual_seed(seed))
    theta /= theta.norm(dim=0)
    cost = []
    for directions in theta.split(64, 1):
        a, b = ((of.float() @ directions).sort(0).values for of in (x, y))
        cost.append((a - b).double().square().mean(0))
    squared = torch.cat(cost)
    distance = float(squared.mean().sqrt())
    error = float(squared.std(correction=0) / n_projections**0.5)
    return distance, error / (2 * distance) if distance > 0 else 0.0


def psnr(x: UInt8[Tensor, "n c h w"], y: UInt8[Tensor, "n c h w"]) -> tuple[float, float | None]:
    """Decibels of the mean squared error over all pairs (∞ for equal images), and its standard error over pairs."""
    error = (x.double() - y.double()).square().mean((1, 2, 3))
    mean = float(error.mean())
    if mean == 0:
        return math.inf, None
    relative = float(error.std() / len(error) ** 0.5) / mean
    return 10 * math.log10(255**2 / mean), 10 / math.log(10) * relative


def ssim(x: UInt8[Tensor, "n c h w"], y: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Structural similarity of each pair of images, at most 1; images of at least 11×11 pixels."""
    if min(x.shape[2:]) < WINDOW:
        raise BowerbirdError(f"SSIM looks through windows of {WINDOW}x{WINDOW} pixels; these images are smaller.")
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-(at**2) / (2 * SIGMA**2))
    window /= window.sum()

    def local_mean(z: Tensor) -> Tensor:
        z = z.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(z, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    a, b = x.double(), y.double()
    mu_a, mu_b = local_mean(a), local_mean(b)
    var_a, var_b, covariance = (
        local_mean(u * v) - m for u, v, m in ((a, a, mu_a**2), (b, b, mu_b**2), (a, b, mu_a * mu_b))
    )
    luminance = (2 * mu_a * mu_b + C1) / (mu_a**2 + mu_b**2 + C1)
    structure = (2 * covariance + C2) / (var_a + var_b + C2)
    return (luminance * structure).mean((1, 2, 3)).view(x.shape[:2]).mean(1)
