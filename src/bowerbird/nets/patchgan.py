"""PatchGAN: a discriminator whose every logit judges one square of the picture (Isola et al. 2017, arXiv:1611.07004).

Squares overlap, and what lies in none of them together, the plan of the whole picture, is left to another loss.  With
``depth`` layers of stride 2 and two of stride 1, all 4×4 (section 3.2.2 and appendix 6.1.2), a logit sees a square of

    9 · 2^depth - 2 pixels a side:  16, 34, 70, 142  for depth 1, 2, 3, 4.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture


@nets.register("patchgan")
@dataclass(frozen=True)
class PatchGANConfig(NetConfig):
    """A PatchGAN's hyperparameters."""

    channels_last = True

    channels: Count = 64
    """Feature maps of the first layer; they double with each further one, up to 8 times as many."""
    depth: Count = 3
    """Layers that halve the grid."""
    norm: Literal["instance", "none"] = "instance"
    """instance hides the mean colour of a picture from all layers but the first; none lets them see it."""

    def encoder(self, spec: Spec, n_out: int) -> nn.Module:
        channels, *sides = shape_of_picture(spec)
        side, least = min(sides), 3 * 2**self.depth
        if side < least:
            raise BowerbirdError(
                f"A patchgan of depth {self.depth} needs pictures of at least {least} pixels a side, and these have "
                f"{side}; give it a smaller depth."
            )
        if spec.given:
            raise BowerbirdError(f"The net patchgan reads a picture alone, not {', '.join(spec.given)}; use convnet.")
        return PatchGAN(self, channels, n_out)


class PatchGAN(nn.Module):
    """x → ``n_out`` numbers for each square.  With ``norm``, all layers but the outer two are normalised."""

    def __init__(self, config: PatchGANConfig, channels_in: int, n_out: int):
        super().__init__()
        widths = [config.channels * min(2**level, 8) for level in range(config.depth + 1)]
        strides = [2] * (config.depth - 1) + [1]
        self.first = nn.Conv2d(channels_in, widths[0], 4, stride=2, padding=1)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride, padding=1) for (a, b), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.last = nn.Conv2d(widths[-1], n_out, 4, padding=1)
        self.normalise: Callable[[Tensor], Tensor] = F.instance_norm if config.norm == "instance" else nn.Identity()

    def forward(
        self, x: Float[Tensor, "n c h w"], given: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "n n_out rows columns"]:
        h = F.leaky_relu(self.first(x), 0.2)
        for layer in self.layers:
            h = F.leaky_relu(self.normalise(layer(h)), 0.2)
        return self.last(h)
