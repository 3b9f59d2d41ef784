"""Which images and which metrics enter a measurement."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bowerbird.errors import unknown


def subset(x: Tensor, n: int | None) -> Tensor:
    """n rows chosen at random, always the same ones, in their order; all rows when n is None or not fewer."""
    if n is None or n >= len(x):
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:n].sort().values]


def check_names(metrics: Sequence[str], known: Sequence[str]) -> None:
    """Refuses names that are not among the known, with the nearest that is."""
    for name in metrics:
        if name not in known:
            raise unknown("metric here", name, known)
