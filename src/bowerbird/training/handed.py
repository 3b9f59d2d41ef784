"""What the trainer is handed besides a run, and what it hands back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bowerbird.models.base import GenerativeModel

Evaluate = Callable[[GenerativeModel], dict[str, float]]
"""Scores of a model by name; the first decides which weights are best, and is better when lower."""


Preview = Callable[[GenerativeModel, Path], object]
"""Writes a few samples of a model into files whose names begin with the path."""


class Examples(Protocol):
    """A split, as the trainer needs it."""

    @property
    def lengths(self) -> Tensor | None:
        """Size of each example, where batches of like sizes are cheaper; else None."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, device: torch.device) -> dict[str, Any]:
        """The fields of a ``Batch`` for these examples, on the device."""


class TrainingData(Protocol):
    """An opened source, as the trainer needs it; every medium opens one."""

    @property
    def spec(self) -> Any: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def train(self) -> Examples: ...

    @property
    def val(self) -> Examples: ...

    def summary(self) -> str: ...


@dataclass(frozen=True)
class TrainResult:
    """Where a run is and what it has cost so far."""

    folder: Path
    step: int
    examples: int
    seconds: float
    """Wall-clock time in optimiser steps: without data preparation, sample grids and checkpoints."""
    flops: float
    parameters: int
    finished: bool
    joules: float = 0.0
    """Energy of the training, see ``energy``."""
    energy: str = ""
    """How it is known."""
    compute_seconds: float | None = None
    """CPU time of all threads in optimiser steps, or time on the accelerator, see ``clock``; None: not counted."""
    running_seconds: float | None = None
    """The part of ``seconds`` in which the thread that trains was running."""
