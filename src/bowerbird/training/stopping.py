"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) while a run trains: the step is finished and saved first."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Windows has no SIGHUP."""


class Interrupted(BowerbirdError):
    """One of ``SIGNALS`` arrived; the run was saved."""

    def __init__(self, signum: int, step: int, folder: Path):
        super().__init__(f"Stopped at step {step}; everything is saved. Continue with: bowerbird resume {folder}")
        self.exit_status = 128 + signum


@contextmanager
def catching_signals() -> Iterator[list[int]]:
    """Inside, ``SIGNALS`` only append to the list; a second one acts at once.  One that is ignored (nohup) stays so."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(signum: int, _frame: Any) -> None:
        if signum == getattr(signal, "SIGHUP", None):
            _write_nowhere(terminals)
        caught.append(signum)
        signal.signal(signum, before[signum])

    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    heard = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    before: dict[int, Any] = {signum: signal.signal(signum, catch) for signum in heard}
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _write_nowhere(files: list[int]) -> None:
    """Output to a terminal that has been closed is an error, which would come before the checkpoint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in files:
        os.dup2(nowhere, fd)
    os.close(nowhere)
