"""Networks and losses for code that takes them from elsewhere."""

import sys
from typing import Any, ClassVar

import torch
from torch import nn

from bowerbird.reading.running.standins.anything import taken_apart


class StandInNet(nn.Module):
    """A network that scales what it is given, whatever else it is told: for classes that need one that is not there.

    Where the program takes its answer apart, it gives so many tensors.
    """

    channels = out_dim = in_channels = out_channels = 3
    self_condition = random_or_learned_sinusoidal_cond = learned_sinusoidal_cond = False
    made: ClassVar[list["StandInNet"]] = []

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.table = nn.Parameter(torch.full((2, 2), 0.25))  # networks have parameters of more than one shape
        self.shape: list[int] = []

    def forward(self, x: Any, t: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        self.shape = self.shape or list(x.shape)
        parts = taken_apart(sys._getframe(1))
        scale = self.scale * self.table.sum()
        return tuple(x * scale for _ in range(parts)) if parts else x * scale


class StandInLoss(nn.Module):
    """A loss of whatever it is given, for training that takes its criterion from elsewhere."""

    def forward(self, output: torch.Tensor, *targets: Any) -> torch.Tensor:
        target = targets[0] if targets else None
        if isinstance(target, torch.Tensor) and target.shape == output.shape:
            output = output - target
        return output.float().pow(2).mean()
