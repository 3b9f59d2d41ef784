"""Residual convolutions between an image and a code that is itself a small image, for autoencoders.

Level i works on ⌈side / (patch · 2^i)⌉ positions, as in ``convnet``, but no layer sees the whole image: the code has as
many numbers at each position of the coarsest level, and keeps where things are.  Flattened, it is the vector that the
roles of ``nets.roles`` ask for, channel by channel, so its size must be a multiple of those positions.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.conditioning import Given, for_decoder
from bowerbird.nets.convnet import ConvBlock
from bowerbird.nets.normalization import group_norm
from bowerbird.nets.patches import from_patches, to_patches
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture


@nets.register("grid")
@dataclass(frozen=True)
class GridConfig(NetConfig):
    """An autoencoder's hyperparameters; its code is a grid."""

    channels_last = True

    channels: Count = 48
    """Feature maps at the finest level, before its multiplier."""
    multipliers: tuple[Count, ...] = (1, 2)
    """Feature maps of each level as multiples of ``channels``, the finest first; their number is that of the levels."""
    blocks: Count = 1
    """Residual blocks per level."""
    patch: Count = 4
    """Pixels per side folded into channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.multipliers:
            raise ValueError("grid.multipliers needs at least one level, such as [1, 2].")

    def encoder(self, spec: Spec, n_out: int) -> nn.Module:
        return GridEncoder(self, spec, self._depth(spec, n_out))

    def decoder(self, spec: Spec, n_in: int, channels_out: int) -> nn.Module:
        return GridDecoder(self, spec, self._depth(spec, n_in), channels_out)

    def code_shape(self, spec: Spec, size: int) -> tuple[int, int, int]:
        return self._depth(spec, size), *self.grids(spec)[-1]

    def grids(self, spec: Spec) -> list[tuple[int, int]]:
        """Rows and columns of each level, the finest first."""
        _, height, width = shape_of_picture(spec)
        steps = [self.patch * 2**level for level in range(len(self.multipliers))]
        return [(-(-height // step), -(-width // step)) for step in steps]

    def levels(self) -> nn.ModuleList:
        return nn.ModuleList(
            nn.Sequential(*(ConvBlock(self.channels * m, "group") for _ in range(self.blocks)))
            for m in self.multipliers
        )

    def resizes(self, down: bool) -> nn.ModuleList:
        """Between each level and the next, four positions become one, or one four."""
        widths = [self.channels * m for m in self.multipliers]
        return nn.ModuleList(nn.Conv2d(4 * a, b, 1) if down else nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(widths))

    def _depth(self, spec: Spec, size: int) -> int:
        """Numbers at each position of a code of so many."""
        rows, columns = self.grids(spec)[-1]
        if size % (rows * columns):
            raise BowerbirdError(
                f"The net grid makes codes of {rows}×{columns} positions from these images, and {size} numbers do not "
                f"divide among them; choose a multiple of {rows * columns}, such as model.n_latent = "
                f"{max(1, round(size / (rows * columns))) * rows * columns}."
            )
        return size // (rows * columns)


class GridEncoder(nn.Module):
    """x → the numbers of its code; what is given is not looked at, for the image shows it."""

    def __init__(self, config: GridConfig, spec: Spec, depth: int):
        super().__init__()
        self.patch = config.patch
        channels = config.channels * config.multipliers[0]
        self.first = nn.Conv2d(shape_of_picture(spec)[0] * config.patch**2, channels, 3, padding=1)
        self.levels, self.resize = config.levels(), config.resizes(down=True)
        self.last = nn.Conv2d(config.channels * config.multipliers[-1], depth, 1)

    def forward(self, x: Float[Tensor, "n c h w"], given: Given | None = None) -> Float[Tensor, "n n_out"]:
        h = self.levels[0](self.first(to_patches(x, self.patch)))
        for resize, level in zip(self.resize, list(self.levels)[1:], strict=True):
            h = level(resize(to_patches(h, 2)))
        return self.last(h).flatten(1)


class GridDecoder(nn.Module):
    """(z, given) → an image, without a final non-linearity.  What is given is added to every position's code."""

    def __init__(self, config: GridConfig, spec: Spec, depth: int, channels_out: int):
        super().__init__()
        _, self.height, self.width = shape_of_picture(spec)
        self.patch, self.grids = config.patch, config.grids(spec)
        self.given = for_decoder(spec.given, depth, config)
        self.first = nn.Conv2d(depth, config.channels * config.multipliers[-1], 3, padding=1)
        self.levels, self.resize = config.levels(), config.resizes(down=False)
        channels = config.channels * config.multipliers[0]
        self.last_norm = group_norm(channels)
        self.last = nn.Conv2d(channels, channels_out * config.patch**2, 3, padding=1)

    def forward(self, z: Float[Tensor, "n n_in"], given: Given | None = None) -> Float[Tensor, "n channels_out h w"]:
        z = z.unflatten(1, (-1, *self.grids[-1]))
        if self.given:
            z = z + self.given(given, z.shape[0])[..., None, None]
        h = self.levels[-1](self.first(z.to(memory_format=torch.channels_last)))
        for i in reversed(range(len(self.resize))):
            h = self.levels[i](from_patches(self.resize[i](h), 2, *self.grids[i]))
        h = self.last(F.leaky_relu(self.last_norm(h), 0.2))
        return from_patches(h, self.patch, self.height, self.width)
