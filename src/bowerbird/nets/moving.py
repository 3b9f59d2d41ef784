"""What moves one picture into another: an encoder that sees both, and a decoder that has the first and the code.

The decoder answers with a displacement u of each place, and draws

    D(y, z)(p) = y(p + u(p)),        y the first picture, bilinear between its pixels, as u is between places

so that every pixel is one that was seen, as sharp as it was (spatial Transformers: Jaderberg et al. 2015,
arXiv:1506.02025).  It draws nothing of its own: a decoder that may also change colours learns to smear instead of to
move, which at first lowers the error sooner.  Before training nothing moves: the answer is y.

A code is a small picture: ``depth`` numbers at each of rows × columns places of the coarsest of ``LEVELS`` grids.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.nets.convnet import ConvBlock
from bowerbird.nets.normalization import group_norm
from bowerbird.nets.patches import from_patches, to_patches

PATCH, LEVELS = 2, 3
"""Pixels per side of a place of the finest grid, and grids, each of which has half as many places a side."""
STRIDE = PATCH * 2 ** (LEVELS - 1)
"""Pixels per side of a place of a code."""


def code_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a code."""
    return -(-height // STRIDE), -(-width // STRIDE)


def warped(y: Float[Tensor, "n c h w"], u: Float[Tensor, "n 2 h w"]) -> Float[Tensor, "n c h w"]:
    """y(p + u(p)), u in pixels to the right and down; beyond its edge a picture is as at it."""
    height, width = y.shape[-2:]
    down, right = (torch.arange(side, device=y.device, dtype=u.dtype) for side in (height, width))
    place = torch.stack([u[:, 0] + right, u[:, 1] + down[:, None]], -1)
    scale = place.new_tensor([2 / width, 2 / height])
    return F.grid_sample(y, (place + 0.5) * scale - 1, padding_mode="border", align_corners=False)


class MotionEncoder(nn.Module):
    """(x, y) → ``n_out`` numbers at each place: what has become of y in x."""

    def __init__(self, channels_in: int, channels: int, n_out: int):
        super().__init__()
        middle, coarse = 2 * channels, 4 * channels
        self.first = nn.Conv2d(2 * channels_in * (2 * PATCH) ** 2, middle, 3, padding=1)
        self.middle = nn.Sequential(ConvBlock(middle, "group"))
        self.narrow = nn.Conv2d(4 * middle, coarse, 1)
        self.coarse = nn.Sequential(ConvBlock(coarse, "group"), ConvBlock(coarse, "group"))
        self.last = nn.Conv2d(coarse, n_out, 1)

    def forward(
        self, x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n n_out rows columns"]:
        h = self.middle(self.first(to_patches(torch.cat([x, y], 1), 2 * PATCH)))
        return self.last(self.coarse(self.narrow(to_patches(h, 2))))


class MotionDecoder(nn.Module):
    """(z, y, features of y) → y, moved."""

    def __init__(self, channels_in: int, channels: int, depth: int):
        super().__init__()
        widths = [channels * 2**level for level in range(LEVELS)]
        pairs = list(pairwise(widths))
        self.see = nn.Conv2d(channels_in * PATCH**2, channels, 3, padding=1)
        self.narrow = nn.ModuleList(nn.Conv2d(4 * a, b, 1) for a, b in pairs)
        self.seen = nn.ModuleList(ConvBlock(width, "group") for width in widths)
        self.first = nn.Conv2d(depth, widths[-1], 3, padding=1)
        self.levels = nn.ModuleList(ConvBlock(width, "group") for width in widths)
        self.widen = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.last_norm = group_norm(channels)
        self.last = nn.Conv2d(channels, 2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        self.last.bias = nn.Parameter(torch.zeros(self.last.out_channels))

    def features(self, y: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """Of the first picture, on every grid, the finest first: to be found once for all frames."""
        found = [self.seen[0](self.see(to_patches(y, PATCH)))]
        for narrow, block in zip(self.narrow, list(self.seen)[1:], strict=True):
            found.append(block(narrow(to_patches(found[-1], 2))))
        return found

    def forward(
        self, z: Float[Tensor, "n depth rows columns"], y: Float[Tensor, "n c h w"], features: list[Tensor]
    ) -> Float[Tensor, "n c h w"]:
        height, width = y.shape[-2:]
        h = self.levels[-1](self.first(z) + features[-1])
        for level in reversed(range(LEVELS - 1)):
            known = features[level]
            h = self.levels[level](from_patches(self.widen[level](h), 2, *known.shape[-2:]) + known)
        u = self.last(F.leaky_relu(self.last_norm(h), 0.2)).float()
        with torch.autocast(y.device.type, enabled=False):  # places of pixels need more digits than bf16 has
            u = F.interpolate(u, scale_factor=PATCH, mode="bilinear")[..., :height, :width]
            return warped(y.float(), u)
