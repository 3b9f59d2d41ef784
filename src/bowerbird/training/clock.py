"""What the optimiser steps of a run cost in time: by the clock on the wall, and by the computing done.

    seconds           wall-clock time: what a person waits for
    compute_seconds   CPU time of all threads of the process; on an accelerator the time that its steps took there,
                      waited for at the end of each step
    running_seconds   CPU time of the thread that trains: far below ``seconds`` where it waited for a core; of a run
                      on an accelerator this is not told, and all counts as running

Two runs of equal ``seconds`` on a busy machine may differ six-fold in what they computed.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from bowerbird import machine

STARVED, NOTICED_S = 0.5, 10.0
"""A run of so many seconds whose training thread ran for a smaller part of them was held up."""


class Clock:
    """Stopwatch of the optimiser steps, over all processes that continued the run."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = 0.0
        self.compute_seconds: float | None = 0.0
        """None for a run that began before computing was counted."""
        self.running_seconds: float | None = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one optimiser step; the device is waited for."""
        before = _now()
        yield
        machine.synchronize(self.device)
        wall, cpu, running = (now - then for now, then in zip(_now(), before, strict=True))
        self.seconds += wall
        if self.compute_seconds is not None and self.running_seconds is not None:
            self.compute_seconds += cpu if self.device.type == "cpu" else wall
            self.running_seconds += running if self.device.type == "cpu" else wall

    def counters(self) -> dict[str, float | None]:
        """As a checkpoint keeps them."""
        return {name: getattr(self, name) for name in ("seconds", "compute_seconds", "running_seconds")}

    def load(self, counters: Mapping[str, Any]) -> None:
        self.seconds = counters["seconds"]
        self.compute_seconds, self.running_seconds = counters.get("compute_seconds"), counters.get("running_seconds")


def _now() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), time.thread_time()


def starvation(counters: Mapping[str, Any]) -> str:
    """One sentence when other processes held a run up, from a checkpoint's counters; else empty."""
    seconds, running = counters.get("seconds"), counters.get("running_seconds")
    if not seconds or seconds < NOTICED_S or running is None or running >= STARVED * seconds:
        return ""
    return (
        f"This run was starved: it ran for {running:.0f} s of its {seconds:.0f} s ({running / seconds:.0%}) and "
        "waited for the rest; other processes kept the cores busy."
    )
