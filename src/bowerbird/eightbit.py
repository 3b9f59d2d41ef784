"""Numbers in [-1, 1], which models work with, and the bytes that pictures, clips and spectrograms are kept in."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_float(x: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0…255 to [-1, 1]."""
    return x.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[-1, 1] to 0…255, rounded to nearest, clamped: the inverse of ``to_float``."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
