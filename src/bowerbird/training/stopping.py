"""Ctrl-C and SIGTERM while a run trains: the step is finished and saved first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError


class Interrupted(BowerbirdError):
    """Ctrl-C or SIGTERM arrived; the run was saved."""

    def __init__(self, signum: int, step: int, folder: Path):
        super().__init__(f"Stopped at step {step}; everything is saved. Continue with: bowerbird resume {folder}")
        self.exit_status = 128 + signum


@contextmanager
def catching_signals() -> Iterator[list[int]]:
    """Inside, Ctrl-C and SIGTERM only append to the list; a second one acts at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(signum: int, _frame: Any) -> None:
        caught.append(signum)
        signal.signal(signum, before[signum])

    before: dict[int, Any] = {signum: signal.signal(signum, catch) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
