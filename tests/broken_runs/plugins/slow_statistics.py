"""Batch normalisation whose running statistics move by a ten-thousandth per step."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from bowerbird.nets.mlp import MLPConfig
from bowerbird.registry import nets


def slowed(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1e-4
    return net


@nets.register("mlp-slow-statistics")
@dataclass(frozen=True)
class Config(MLPConfig):
    """As MLPConfig."""

    def encoder(self, spec: Any, n_out: int) -> nn.Module:
        return slowed(super().encoder(spec, n_out))

    def decoder(self, spec: Any, n_in: int, channels_out: int) -> nn.Module:
        return slowed(super().decoder(spec, n_in, channels_out))
