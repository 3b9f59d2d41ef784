"""Which images enter a measurement."""

import torch
from torch import Tensor


def subset(x: Tensor, n: int | None) -> Tensor:
    """n rows chosen at random, always the same ones, in their order; all rows when n is None or not fewer."""
    if n is None or n >= len(x):
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:n].sort().values]
