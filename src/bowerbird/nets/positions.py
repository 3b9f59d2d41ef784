"""Positions: how a Transformer knows where in its sequence a token stands, counted from 0.

    learned      a vector per position is added to the token's
    sinusoidal   the same with a fixed vector: sin(ω_k p) at 2k, cos(ω_k p) at 2k+1,   ω_k = base^(-2k/n_embd)
    rotary       features k and k + d/2 of each query and key turn in their plane by ω_k p,        ω_k = base^(-2k/d),
                 so that the product of a query and a key depends on the distance of their positions alone

Vaswani et al. 2017 (arXiv:1706.03762, section 3.5); Su et al. 2021 (arXiv:2104.09864, equation 34), whose planes are
2k and 2k+1: ours, halves apart, are the convention of Hugging Face's Llama, and the same up to the order of features.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bowerbird.ranges import Count, Positive, check

Positions = Literal["learned", "sinusoidal", "rotary"]


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions are slowed down to read more tokens than a model was first trained on."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """linear: every plane (Chen et al. 2023, arXiv:2306.15595); llama3 and yarn (Peng et al. 2023, arXiv:2309.00071,
    section 3.2): planes that turn fewer than ``low`` times within ``context``, and partly those up to ``high``."""
    factor: Positive = 1.0
    """By how much they are slowed down."""
    context: Count = 8192
    """Context that the model was first trained on, in tokens."""
    low: Positive = 1.0
    """Planes with fewer turns are slowed down by the whole factor."""
    high: Positive = 4.0
    """Planes with more turns are not slowed down."""
    magnitude: Positive = 1.0
    """Factor on cosines and sines (yarn)."""

    def __post_init__(self) -> None:
        check(self, "rope_scaling.")

    def slowed(self, omega: Float[Tensor, " n_planes"], base: float) -> Float[Tensor, " n_planes"]:
        """The angle per position of each plane, given the original one."""
        if self.kind == "linear":
            return omega / self.factor
        kept = self._kept_by_turns(omega) if self.kind == "llama3" else self._kept_by_plane(omega, base)
        return omega / self.factor * (1 - kept) + omega * kept

    def _kept_by_turns(self, omega: Float[Tensor, " n_planes"]) -> Float[Tensor, " n_planes"]:
        """0 … 1, linear in the number of turns."""
        turns = self.context * omega / (2 * math.pi)
        return ((turns - self.low) / (self.high - self.low)).clamp(0, 1)

    def _kept_by_plane(self, omega: Float[Tensor, " n_planes"], base: float) -> Float[Tensor, " n_planes"]:
        """0 … 1, linear in the number of the plane, between the whole planes next to those of so many turns."""
        n_planes = len(omega)

        def plane(turns: float) -> float:
            return n_planes * math.log(self.context / (turns * 2 * math.pi)) / math.log(base)

        first, last = max(math.floor(plane(self.high)), 0), min(math.ceil(plane(self.low)), 2 * n_planes - 1)
        k = torch.arange(n_planes, device=omega.device, dtype=torch.float32)
        return 1 - ((k - first) / max(last - first, 1e-3)).clamp(0, 1)


UNSCALED = RopeScaling()


class Rotation(NamedTuple):
    """The turns of all planes at some positions, for ``rotated``."""

    cos: Float[Tensor, "*n token d"]
    sin: Float[Tensor, "*n token d"]
    """Negative in the first half."""


def _angles(
    position: Int[Tensor, "*n token"], n_planes: int, base: float, scaling: RopeScaling = UNSCALED
) -> Float[Tensor, "*n token n_planes"]:
    """ω_k p = p · base^(-k / n_planes), in float32, whatever the network computes in."""
    k = torch.arange(n_planes, device=position.device, dtype=torch.float32)
    omega = base ** (-k / n_planes)
    return position[..., None].float() * (omega if scaling.kind == "none" else scaling.slowed(omega, base))


def sinusoids(
    position: Int[Tensor, "*n token"], n_embd: int, base: float = 10_000.0
) -> Float[Tensor, "*n token n_embd"]:
    """The fixed vector of each position; ``n_embd`` is even."""
    angles = _angles(position, n_embd // 2, base)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rotation(position: Int[Tensor, "*n token"], d: int, base: float, scaling: RopeScaling = UNSCALED) -> Rotation:
    """The turns of a head's d features, d even, at the positions."""
    angles = _angles(position, d // 2, base, scaling)
    cos, sin = angles.cos(), angles.sin()
    if scaling.magnitude != 1:
        cos, sin = cos * scaling.magnitude, sin * scaling.magnitude
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
