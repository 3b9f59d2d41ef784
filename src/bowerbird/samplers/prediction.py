"""A prediction is what the network is trained to say: a linear combination y = p x_0 + q eps.

    eps       p = 0         q = 1          Ho et al. 2020, eq. 14
    x0        p = 1         q = 0
    v         p = -sigma    q = alpha      Salimans & Ho 2022, appendix D
    velocity  p = -1        q = 1          the flow's u = dx_t/dt (Lipman et al. 2022; Liu et al. 2022)
    edm       p = sigma / (sigma_data r)   q = -sigma_data / r, r^2 = sigma^2 + sigma_data^2   Karras et al. 2022, eq. 8

Together with x_t = alpha x_0 + sigma eps this is two equations for two unknowns, so every prediction gives the
denoiser D(x_t, t) = E[x_0 | x_t] by two scalars, D = a x_t + b y, and that is all a sampler has to know of it.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Prediction = Literal["eps", "x0", "v", "velocity", "edm"]
Pair = tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]


def _edm(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Pair:
    # The paper's D = c_skip x_t + c_out F, solved for F: its target has unit variance when x_0 has sigma_data.
    r = torch.sqrt(sigma**2 + sigma_data**2)
    return sigma / (sigma_data * r), -sigma_data / r


_TARGETS: dict[str, Callable[[Tensor, Tensor, float], Pair]] = {
    "eps": lambda alpha, sigma, _: (torch.zeros_like(alpha), torch.ones_like(alpha)),
    "x0": lambda alpha, sigma, _: (torch.ones_like(alpha), torch.zeros_like(alpha)),
    "v": lambda alpha, sigma, _: (-sigma, alpha),
    "velocity": lambda alpha, sigma, _: (-torch.ones_like(alpha), torch.ones_like(alpha)),
    "edm": _edm,
}


def target_weights(
    prediction: Prediction, alpha: Float[Tensor, "*n"], sigma: Float[Tensor, "*n"], sigma_data: float = 0.5
) -> Pair:
    """(p, q) of the training target y = p x_0 + q eps."""
    return _TARGETS[prediction](alpha, sigma, sigma_data)


def denoiser_weights(
    prediction: Prediction, alpha: Float[Tensor, "*n"], sigma: Float[Tensor, "*n"], sigma_data: float = 0.5
) -> Pair:
    """(a, b) of D = a x_t + b y, from q x_t - sigma y = (q alpha - p sigma) x_0; eps needs alpha > 0."""
    p, q = target_weights(prediction, alpha, sigma, sigma_data)
    determinant = q * alpha - p * sigma
    if prediction == "x0":  # 0/0 at sigma = 0, where the answer is the same.
        return torch.zeros_like(p), torch.ones_like(p)
    return q / determinant, -sigma / determinant
