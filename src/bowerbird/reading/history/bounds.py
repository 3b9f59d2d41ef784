"""Loops of two versions must end after the same work: rounds and calls of networks are counted, not seconds."""

from collections.abc import Callable
from typing import Any

from bowerbird.reading.running.loops import ROUNDS_AROUND_TRAINING, SHARE_OF_ALL, Entry, Loops
from bowerbird.reading.running.recorder import Recorder

MOST_FORWARDS = 12
MOST_FORWARDS_WITH_GRADIENT = 64
MOST_TRAINING_ROUNDS = 12


class CountedLoops(Loops):
    """``forwards()`` is how often a root module was called so far, ``graph()`` whether gradients are recorded."""

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
