"""Terms of the variational bound of a Gaussian chain, as pure functions: nats per dimension, means and log-variances.

    -log p(x_0) <= KL(q(x_T | x_0) | p(x_T)) + sum_i KL(q(x_s | x_t, x_0) | p(x_s | x_t)) - log p(x_0 | x_{t_1})

(Ho et al. 2020, eq. 5).  Both sides of every KL are Gaussian, and the last term is a Gaussian's mass in a pixel's bin.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian_kl(mean_gap: Tensor, logvar_q: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(q | p) of two Gaussians per dimension, in nats; ``mean_gap`` is the difference of their means."""
    return 0.5 * (logvar_p - logvar_q - 1 + torch.exp(logvar_q - logvar_p) + mean_gap**2 * torch.exp(-logvar_p))


def discretised_gaussian_log_prob(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """log of the mass of N(mean, exp(logvar)) in the bin of x, per dimension, in nats (Ho et al. 2020, eq. 13).

    x holds 8-bit values on [-1, 1], so bins are 2/255 wide; the first and the last reach to infinity.
    """
    infinity = 4e4  # in standard deviations; float32 gradients of log_ndtr are NaN below -46341 (torch 2.11)
    std = torch.exp(0.5 * logvar)
    low = torch.where(x < -1 + 1 / 255, -infinity, (x - 1 / 255 - mean) / std)
    high = torch.where(x > 1 - 1 / 255, infinity, (x + 1 / 255 - mean) / std)
    # Phi(high) - Phi(low), both taken in the lower tail, where log Phi is exact.
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_high = torch.special.log_ndtr(high)
    return log_high + torch.log(-torch.expm1(torch.special.log_ndtr(low) - log_high))


class Bound(NamedTuple):
    """The variational bound of each example, in bits per dimension."""

    prior: Float[Tensor, " n"]
    steps: Float[Tensor, "n terms"]
    """From t_2 → t_1 to t_T → t_{T-1}; a subset's terms are weighted so that their sum estimates the whole."""
    decoder: Float[Tensor, " n"]

    @property
    def total(self) -> Float[Tensor, " n"]:
        return self.prior + self.steps.sum(1) + self.decoder
