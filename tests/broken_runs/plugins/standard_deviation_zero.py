"""A denoiser whose output is divided by its standard deviation, which is zero before the first step."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bowerbird.nets.conditioning import Given
from bowerbird.nets.mlp import MLPConfig, MLPDenoiser
from bowerbird.registry import nets


@nets.register("mlp-standardised")
@dataclass(frozen=True)
class Config(MLPConfig):
    """As MLPConfig."""

    def denoiser(self, spec: Any, channels_out: int) -> nn.Module:
        return Standardised(self, spec, channels_out)


class Standardise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.std((1, 2, 3), keepdim=True)


class Standardised(MLPDenoiser):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.standardise = Standardise()

    def forward(self, x_t: Tensor, t: Tensor, given: Given | None = None) -> Tensor:
        return self.standardise(super().forward(x_t, t, given))
