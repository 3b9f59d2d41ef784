"""Plain perceptrons without normalisation or residuals, whose depth, activation, gain and biases can be chosen."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bowerbird.nets.conditioning import Given
from bowerbird.nets.roles import NetConfig
from bowerbird.registry import nets

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "leaky": lambda: nn.LeakyReLU(0.2), "relu": nn.ReLU}


@nets.register("deep")
@dataclass(frozen=True)
class DeepConfig(NetConfig):
    activation: Literal["sigmoid", "leaky", "relu"] = "leaky"
    layers: int = 12
    width: int = 64
    gain: float = 1.0
    """Factor on the initial weights of the hidden layers."""
    bias: float = 0.0
    """Initial biases of the hidden layers."""

    def encoder(self, spec: Any, n_out: int) -> nn.Module:
        return Deep(self, spec.target.dims, n_out, None)

    def decoder(self, spec: Any, n_in: int, channels_out: int) -> nn.Module:
        shape = (channels_out, *spec.target.shape[1:])
        return Deep(self, n_in, math.prod(shape), shape)


class Deep(nn.Module):
    def __init__(self, config: DeepConfig, n_in: int, n_out: int, shape: tuple[int, ...] | None):
        super().__init__()
        self.shape = shape
        widths = [n_in, *[config.width] * config.layers]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            linear = nn.Linear(a, b)
            with torch.no_grad():
                nn.init.xavier_normal_(linear.weight, config.gain)
                linear.bias.fill_(config.bias)
            layers += [linear, ACTIVATIONS[config.activation]()]
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(config.width, n_out)

    def forward(self, x: Tensor, given: Given | None = None) -> Tensor:
        y = self.last(self.hidden(x.flatten(1)))
        return y if self.shape is None else y.unflatten(1, self.shape)
