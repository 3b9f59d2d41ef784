"""An execution for comparison: streams of random numbers, counted loops, and what lays two runs side by side.

Beside the facts of every execution it records ``history.returned`` (what functions that use a network without gradient
gave back), ``history.state`` (weights and buffers at the end) and ``history.table`` (tensors of the program that belong
to no module).
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from bowerbird.reading.history import state
from bowerbird.reading.history.adoption import Adoption
from bowerbird.reading.history.streams import Streams
from bowerbird.reading.running.loops import ROUNDS_AROUND_TRAINING, SHARE_OF_ALL, Entry, Loops
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.recorder import Recorder
from bowerbird.reading.running.request import Request
from bowerbird.reading.running.session import Session

STATE = "state.pt"
MOST_RETURNED = 80
MOST_FORWARDS = 12
MOST_FORWARDS_WITH_GRADIENT = 64
MOST_TRAINING_ROUNDS = 12


class CountedLoops(Loops):
    """Loops of two versions must end after the same work: rounds and calls of networks are counted, not seconds.

    ``forwards()`` is how often a root module was called so far, ``graph()`` whether gradients are recorded."""

    def __init__(
        self, recorder: Recorder, seconds: float, steps: int, laggards: Callable[[], bool],
        forwards: Callable[[], int], graph: Callable[[], bool],
    ) -> None:  # fmt: skip
        super().__init__(recorder, seconds, steps, laggards)
        self.forwards, self.graph = forwards, graph
        self.before: dict[int, int] = {}

    def enter(self, line: int, file: str) -> Entry:
        entry = super().enter(line, file)
        self.before[id(entry)] = self.forwards()
        return entry

    def _why_stop(self, entry: Entry, total: int | None) -> str:
        if self.used > SHARE_OF_ALL:
            return "time"
        rounds = entry.training_rounds
        if not rounds:
            most = MOST_FORWARDS_WITH_GRADIENT if self.graph() else MOST_FORWARDS
            return "forwards" if self.forwards() - self.before.get(id(entry), 0) >= most else ""
        if entry.depth:
            return "rounds" if rounds >= ROUNDS_AROUND_TRAINING else ""
        few = total is not None and total <= 8 and not entry.over_data
        if rounds < self.rounds_of_training or few:
            return ""
        return "" if self.laggards() and entry.rounds < MOST_TRAINING_ROUNDS else "steps"

    def _last(self, items: Any, entry: Entry, total: int | None) -> Any:
        """A sampler's last rounds are seen; training ends where it was cut, after the same work in both versions."""
        return iter(()) if entry.training_rounds else super()._last(items, entry, total)


class Traced(Session):
    """A session whose draws are numbered within each step."""

    by_step = True

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.loops = CountedLoops(
            self.recorder, request.seconds, request.steps, self.training.laggards, lambda: self.modules.number,
            torch.is_grad_enabled,
        )  # fmt: skip
        self.streams = Streams(self.recorder, request.seed, self.by_step)
        other = torch.load(request.adopt, weights_only=True) if request.adopt else None
        self.adoption = Adoption(self.modules.roots, other)
        self._entered: dict[int, int] = {}
        self._buffers: dict[int, dict[str, list[float]]] = {}
        self._returned = 0

    def execute(self) -> None:
        """Runs the program, or what it only defines, and says where everything stands."""
        self._install()
        started = time.process_time()
        with self.clock(self.request.seconds, "program"):
            self._program()
        with self.streams, self._traced():
            self.exercise(started)
        self._report(time.process_time() - started)
        with torch._C.DisableTorchFunction(), torch.no_grad():
            self.recorder.safely(self._standing)
        self.recorder.flush()

    def _install(self) -> None:
        super()._install()
        self.streams.install()
        snapshot = self.modules._snapshot

        def met(root: Any) -> None:
            self.adoption.meet()
            if id(root) not in self._buffers:
                self._buffers[id(root)] = {name: state.told(buffer) for name, buffer in root.named_buffers()}
            snapshot(root)

        self.modules._snapshot = met  # type: ignore[method-assign]

    def _program(self) -> None:
        with self._traced(), self.streams:
            super()._program()

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        """Inside, it is seen what functions of the program give back."""
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in self.request.texts:
            return None
        frame.f_trace_lines = False
        self._entered[id(frame)] = self.modules.number
        return self._inside

    def _inside(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            before = self._entered.pop(id(frame), self.modules.number)
            if argument is not None and before < self.modules.number and not self.modules.active:
                self.recorder.safely(self._gave, frame, argument)
        return self._inside

    def _gave(self, frame: FrameType, value: Any) -> None:
        """A function that called a network gives back tensors without gradient: it samples or evaluates."""
        found = tensors(value)
        if not found or any(t.requires_grad for t in found) or self._returned >= MOST_RETURNED:
            return
        self._returned += 1
        with torch._C.DisableTorchFunction():
            rows = [{"shape": list(t.shape), "told": state.told(t), "ends": state.ends(t)} for t in found[:8]]
        code = frame.f_code
        self.recorder(
            "history.returned", code.co_name, {**self.recorder.tick(), "tensors": rows},
            file=code.co_filename, line=frame.f_lineno,
        )  # fmt: skip

    def _standing(self) -> None:
        starts = {key: copies for key, (_, copies) in self.modules.start.items()}
        for name, root in self.modules.roots().items():
            file, line = self.names.place(root)
            value = state.of_module(root, starts.get(id(root)), self._buffers.get(id(root)))
            self.recorder("history.state", name, value, file=file, line=line)
        live = self.live()
        spaces = [self.namespace, *self.locals.values()]
        for number, (name, tensor) in enumerate(state.loose(spaces, self.files, live.line_of)):
            if number >= state.MOST_TENSORS:
                break
            value = {"shape": list(tensor.shape), "now": state.told(tensor), "ends": state.ends(tensor)}
            self.recorder("history.table", name, value, file=self.request.main)
        torch.save(self.adoption.kept, Path(self.request.scratch) / STATE)


class TracedThroughout(Traced):
    """A session whose draws are numbered over the whole run."""

    by_step = False
