"""Warp: a U-Net that answers with the frame before, moved, and what has to be added to it.

Of the K² places s within ``reach`` of each pixel p the network gives the weights w, and of each pixel the rest,

    D(p) = sum_s w_s(p) y(p + s)  +  rest(p),        w = softmax over s,        y the frame before.

What moves needs not be drawn again, only to be found, and comes out as sharp as it was seen (dynamic filters, De
Brabandere et al. 2016, arXiv:1605.09673; Finn et al. 2016, arXiv:1605.07157, equation 2).

Where to find it follows from x_t = (1 - t) x_0 + t eps by Bayes' rule.  If x_0 were y moved by s all around p, but for
an error of standard deviation ``MISFIT``, then the log-likelihood of x_t would be, but for a constant,

    L_s(p) = - sum_{q around p} (x_t(q) - (1 - t) y(q + s))² / (2 (t² + (1 - t)² MISFIT²)).

Over a wide neighbourhood it makes all parts of a thing agree on one motion while the noise still leaves several
possible; weights that every patch is given by itself tear things apart. Over a narrow one it tells neighbours apart
that move differently. The logits of w are L over each of the ``WINDOWS``, times gains that the U-Net gives for every
patch, and a prior: logits of the U-Net, and a linear function of how the frame before had moved, which is found in
the same way, with t = 0.  (Differences summed over shifts are the cost volumes of optical flow: Sun et al. 2018,
arXiv:1709.02371, section 3.) Before training what moved goes on moving, and nothing is added.

It suits flows that answer with x_0, of the family rollout, which gives them the frames before.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.conditioning import Given
from bowerbird.nets.patches import from_patches, to_patches
from bowerbird.nets.unet import UNet, UNetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture

BEFORE = "before"
"""The name under which the frames before are given, (n, frames · c, h, w), the last one at the end."""
MISFIT = 0.6
"""Standard deviation of what a moved frame leaves unexplained; frames span [-1, 1]."""
WINDOWS = (0, 1, 3, 7)
"""Sides, in patches, of the neighbourhoods over which likelihoods are added up; 0 is a single pixel."""
GOES_ON = 4.0
"""Before training: the logit of a motion that is sure to be that of the frame before."""


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
        places, width = (2 * config.reach + 1) ** 2, config.channels * config.multipliers[0]
        self.seen = nn.Conv2d(len(WINDOWS) * places, width, 1)
        nn.init.normal_(self.seen.weight, std=len(WINDOWS) ** -0.5)  # of its inputs, one per window is nearly 1
        self.goes_on = nn.Conv2d(places, places, 1, bias=False)
        self.goes_on.weight = nn.Parameter(GOES_ON * torch.eye(places)[..., None, None])
        self.last = nn.Conv2d(width, self.n_rest + places + len(WINDOWS), 3, padding=1)
        nn.init.zeros_(self.last.weight)
        widest = torch.arange(self.last.out_channels) == self.last.out_channels - 1
        self.last.bias = nn.Parameter(widest.float())

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: Float[Tensor, " n"], given: Given | None = None
    ) -> Float[Tensor, "n c h w"]:
        c, height, width = x_t.shape[1:]
        frames = [torch.zeros_like(x_t), *(given or {})[BEFORE].to(x_t).split(c, 1)]
        around = shifted(frames[-1], self.reach)
        with torch.autocast(x_t.device.type, enabled=False):  # sums of hundreds, of which small differences count
            single = likelihood(x_t, around, t)
            found = [added_up(single, self.patch, side) for side in WINDOWS[1:]]
            past = likelihood(frames[-1], shifted(frames[-2], self.reach), torch.zeros_like(t))
            gone = added_up(past, self.patch, WINDOWS[-1]).softmax(1)
        motion = self.seen(torch.cat([*(one.softmax(1) for one in found), gone], 1))
        h = self.first(to_patches(self.conditioning.given.over(x_t, given), self.patch)) + motion
        out = self.body(h, self.conditioning(t, given)).float()
        rest, prior, *gains = out.split([self.n_rest, gone.shape[1], *[1] * len(WINDOWS)], 1)
        logits = prior + self.goes_on(gone) + sum(gain * one for gain, one in zip(gains[1:], found, strict=True))
        logits = self._pixels(logits, x_t) + self._pixels(gains[0], x_t) * single
        return (around * logits.softmax(1)[:, None]).sum(2) + from_patches(rest, self.patch, height, width)

    def _pixels(self, grid: Float[Tensor, "n k rows columns"], x: Tensor) -> Float[Tensor, "n k h w"]:
        """For every pixel what its patch has."""
        return F.interpolate(grid, scale_factor=self.patch, mode="nearest")[..., : x.shape[-2], : x.shape[-1]]


def likelihood(
    x_t: Float[Tensor, "n c h w"], around: Float[Tensor, "n c places h w"], t: Float[Tensor, " n"]
) -> Float[Tensor, "n places h w"]:
    """log p(x_t | s) of every pixel by itself, less its mean over s."""
    t = t.view(-1, 1, 1, 1)
    error = (x_t[:, :, None] - (1 - t[..., None]) * around).square().sum(1)
    found = -error / (2 * (t**2 + ((1 - t) * MISFIT) ** 2))
    return found - found.mean(1, keepdim=True)


def added_up(x: Float[Tensor, "n k h w"], patch: int, side: int) -> Float[Tensor, "n k rows columns"]:
    """Sums over ``side`` × ``side`` patches around every patch."""
    down, right = (near(n, patch, side).to(x) for n in x.shape[-2:])
    return down @ x @ right.T


def near(n: int, patch: int, side: int) -> Float[Tensor, "patches n"]:
    """1 where one of n pixels lies in one of ``side`` patches around a patch."""
    of = torch.arange(n) // patch
    return ((of - torch.arange(-(-n // patch))[:, None]).abs() <= side // 2).float()


def shifted(x: Float[Tensor, "n c h w"], reach: int) -> Float[Tensor, "n c places h w"]:
    """x(p + s) for every s in [-reach, reach]², row by row; beyond its edge a picture is as at it."""
    height, width = x.shape[-2:]
    around = F.pad(x, (reach,) * 4, mode="replicate")
    side = range(2 * reach + 1)
    return torch.stack([around[..., i : i + height, j : j + width] for i in side for j in side], 2)
