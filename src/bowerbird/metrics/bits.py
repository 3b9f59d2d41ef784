"""Bits per dimension: negative log-likelihoods of images of any size on one scale.

It is the number of bits per pixel and channel that an ideal coder built on the model would need, if the likelihood is
that of *discrete* values.  A density has no such meaning until the width of the bins that the data were rounded to is
accounted for: p(value) ≈ density · width.  Values 0…255 seen as [-1, 1] have width 2/255, and forgetting it changes the
result by 7 bits.
"""

import math


def bits_per_dim(nll: float, dims: int) -> float:
    """Bits per dimension, nll / (dims · ln 2), of a discrete ``nll`` in nats per example of ``dims`` ≥ 1 numbers."""
    return nll / (dims * math.log(2))
