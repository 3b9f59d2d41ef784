"""Bits per dimension: negative log-likelihoods of images of any size on one scale.

    bits_per_dim = nll / (dims · ln 2)

It is the number of bits per pixel and channel that an ideal coder built on the model would need, if ``nll`` is that of
*discrete* values.  A density has no such meaning until the width of the bins that the data were rounded to is accounted
for: p(value) ≈ density · width, hence nll = nll_of_density - dims · ln(width).  Values 0…255 seen as [-1, 1] have width
2/255, and forgetting it changes the result by 7 bits.
"""

import math

UINT8_BIN_WIDTH = 2 / 255
"""Distance between neighbouring pixel values on the scale [-1, 1]."""


def bits_per_dim(nll: float, dims: int) -> float:
    """Bits per dimension of a discrete negative log-likelihood in nats per example of ``dims`` ≥ 1 numbers."""
    return nll / (dims * math.log(2))


def discrete_nll(density_nll: float, dims: int, width: float = UINT8_BIN_WIDTH) -> float:
    """Nats per example of values rounded to bins of ``width``, from the negative log-density (constant in a bin)."""
    return density_nll - dims * math.log(width)
