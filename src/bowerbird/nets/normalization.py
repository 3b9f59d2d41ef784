"""Normalisation as the convolutional networks and as the Transformers use it."""

import math
from typing import Literal

from torch import nn

Norm = Literal["layer", "rms"]


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Groups of 16 channels (Wu & He 2018, table 3), or fewer groups where 16 does not divide the channels.

    With 4 channels per group torch's channels_last kernel is twice as slow on a CPU.
    """
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels, affine=affine)


def token_norm(kind: Norm, n_embd: int, tol: float, bias: bool) -> nn.LayerNorm | nn.RMSNorm:
    """A norm of each token's features, with a weight per feature.

    layer   (x - mean(x)) / √(var(x) + tol) ∘ weight + bias       Ba et al. 2016, arXiv:1607.06450, equation 4
    rms     x / √(mean(x²) + tol) ∘ weight                        Zhang & Sennrich 2019, arXiv:1910.07467, equation 4
    """
    if kind == "rms":
        return nn.RMSNorm(n_embd, eps=tol)
    return nn.LayerNorm(n_embd, eps=tol, bias=bias)
