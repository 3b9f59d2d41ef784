"""A callback for the Trainer of transformers.

trainer = Trainer(model, arguments, train_dataset=data, callbacks=[TrainerWatch("runs/mine")])
"""

from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.integrations.loop import LoopWatch, Probes

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise BowerbirdError("TrainerWatch needs transformers: pip install transformers accelerate") from error

NAMES = {"loss": "model/loss", "eval_loss": "model/val_loss"}
"""What the Trainer calls the numbers that rules look at, and what we do."""


class TrainerWatch(TrainerCallback):
    """Diagnoses and measures a training by the Trainer, and writes its report into a new folder.

    The training loss is known as often as the Trainer logs it (``logging_steps``).  Of several processes the first one
    is watched.
    """

    def __init__(self, out: Path | str, probes: Probes = Probes(), *, log_every: int = 20):
        self.out, self.probes, self.log_every = out, probes, log_every
        self.watch: LoopWatch | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **handed: Any) -> None:
        if not state.is_world_process_zero:
            return
        optimizer = handed["optimizer"]
        self.watch = LoopWatch(
            self.out,
            handed["model"],
            [getattr(optimizer, "optimizer", optimizer)],  # accelerate wraps it
            steps=state.max_steps if state.max_steps > 0 else None,
            batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            probes=self.probes,
            log_every=self.log_every,
            title=f"{type(handed['model']).__name__} (transformers)",
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **handed: Any) -> None:
        if self.watch:
            self.watch.batch_came()

    def on_step_end(self, args: Any, state: Any, control: Any, **handed: Any) -> None:
        if self.watch:
            self.watch.step_done()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **handed: Any) -> None:
        if self.watch:
            self.watch.log({NAMES[name]: value for name, value in (logs or {}).items() if name in NAMES})

    def on_train_end(self, args: Any, state: Any, control: Any, **handed: Any) -> None:
        watch, self.watch = self.watch, None
        if watch:
            watch.close()
