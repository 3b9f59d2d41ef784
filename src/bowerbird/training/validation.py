"""Looking at the averaged weights while they are trained: losses on validation examples, and scores of samples."""

import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bowerbird import machine
from bowerbird.models.base import Batch
from bowerbird.training.saving import contiguous

if TYPE_CHECKING:
    from bowerbird.training.trainer import Trainer

VALIDATION_EXAMPLES = 512
"""Evenly spaced over the validation split."""


def validation_losses(trainer: "Trainer") -> dict[str, Tensor]:
    """Losses of the averaged weights on validation examples that are the same every time."""
    val = trainer.data.val
    examples = torch.linspace(0, len(val) - 1, min(len(val), VALIDATION_EXAMPLES)).long()
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
    machine.seed(trainer.device, trainer.config.seed)
    with trainer.average.applied(), torch.no_grad():
        for chosen in examples.split(trainer.config.batch_size):
            batch = Batch(**val.batch(chosen, trainer.device), step=trainer.step)
            with trainer.autocast():
                losses = list(trainer.model.losses(batch))
            for loss in losses:
                share, name = len(chosen) / len(examples) / len(losses), f"{loss.player}/val_loss"
                sums[name] = sums[name] + share * loss.value.float().cpu()
    return dict(sums)


def evaluation(trainer: "Trainer", finished: bool) -> dict[str, Tensor]:
    """Scores of the averaged weights when they are due; the best weights so far are kept.

    Evaluations that would exceed their share of the time are left out, the one at the end never is.
    """
    every, share = trainer.config.evaluate_every, trainer.config.evaluate_share
    in_time = trainer.evaluating_seconds <= share * trainer.seconds
    due = finished or (every and trainer.step % every == 0 and in_time)
    if not every or trainer.evaluate is None or not due:
        return {}
    start = time.perf_counter()
    with trainer.average.applied():
        scores = trainer.evaluate(trainer.model)
        score = next(iter(scores.values()))
        if math.isfinite(score) and (trainer.best is None or score < trainer.best[1]):
            trainer.best = (trainer.step, score)
            trainer.rundir.save_best(contiguous(trainer.model.weights()), trainer.data.spec, trainer.step, score)
    trainer.evaluating_seconds += time.perf_counter() - start
    return {f"eval/{name}": torch.tensor(value) for name, value in scores.items()}
