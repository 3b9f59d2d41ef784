"""Networks by the names that programs use, small and untrained: they have the interface, not the knowledge."""

from typing import Any

import torch
from torch import nn


class Small(nn.Module):
    """Three convolutions and a linear layer, with the attributes ``features``, ``fc`` and ``classifier``."""

    def __init__(self, n_classes: int = 1000, **kwargs: Any) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
        )
        self.fc = nn.Linear(64, kwargs.get("num_classes", n_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name.endswith("_Weights"):
        return type(name, (), {"DEFAULT": None, "IMAGENET1K_V1": None, "IMAGENET1K_V2": None})

    def build(*args: Any, pretrained: Any = None, weights: Any = None, progress: Any = None, **kwargs: Any) -> Small:
        return Small(**kwargs)

    return build
