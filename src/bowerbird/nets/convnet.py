"""Residual convolutional networks between images and vectors, for GANs and VAEs.

The encoder halves the grid between levels and ends in a vector; the decoder is its mirror image.  Level i works on
⌈side / (patch · 2^i)⌉ positions with channels · multipliers[i] feature maps.  As in the U-Net, resolution and width
change in a 1×1 convolution on the smaller grid and pixels are folded into channels by ``patch``; with patch = 2 the
outermost layers do what the strided convolutions of DCGAN (Radford et al. 2016) do, and cost as much.

Every operation can be differentiated twice, which gradient penalties on a discriminator need.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.nets.conditioning import Given, Head, for_decoder, picture_channels
from bowerbird.nets.normalization import group_norm
from bowerbird.nets.patches import from_patches, to_patches
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture

Norm = Literal["none", "batch", "group"]


@nets.register("convnet")
@dataclass(frozen=True)
class ConvNetConfig(NetConfig):
    """A convolutional encoder's or decoder's hyperparameters."""

    channels_last = True

    channels: Count = 64
    """Feature maps at the finest level, before its multiplier."""
    multipliers: tuple[Count, ...] = (1, 2)
    """Feature maps of each level as multiples of ``channels``, the finest first; their number is that of the levels."""
    blocks: Count = 1
    """Residual blocks per level."""
    norm: Norm = "none"
    """Normalisation before each non-linearity; batch must not be used where a gradient penalty is."""
    patch: Count = 2
    """Pixels per side folded into channels."""
    n_hidden: Count = 256
    """Numbers in the encoder's last hidden layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.multipliers:
            raise ValueError("convnet.multipliers needs at least one level, such as [1, 2].")

    def encoder(self, spec: Spec, n_out: int) -> nn.Module:
        return ConvEncoder(self, spec, n_out)

    def decoder(self, spec: Spec, n_in: int, channels_out: int) -> nn.Module:
        return ConvDecoder(self, spec, n_in, channels_out)

    def grid_encoder(self, spec: Spec, n_out: int) -> "GridEncoder":
        return GridEncoder(self, spec, n_out)

    def grid_decoder(self, spec: Spec, n_in: int, channels_out: int) -> nn.Module:
        return GridDecoder(self, spec, n_in, channels_out)

    def widths(self) -> list[int]:
        return [self.channels * m for m in self.multipliers]

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of each level, the finest first."""
        steps = [self.patch * 2**level for level in range(len(self.multipliers))]
        return [(-(-height // step), -(-width // step)) for step in steps]


class Shrinking(nn.Module):
    """An image → feature maps on the coarsest grid."""

    def __init__(self, config: ConvNetConfig, channels_in: int):
        super().__init__()
        self.patch = config.patch
        bias = config.norm != "batch"  # which would remove it again
        widths = config.widths()
        self.first = nn.Conv2d(channels_in * config.patch**2, widths[0], 3, padding=1, bias=bias)
        self.levels = _levels(config)
        self.resize = nn.ModuleList(nn.Conv2d(a, b, 1, bias=bias) for a, b in pairwise(widths))
        self.last_norm = _norm(config.norm, widths[-1])

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width rows columns"]:
        h = self.first(to_patches(x, self.patch))
        for i, level in enumerate(self.levels):
            if i:
                h = self.resize[i - 1](F.avg_pool2d(h, 2, ceil_mode=True))
            h = level(h)
        return F.leaky_relu(self.last_norm(h), 0.2)


class ConvEncoder(Shrinking):
    """(x, given) → ``n_out`` numbers: a discriminator's logit, or the parameters of q(z|x)."""

    def __init__(self, config: ConvNetConfig, spec: Spec, n_out: int):
        channels_in, height, width = shape_of_picture(spec)
        super().__init__(config, channels_in + picture_channels(spec.given))
        rows, columns = config.grids(height, width)[-1]
        self.head = Head(config.widths()[-1] * rows * columns, config.n_hidden, n_out, spec.given)
        _initialise(self)

    def forward(self, x: Float[Tensor, "n c h w"], given: Given | None = None) -> Float[Tensor, "n n_out"]:
        h = self.features(self.head.given.over(x, given)).permute(0, 2, 3, 1)  # contiguous where h is channels_last
        return self.head(h.flatten(1), given)


