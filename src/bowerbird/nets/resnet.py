"""The residual generator of Johnson et al. 2016 (arXiv:1603.08155) in the form that CycleGAN gave it.

A 7×7 convolution, ``halvings`` convolutions of stride 2, residual blocks at the coarsest size, as many enlargements, a
7×7 convolution; normalised per picture and channel, padded by reflection.  A picture is enlarged by repetition before a
3×3 convolution, where the papers have a transposed convolution, which draws a checkerboard.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.conditioning import N_FREQUENCIES, fourier_features
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture

Features = Float[Tensor, "n c h w"]


@nets.register("resnet")
@dataclass(frozen=True)
class ResNetConfig(NetConfig):
    """A residual generator's hyperparameters."""

    channels_last = True

    channels: Count = 64
    """Feature maps at full size; they double with each halving."""
    halvings: Count = 2
    """How often height and width are halved before the residual blocks."""
    blocks: Count = 6
    """Residual blocks; the papers have 6 for pictures of 128 pixels a side and 9 for 256."""

    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        if spec.given:
            raise BowerbirdError(f"The net resnet reads a picture alone, not {', '.join(spec.given)}; use unet or dit.")
        return ResNet(self, shape_of_picture(spec)[0], channels_out)


class ResNet(nn.Module):
    """(x_t, t) → a picture of the same size, whatever it is, with ``channels_out`` channels."""

    def __init__(self, config: ResNetConfig, channels_in: int, channels_out: int):
        super().__init__()
        widths = [config.channels * 2**level for level in range(config.halvings + 1)]
        self.first = _conv(channels_in, widths[0], 7)
        self.down = nn.ModuleList(_conv(a, b, 3, stride=2) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1]) for _ in range(config.blocks))
        self.up = nn.ModuleList(_conv(b, a, 3) for a, b in reversed(list(pairwise(widths))))
        self.last = _conv(widths[0], channels_out, 7)

    def forward(
        self, x_t: Features, t: Float[Tensor, " n"], given: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "n channels_out h w"]:
        h, sizes = F.relu(F.instance_norm(self.first(x_t))), []
        for down in self.down:
            sizes.append(h.shape[-2:])
            h = F.relu(F.instance_norm(down(h)))
        time = fourier_features(t)
        for block in self.blocks:
            h = block(h, time)
        for up in self.up:
            h = F.relu(F.instance_norm(up(F.interpolate(h, sizes.pop(), mode="nearest"))))
        return self.last(h)


class ResidualBlock(nn.Module):
    """h + norm(conv(relu(norm(conv(h)) + shift(t)))), where only denoisers see another t than 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = _conv(channels, channels, 3), _conv(channels, channels, 3)
        self.shift = nn.Linear(2 * N_FREQUENCIES, channels)

    def forward(self, h: Features, time: Float[Tensor, "n features"]) -> Features:
        inner = F.relu(F.instance_norm(self.conv1(h)) + self.shift(time)[:, :, None, None])
        return h + F.instance_norm(self.conv2(inner))


def _conv(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, padding_mode="reflect")
