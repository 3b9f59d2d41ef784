"""What is known of x_0, as y = A x_0 with a linear A, is held in every estimate that a sampler makes of it.

    D  <-  D + A⁺ (y - A D)          the nearest point to D that agrees with what is known

    completing   A keeps the known pixels           A⁺ puts them back        D <- y there, D elsewhere
    enlarging    A averages blocks of k×k pixels    A⁺ repeats an average    each block is shifted to its average

No network is trained for it: the model says what pictures look like, A says which of them it may be (Wang et al. 2023,
DDNM, arXiv:2212.00490, equation 13; for pixels it is Lugmayr et al. 2022, RePaint, arXiv:2201.09865, equation 8).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from bowerbird.samplers.integrate import Denoised, Denoiser

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


def holding(denoise: Denoiser, known: Known, clip: tuple[float, float] | None) -> Denoiser:
    """The denoiser whose estimates agree with what is known.

    Clipped before that: the other way round, an estimate within the bounds would no longer agree.
    """

    def held(x_t: Tensor, t: float) -> Denoised:
        d, mix = denoise(x_t, t)
        return Denoised(known(d if clip is None else d.clamp(*clip)), mix)

    return held
