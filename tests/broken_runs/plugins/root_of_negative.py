"""A denoiser that takes the square root of a number that training can make negative."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bowerbird.nets.mlp import MLPConfig, MLPDenoiser
from bowerbird.registry import nets


@nets.register("mlp-with-root")
@dataclass(frozen=True)
class Config(MLPConfig):
    """As MLPConfig."""

    def denoiser(self, spec: Any, channels_out: int) -> nn.Module:
        return WithRoot(self, spec.shape, channels_out, spec.n_classes)


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.full((1,), 0.02))

    def forward(self, x: Tensor) -> Tensor:
        return x / self.level.sqrt()


class WithRoot(MLPDenoiser):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.root = Root()

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        # The targets are positive on average, so the level is driven down, and soon below zero.
        return self.root(super().forward(x_t, t, label)) - self.root.level * 50
