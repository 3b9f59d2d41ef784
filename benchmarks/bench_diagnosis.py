"""What watching costs: CPU time inside the observer over that of the training steps, at the recipes' own sizes.

    python benchmarks/bench_diagnosis.py [RECIPE …]

Two shares: while training (at logged steps, with the probes that fall due), and once per run (before the first and
after the last step), which does not grow with the run.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bowerbird import config
from bowerbird.diagnosis import Watch
from bowerbird.media import open_data
from bowerbird.training.trainer import Trainer, train

STEPS = 300


class Timed(Watch):
    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def begin(self, trainer: Trainer) -> None:
        with self._counted("once"):
            super().begin(trainer)

    @contextmanager
    def update(self, player: Any) -> Iterator[None]:
        watched = super().update(player)
        with self._counted("training"):
            watched.__enter__()
        yield
        with self._counted("training"):
            watched.__exit__(None, None, None)

    @contextmanager
    def step(self, trainer: Trainer) -> Iterator[None]:
        start = time.process_time()
        with super().step(trainer):
            yield
        self.seconds["steps"] += time.process_time() - start

    def logged(self, trainer: Trainer, row: dict[str, Any]) -> None:
        with self._counted("once" if trainer.used() >= 1 else "training"):
            super().logged(trainer, row)

    @contextmanager
    def _counted(self, what: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[what] += time.process_time() - start


def main(recipes: list[str]) -> None:
    for name in recipes:
        run = config.load(name)
        short = replace(
            run.train, steps=STEPS, examples=None, sample_every=0, validate_every=0, device="cpu", threads=1
        )
        watch = Timed()
        with tempfile.TemporaryDirectory() as folder:
            train(replace(run, train=short), Path(folder) / "run", open_data(run.data), quiet=True, observer=watch)
        spent = watch.seconds
        share = spent["training"] / (spent["steps"] - spent["training"])
        print(
            f"{name}: {share:.2%} while training, {spent['once']:.1f} s once per run ({spent['steps']:.0f} s of steps)"
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["vae", "gan", "flow", "shakespeare"])
