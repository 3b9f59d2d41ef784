"""A watermark in the noise that a picture begins as: part of it always points the same way.

A sampler that adds no noise of its own is an equation dx/dt = f(x, t), and an equation can be followed back: from the
picture comes the noise again, roughly.  So the noise eps ~ N(0, I), of D numbers, is replaced by

    eps  <-  c k + sqrt((D - c²) / (D - 1)) (eps - <eps, k> k),        |eps|² stays D on average

with the unit vector k of a key, whose frequencies lie below ``HIGHEST`` cycles per pixel, since JPEG takes most from
those above.  Of a picture's noise e, restricted to those frequencies, of which there are K,

    z = sqrt(K) <e, k> / |e|,

which for any picture and a random key is the share of a random direction: mean 0, variance 1, lighter tails than a
normal number has.  It works on pictures that are too small for a mark in their pixels, and needs the model
(cf. Wen et al. 2023, arXiv:2305.20030, which marks rings of the noise's spectrum).
"""

import hashlib
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import BowerbirdError

HIGHEST = 0.4
"""Cycles per pixel: with more frequencies k is longer in the noise than what is followed back of it, until JPEG takes
the highest away; measured at 0.25, 0.4 and all of them (docs/provenance.md)."""
FALSE_ALARMS = 1e-6
"""Of one picture, over both reflections and two keys."""
STEPS = 16
"""With which a picture is followed back."""
BEGIN = 0.02
"""Where that begins: a picture of 8 bits, or from JPEG, is as noisy as x_t there."""


def threshold() -> float:
    return NormalDist().inv_cdf(1 - FALSE_ALARMS / 4)


def _band(shape: tuple[int, ...]) -> np.ndarray:
    """Which frequencies of a picture (c, h, w) count."""
    rows, columns = np.fft.fftfreq(shape[1])[:, None], np.fft.fftfreq(shape[2])[None, :]
    distance = np.hypot(rows, columns)
    return (distance > 0) & (distance <= HIGHEST)


def _low(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    band = torch.from_numpy(_band(tuple(x.shape[1:]))).to(x.device)
    return torch.fft.ifft2(torch.fft.fft2(x) * band).real


def direction(shape: tuple[int, ...], key: str) -> Float[Tensor, "c h w"]:
    """k: its numbers follow from the key and the shape."""
    n = int(np.prod(shape))
    numbers = np.frombuffer(hashlib.shake_256(f"{key}:{shape}".encode()).digest(4 * n), "<u4")
    white = torch.special.ndtri(torch.from_numpy((numbers + 0.5) / 2**32)).float().view(1, *shape)
    low = _low(white)[0]
    return low / low.norm()


def marked(eps: Float[Tensor, "n c *frames h w"], strength: float, key: str) -> Float[Tensor, "n c *frames h w"]:
    """The noise with <eps, k> = strength; as it is for 0.  BowerbirdError for more than its length."""
    dims = eps[0].numel()
    if not strength:
        return eps
    if eps.dim() != 4:
        raise BowerbirdError(
            f"watermark = {strength:g} is a mark in the noise of single pictures; leave it out for clips."
        )
    if strength**2 > dims / 2:
        raise BowerbirdError(f"watermark = {strength:g} is too strong for pictures of {dims} numbers; 12 is enough.")
    k = direction(tuple(eps.shape[1:]), key).to(eps)
    rest = eps - (eps * k).sum((1, 2, 3), keepdim=True) * k
    return strength * k + rest * ((dims - strength**2) / (dims - 1)) ** 0.5


def z(noise: Float[Tensor, "n c h w"], key: str) -> Float[Tensor, " n"]:
    """How far each picture's noise points along k."""
    shape = tuple(noise.shape[1:])
    low = _low(noise)
    k = direction(shape, key).to(noise)
    return (low * k).sum((1, 2, 3)) / low.flatten(1).norm(dim=1) * (shape[0] * int(_band(shape).sum())) ** 0.5
