"""Writes facts as the program makes them, one JSON line each, to a descriptor that outlives the program's death."""

import json
import math
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import Any

import torch

MOST_OF_A_TOPIC = 600
MOST = 8_000


class Recorder:
    """``files`` are the user's: the line of a fact is that of the innermost frame that runs one of them."""

    def __init__(self, descriptor: int, files: set[str], run: str = "run") -> None:
        self.descriptor, self.files, self.run = descriptor, files, run
        self.guests: set[str] = set()
        """Files that only drivers run: what is missing there gets a stand-in too, and no fact stands there."""
        self.counts: Counter[str] = Counter()
        self.seq = 0
        self.steps = 0
        self._waiting: list[str] = []
        self._flushed = time.monotonic()

    def safely(self, observe: Callable[..., Any], *args: Any) -> Any:
        """Observes; what an observer raises is a fact and never the program's concern."""
        try:
            return observe(*args)
        except Exception as error:  # an observer meets a stranger's objects
            message = f"{type(error).__name__}: {str(error)[:200]}"
            self("observer.failed", getattr(observe, "__name__", "observer"), {"message": message}, line=None, file="")
            return None

    def tick(self) -> dict[str, int]:
        """The place of an event: its number and the optimiser steps before it."""
        self.seq += 1
        return {"seq": self.seq, "step": self.steps}

    def __call__(
        self, topic: str, subject: str, value: Any, *, line: int | None = None, file: str | None = None,
        kind: str = "observed",
    ) -> None:  # fmt: skip
        """Records a fact; without a line, at the user's line that is running."""
        if self.counts[topic] >= MOST_OF_A_TOPIC or self.counts.total() >= MOST:
            return
        self.counts[topic] += 1
        if line is None and file is None:
            file, line = self.here()
        row = {
            "kind": kind, "topic": topic, "subject": subject, "value": plain(value), "file": file or "", "line": line,
            "run": self.run,
        }  # fmt: skip
        self._waiting.append(json.dumps(row))
        if len(self._waiting) > 200 or time.monotonic() - self._flushed > 0.5:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        data = "".join(row + "\n" for row in self._waiting).encode()
        self._waiting, self._flushed = [], time.monotonic()
        while data:
            data = data[os.write(self.descriptor, data) :]

    def user_frame(self, frame: FrameType | None = None) -> FrameType | None:
        """The innermost running frame of the user's files."""
        frame = frame or sys._getframe(1)
        while frame is not None and frame.f_code.co_filename not in self.files:
            frame = frame.f_back
        return frame

    def here(self) -> tuple[str, int | None]:
        """File and line of the user's innermost frame."""
        frame = self.user_frame(sys._getframe(1))
        return ("", None) if frame is None else (frame.f_code.co_filename, frame.f_lineno)

    def is_user_code(self, code: CodeType | None) -> bool:
        return code is not None and code.co_filename in self.files

    def is_project_code(self, code: CodeType | None) -> bool:
        """Whether code is the user's, or a driver's."""
        return code is not None and (code.co_filename in self.files or code.co_filename in self.guests)

    def exception(
        self, error: BaseException, *, statement: int | None = None, phase: str = "program", follows: int | None = None
    ) -> None:
        """What was raised, at the innermost line of the user's; ``follows``: the failed line that caused it.

        A ``statement`` is a line of the user's only in the phase ``program``; a driver has its own.
        """
        stack = self.stack(error.__traceback__)
        file, line = (stack[-1][0], stack[-1][1]) if stack else ("", statement if phase == "program" else None)
        value = {
            "message": str(error)[:600], "stack": stack[-12:], "statement": statement, "phase": phase, **self.tick(),
            "within": within(error.__traceback__), "follows": follows,
        }  # fmt: skip
        self("run.exception", type(error).__name__, value, file=file, line=line)
        self.flush()

    def stack(self, trace: TracebackType | None) -> list[list[Any]]:
        frames = traceback.extract_tb(trace)
        return [[f.filename, f.lineno, f.name] for f in frames if f.filename in self.files]


def within(trace: TracebackType | None) -> str:
    """The innermost function of a traceback, whoever's it is."""
    frames = traceback.extract_tb(trace)
    return frames[-1].name if frames else ""


def plain(value: Any) -> Any:
    """A value as JSON; numbers are rounded to seven figures, what has no form in JSON becomes a string."""
    if isinstance(value, bool | str | int | None):
        return value
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | torch.Size):
        return [plain(entry) for entry in value]
    return str(value)[:300]


def summary(value: Any, *, numbers: bool = True) -> Any:
    """A tensor's shape, type and range; of other values what they are."""
    if not isinstance(value, torch.Tensor):
        if isinstance(value, list | tuple):
            return [summary(entry, numbers=numbers) for entry in value[:8]]
        if isinstance(value, dict):
            return {str(key): summary(entry, numbers=numbers) for key, entry in list(value.items())[:8]}
        return value if isinstance(value, bool | int | float | str | None) else type(value).__name__
    with torch._C.DisableTorchFunction():
        return _summary(value, numbers)


def _summary(value: torch.Tensor, numbers: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "shape": list(value.shape),
        "dtype": str(value.dtype).removeprefix("torch."),
        "requires_grad": value.requires_grad,
    }
    if numbers and value.numel() and value.device.type == "cpu" and value.layout == torch.strided:
        found |= figures(value)
    return found


def figures(value: torch.Tensor) -> dict[str, Any]:
    """Minimum, maximum, mean and standard deviation, of at most the first 100,000 elements."""
    with torch.no_grad():
        flat = value.detach().reshape(-1)[:100_000]
        if flat.dtype == torch.bool or flat.is_complex():
            return {"mean": float(flat.float().mean())} if flat.dtype == torch.bool else {}
        small = flat.float()
        low, high = small.aminmax()
        return {
            "min": float(low), "max": float(high), "mean": float(small.mean()),
            "std": float(small.std()) if small.numel() > 1 else 0.0,
        }  # fmt: skip