class GridEncoder(Shrinking):
    """x → ``n_out`` numbers at each place of the coarsest grid."""

    def __init__(self, config: ConvNetConfig, spec: Spec, n_out: int):
        channels_in, height, width = shape_of_picture(spec)
        super().__init__(config, channels_in)
        self.grid = config.grids(height, width)[-1]
        self.last = nn.Conv2d(config.widths()[-1], n_out, 1)
        _initialise(self)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n n_out rows columns"]:
        return self.last(self.features(x))


class Growing(nn.Module):
    """Feature maps on the coarsest grid → an image, without a final non-linearity."""

    def __init__(
        self, config: ConvNetConfig, spec: Spec, channels_out: int, first: nn.Module, given: nn.Module | None = None
    ):
        """``first`` makes the feature maps, of whatever the network begins with, and of what is ``given``."""
        super().__init__()
        _, self.height, self.width = shape_of_picture(spec)
        self.patch = config.patch
        bias = config.norm != "batch"  # which would remove it again
        widths, self.grids = config.widths(), config.grids(self.height, self.width)
        self.given = given
        self.first = first
        self.levels = _levels(config)
        self.resize = nn.ModuleList(nn.Conv2d(b, a, 1, bias=bias) for a, b in pairwise(widths))
        self.last_norm = _norm(config.norm, widths[0])
        self.last = nn.Conv2d(widths[0], channels_out * config.patch**2, 3, padding=1)
        _initialise(self)

    def grow(self, h: Float[Tensor, "n width rows columns"]) -> Float[Tensor, "n channels_out h w"]:
        for i in reversed(range(len(self.levels))):
            h = self.levels[i](h)
            if i:
                # Asking for the finer grid itself cuts the row or column that rounding up had added.
                h = F.interpolate(self.resize[i - 1](h), self.grids[i - 1], mode="nearest")
        h = self.last(F.leaky_relu(self.last_norm(h), 0.2))
        return from_patches(h, self.patch, self.height, self.width)


class ConvDecoder(Growing):
    """(z, given) → an image, without a final non-linearity.  The vector of what is given is concatenated to z."""

    def __init__(self, config: ConvNetConfig, spec: Spec, n_in: int, channels_out: int):
        _, height, width = shape_of_picture(spec)
        rows, columns = config.grids(height, width)[-1]
        given = for_decoder(spec.given, n_in, config)
        first = nn.Linear(2 * n_in if given else n_in, config.widths()[-1] * rows * columns)
        super().__init__(config, spec, channels_out, first, given)

    def forward(self, z: Float[Tensor, "n n_in"], given: Given | None = None) -> Float[Tensor, "n channels_out h w"]:
        if self.given:
            z = torch.cat([z, self.given(given, z.shape[0])], dim=1)
        h = self.first(z).unflatten(1, (*self.grids[-1], -1)).permute(0, 3, 1, 2)  # channels_last from the start
        return self.grow(h)


class GridDecoder(Growing):
    """``n_in`` numbers at each place of the coarsest grid → an image, without a final non-linearity."""

    def __init__(self, config: ConvNetConfig, spec: Spec, n_in: int, channels_out: int):
        super().__init__(config, spec, channels_out, nn.Conv2d(n_in, config.widths()[-1], 1))

    def forward(self, z: Float[Tensor, "n n_in rows columns"]) -> Float[Tensor, "n channels_out h w"]:
        return self.grow(self.first(z))


class ConvBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))) with act = LeakyReLU(0.2) (He et al. 2016, pre-activation)."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        bias = norm != "batch"
        self.norm1 = _norm(norm, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.norm2 = _norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        h = self.conv1(F.leaky_relu(self.norm1(x), 0.2))
        return x + self.conv2(F.leaky_relu(self.norm2(h), 0.2))


def _levels(config: ConvNetConfig) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(*(ConvBlock(width, config.norm) for _ in range(config.blocks))) for width in config.widths()
    )


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if norm == "batch" else group_norm(channels)


def _initialise(net: nn.Module) -> None:
    """He initialisation (2015) for LeakyReLU(0.2); the n residual branches together add as much variance as x has.

    Branches do not start at zero, as they do in the U-Net: spectral normalisation would divide zero by zero.
    """
    blocks = [module for module in net.modules() if isinstance(module, ConvBlock)]
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.2)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for block in blocks:
            block.conv2.weight.mul_(len(blocks) ** -0.5)
