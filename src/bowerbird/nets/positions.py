"""Positions: how a Transformer knows where in its sequence a token stands, counted from 0.

    learned      a vector per position is added to the token's
    sinusoidal   the same with a fixed vector: sin(ω_k p) at 2k, cos(ω_k p) at 2k+1,   ω_k = base^(-2k/n_embd)
    rotary       features k and k + d/2 of each query and key turn in their plane by ω_k p,        ω_k = base^(-2k/d),
                 so that the product of a query and a key depends on the distance of their positions alone

Vaswani et al. 2017 (arXiv:1706.03762, section 3.5); Su et al. 2021 (arXiv:2104.09864, equation 34), whose planes are
2k and 2k+1: ours, halves apart, are the convention of Hugging Face's Llama, and the same up to the order of features.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Positions = Literal["learned", "sinusoidal", "rotary"]


class Rotation(NamedTuple):
    """The turns of all planes at some positions, for ``rotated``."""

    cos: Float[Tensor, "*n token d"]
    sin: Float[Tensor, "*n token d"]
    """Negative in the first half."""


def _angles(position: Int[Tensor, "*n token"], n_planes: int, base: float) -> Float[Tensor, "*n token n_planes"]:
    """ω_k p = p · base^(-k / n_planes), in float32, whatever the network computes in."""
    k = torch.arange(n_planes, device=position.device, dtype=torch.float32)
    return position[..., None].float() * base ** (-k / n_planes)


def sinusoids(
    position: Int[Tensor, "*n token"], n_embd: int, base: float = 10_000.0
) -> Float[Tensor, "*n token n_embd"]:
    """The fixed vector of each position; ``n_embd`` is even."""
    angles = _angles(position, n_embd // 2, base)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rotation(position: Int[Tensor, "*n token"], d: int, base: float) -> Rotation:
    """The turns of a head's d features, d even, at the positions."""
    angles = _angles(position, d // 2, base)
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))


def rotated(x: Float[Tensor, "n head token d"], turn: Rotation) -> Float[Tensor, "n head token d"]:
    """(x_k cos - x_{k+d/2} sin, x_{k+d/2} cos + x_k sin) for k < d/2, at each token's own position."""
    cos, sin = turn.cos.to(x.dtype), turn.sin.to(x.dtype)
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def positions_within(document: Int[Tensor, "n token"]) -> Int[Tensor, "n token"]:
    """Positions that begin with 0 wherever the number of the document changes."""
    index = torch.arange(document.shape[1], device=document.device).expand_as(document)
    begins = torch.ones_like(document, dtype=torch.bool)
    begins[:, 1:] = document[:, 1:] != document[:, :-1]
    return index - torch.where(begins, index, 0).cummax(1).values
