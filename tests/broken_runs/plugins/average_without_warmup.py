"""A moving average that has its full length from the first step on."""

import torch

from bowerbird.training.optimizers import MovingAverage


@torch.no_grad()
def update(self: MovingAverage, step: int) -> None:
    weights = [p.detach() for _, p in self.model.named_parameters()]
    torch._foreach_lerp_(list(self.average.values()), weights, 1 - self.decay)


MovingAverage.update = update  # type: ignore[method-assign]
