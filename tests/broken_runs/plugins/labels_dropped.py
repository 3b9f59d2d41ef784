"""A U-Net that is given the label and does not look at it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bowerbird.nets.conditioning import Given
from bowerbird.nets.unet import UNetConfig
from bowerbird.registry import nets


@nets.register("unet-without-label")
@dataclass(frozen=True)
class Config(UNetConfig):
    """As UNetConfig."""

    def denoiser(self, spec: Any, channels_out: int) -> nn.Module:
        return WithoutLabel(super().denoiser(spec, channels_out))


class WithoutLabel(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x_t: Tensor, t: Tensor, given: Given | None = None) -> Tensor:
        return self.net(x_t, t, None)
