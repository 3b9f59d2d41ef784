"""Warp: a U-Net that answers with the frame before, moved, and what has to be added to it.

Of the K² places within ``reach`` of each patch of pixels the U-Net gives the weights w, and of each pixel the rest,

    D(p) = sum_s w_s(p) x(p + s)  +  rest(p),        w = softmax over s of the logits, s in [-reach, reach]².

What moves needs not be drawn again, only to be found, and comes out as sharp as it was seen (dynamic filters, De
Brabandere et al. 2016, arXiv:1605.09673; Finn et al. 2016, arXiv:1605.07157, equation 2).  Before training w is all but
1 at s = 0 and the rest is 0: a picture that stands still.

It suits networks that answer with x_0, of the family rollout, which gives them the frames before.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.conditioning import Given
from bowerbird.nets.patches import from_patches
from bowerbird.nets.unet import UNet, UNetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture

BEFORE = "before"
"""The name under which the frames before are given, (n, frames · c, h, w), the last one at the end."""
STILL = 6.0
"""The logit of s = 0 before training: of 49 places it then has 0.89 of the weight."""


@nets.register("warp")
@dataclass(frozen=True)
class WarpConfig(UNetConfig):
    """A warping U-Net's hyperparameters: those of the U-Net, and how far things move."""

    reach: Count = 3
    """Most pixels that something moves from one frame to the next, to either side."""

    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        channels, height, width = shape_of_picture(spec)
        if BEFORE not in spec.given or channels_out != channels:
            raise BowerbirdError(
                'The network warp moves the frame before; use it inside family = "rollout", with a flow.'
            )
        config = self.for_side(max(height, width))
        assert isinstance(config, WarpConfig)
        return WarpingUNet(config, spec, channels_out)


class WarpingUNet(UNet):
    """(x_t, t, given) → the frame before, moved, plus a rest."""

    def __init__(self, config: WarpConfig, spec: Spec, channels_out: int):
        super().__init__(config, spec, channels_out)
        self.reach, self.n_rest = config.reach, channels_out * config.patch**2
        places = (2 * config.reach + 1) ** 2
        self.last = nn.Conv2d(config.channels * config.multipliers[0], self.n_rest + places, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        still = F.one_hot(torch.tensor(self.n_rest + places // 2), self.n_rest + places)
        self.last.bias = nn.Parameter(STILL * still.float())

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: Float[Tensor, " n"], given: Given | None = None
    ) -> Float[Tensor, "n c h w"]:
        seen = self.conditioning.given.over(x_t, given)
        out = self.features(seen, self.conditioning(t, given))
        before = (given or {})[BEFORE][:, -x_t.shape[1] :].to(out)
        rest = from_patches(out[:, : self.n_rest], self.patch, *x_t.shape[-2:])
        weights = out[:, self.n_rest :].softmax(1).to(out)
        return moved(before, weights, self.reach, self.patch) + rest


def moved(
    x: Float[Tensor, "n c h w"], weights: Float[Tensor, "n places rows columns"], reach: int, patch: int
) -> Float[Tensor, "n c h w"]:
    """sum_s w_s(p) x(p + s), with the weights of the patch in which p lies; beyond its edge a picture is as at it."""
    height, width = x.shape[-2:]
    around = F.pad(x, (reach,) * 4, mode="replicate")
    windows = around.unfold(2, height, 1).unfold(3, width, 1).flatten(2, 3)
    every = F.interpolate(weights, scale_factor=patch, mode="nearest")[:, None, :, :height, :width]
    return (windows * every).sum(2)
