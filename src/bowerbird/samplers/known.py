"""What is known of x_0, as y = A x_0 with a linear A, changes every estimate that a sampler makes of it.

    D  <-  D + (alpha^2 + sigma^2) / alpha  J^T e,       e = A⁺ (y - A D),   J = ∂D/∂x_t       what y says of the rest
    D  <-  D + A⁺ (y - A D)                                                                 what y says of itself

    completing   A keeps the known pixels           A⁺ puts them back        D <- y there
    enlarging    A averages blocks of k×k pixels    A⁺ repeats an average    each block is shifted to its average

No network is trained for it.  Given x_t, x_0 has the covariance C = sigma^2 / alpha J; were it normal, its mean given
y would be D + C A^T (A C A^T)^-1 (y - A D).  The first line takes A C A^T as r^2 A A^T with the r^2 of independent
numbers of variance 1, sigma^2 / (alpha^2 + sigma^2) (Song et al. 2023, ΠGDM), and costs a derivative of the network.
The second makes the estimate agree exactly (Wang et al. 2023, DDNM, arXiv:2212.00490, equation 13).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from bowerbird.samplers.integrate import Denoised, Denoiser, Denoising

Images = Float[Tensor, "n c h w"]
Known = Callable[[Tensor], Tensor]
"""D → the nearest point to it that agrees with what is known."""


def pixels(x: Images, hidden: Bool[Tensor, "#n 1 h w"]) -> Known:
    """The pixels of x that are not hidden."""
    return lambda d: torch.where(hidden, d, x)


def averages(y: Float[Tensor, "n c h_small w_small"], k: int) -> Known:
    """The averages of blocks of k×k pixels."""
    return lambda d: d + repeated(y - F.avg_pool2d(d, k), k)


def repeated(y: Float[Tensor, "n c h_small w_small"], k: int) -> Images:
    """Every pixel as a block of k×k."""
    return y.repeat_interleave(k, 2).repeat_interleave(k, 3)


def holding(way: Denoising, known: Known) -> Denoiser:
    """The denoiser of ``way`` whose estimates take in what is known, and agree with it."""
    gains = {t: (a**2 + s**2) / a if a > 0 else 0.0 for t, a, s in zip(*way.points, strict=True)}

    def held(x_t: Tensor, t: float | Tensor) -> Denoised:
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            estimate, mix = way.denoise(x_t, t)
            d = estimate.detach()
            (told,) = torch.autograd.grad((estimate * (known(d) - d)).sum(), x_t)  # J^T e
        d = d + gains[float(t)] * told
        # Clipped before it is made to agree: the other way round, it would no longer.
        mix = mix.detach() if isinstance(mix, Tensor) else mix
        return Denoised(known(d if way.clip is None else d.clamp(*way.clip)), mix)

    return held
