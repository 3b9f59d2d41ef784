"""What the trainer lets others see of a run.  The trainer calls an observer; it never asks it anything.

Whatever an observer computes, it leaves weights, buffers, gradients and the random state of training as they were:
runs with and without one are bit for bit the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bowerbird.training.nonfinite import Origin
    from bowerbird.training.optimizers import PlayerOptimizer
    from bowerbird.training.trainer import Trainer


class Observer:
    """Sees a run.  This one looks away."""

    def begin(self, trainer: "Trainer") -> None:
        """Before the first step, and after a checkpoint was loaded."""

    @contextmanager
    def step(self, trainer: "Trainer") -> Iterator[None]:
        """Around each training step."""
        yield

    @contextmanager
    def update(self, player: "PlayerOptimizer") -> Iterator[None]:
        """Around each step of a player's optimiser: gradients are complete before, weights have moved after."""
        yield

    def logged(self, trainer: "Trainer", row: dict[str, Any]) -> None:
        """A line was written to metrics.jsonl."""

    def failed(self, trainer: "Trainer", origin: "Origin") -> None:
        """Something is not finite; the run ends after this."""
