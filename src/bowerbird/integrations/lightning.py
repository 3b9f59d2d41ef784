"""A callback for PyTorch Lightning, with automatic or manual optimisation.

trainer = pl.Trainer(callbacks=[LightningWatch("runs/mine")])
"""

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.integrations.loop import LoopWatch, Probes

try:
    from pytorch_lightning import Callback
except ImportError as error:
    raise BowerbirdError("LightningWatch needs PyTorch Lightning: pip install pytorch-lightning") from error

VALIDATION = ("val_loss", "val/loss")
"""Names under which a module may log the loss of its validation data."""


class LightningWatch(Callback):
    """Diagnoses and measures a training by Lightning, and writes its report into a new folder.

    In a training over several processes the first one is watched.
    """

    def __init__(self, out: Path | str, probes: Probes = Probes(), *, log_every: int = 20):
        self.out, self.probes, self.log_every = out, probes, log_every
        self.watch: LoopWatch | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        self.watch = LoopWatch(
            self.out,
            pl_module,
            trainer.optimizers,
            steps=_steps(trainer),
            batch_size=getattr(trainer.train_dataloader, "batch_size", None) or 1,
            probes=self.probes,
            log_every=self.log_every,
            title=f"{type(pl_module).__name__} (Lightning)",
        )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.watch:
            self.watch.batch_came()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if self.watch:
            self.watch.backward(loss)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.watch:
            self.watch.step_done()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        found = [trainer.callback_metrics[name] for name in VALIDATION if name in trainer.callback_metrics]
        if self.watch and found:
            self.watch.log({"model/val_loss": float(found[0])})

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def _close(self) -> None:
        watch, self.watch = self.watch, None
        if watch:
            watch.close()


def _steps(trainer: Any) -> int | None:
    """How many batches there will be; None where only time or nothing ends the training."""
    per_epoch, limits = trainer.num_training_batches, []
    if trainer.max_epochs not in (None, -1) and math.isfinite(per_epoch):
        limits.append(trainer.max_epochs * per_epoch)
    if trainer.max_steps not in (None, -1):  # counts every step of every optimiser
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches // len(trainer.optimizers))
    return int(min(limits)) if limits else None
