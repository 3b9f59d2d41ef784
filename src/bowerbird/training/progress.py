"""What a run says while it trains: a progress line, metrics.jsonl, what trackers are told."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress
from torch import Tensor

from bowerbird.training.clock import Clock, starvation
from bowerbird.training.rundir import RunDir
from bowerbird.training.trackers import Tracker, trackers_of

SECONDS_BETWEEN_LINES = 30
"""How often a line is printed when the output is not a terminal …"""
SECONDS_BETWEEN_UPDATES = 0.1
"""… and how often the line of a terminal or a notebook changes: reading a loss from an accelerator waits for it."""


class Progress:
    """Context manager around the training loop.  ``record`` writes files even when ``quiet``."""

    def __init__(self, rundir: RunDir, data: str, quiet: bool):
        self.rundir = rundir
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self.console.print(f"[bold]{rundir.path}[/]")
        self.say(f"  data   {data}")
        self.bar = RichProgress(
            SpinnerColumn(), BarColumn(30), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}"),
            console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=1.0)
        self.cell = _notebook_line() if self.console.is_jupyter and not quiet else None
        self.live = self.console.is_terminal or self.cell is not None
        self.last = ""
        self.next_line = time.monotonic() + (0 if self.live else SECONDS_BETWEEN_LINES)
        self.start: tuple[float, float] | None = None
        self.trackers: list[Tracker] = []

    def __enter__(self) -> "Progress":
        self.trackers = trackers_of(self.rundir)  # they write into the folder, which is a run only now
        self.bar.start()
        return self

    def __exit__(self, _kind: type | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        self.bar.stop()
        for tracker in self.trackers:
            tracker.close()
        if error is None:
            self.console.print(f"  done   {self.last}")

    def advance(self, used: float, step: int, clock: Clock, logs: dict[str, Tensor]) -> None:
        """Updates the line: step, losses, time left as the used part of the budget extrapolates it."""
        now = time.monotonic()
        if self.start is None:
            self.start = (now, used)
        if now < self.next_line and used < 1:
            return
        self.next_line = now + (SECONDS_BETWEEN_UPDATES if self.live else SECONDS_BETWEEN_LINES)
        losses = "  ".join(f"{name} {value.item():.4g}" for name, value in logs.items() if name.endswith("/loss"))
        self.last = f"step {step}  {losses}  {_spent(clock)}"
        left = ""
        if used > self.start[1] and used < 1:
            minutes = (now - self.start[0]) / (used - self.start[1]) * (1 - used) / 60
            left = f"  {minutes:.1f} min left"
        self.bar.update(self.task, completed=used, description=self.last + left)
        if self.cell is not None:
            self.cell.update({"text/plain": f"  {used:4.0%}   {self.last}{left}"}, raw=True)
        elif not self.live and used < 1:
            self.console.print(f"  {used:4.0%}   {self.last}{left}")
        if used >= 1 and (sentence := starvation(clock.counters())):
            self.say(f"  note   {sentence}")

    def say(self, line: str) -> None:
        """A line that stays above the progress line."""
        self.console.print(line, markup=False)

    def warn(self, line: str) -> None:
        """A line that is shown even where progress is not: about something that was lost."""
        Console(file=sys.stderr, highlight=False, soft_wrap=True).print(line, markup=False)

    def record(self, row: dict[str, Any]) -> None:
        self.rundir.append_metrics(row)
        self.last_rate = row["examples_per_second"]
        for tracker in self.trackers:
            tracker.record(row["step"], {name: value for name, value in row.items() if name != "step"})


def _notebook_line() -> Any:
    """A line of a notebook's output that is rewritten in place."""
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)


def _spent(clock: Clock) -> str:
    """The time on the wall; beside it that of computing where it is known and differs."""
    computing = clock.compute_seconds
    differs = clock.device.type == "cpu" and computing is not None and f"{computing:.0f}" != f"{clock.seconds:.0f}"
    return f"{clock.seconds:.0f} s" + (f" ({computing:.0f} CPU s)" if differs else "")
