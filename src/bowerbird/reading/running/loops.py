"""How long a loop of the user's may run: until what it does has been seen often enough, or its time is over.

A loop that trains stops after a few optimiser steps; one around it after two rounds (and the last one, where rounds can
be skipped: ``epoch == n_epochs - 1`` then happens too).  A loop that does not train (sampling, evaluation) may use its
share of the time; a long one over a range then skips to its last rounds, so that ``t = 0`` is seen.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from bowerbird.reading.running.recorder import Recorder
from bowerbird.reading.running.standins.anything import Anything

ROUNDS_OF_TRAINING = 6
MOST_ROUNDS_OF_TRAINING = 12
ROUNDS_AROUND_TRAINING = 2
LAST_ROUNDS = 3
SHARE_OF_ONE_LOOP = 0.12
SHARE_OF_TRAINING = 0.5
SHARE_OF_ALL = 0.8


class Entry:
    """One time that a loop is entered."""

    def __init__(self, line: int, file: str, steps: int) -> None:
        self.line, self.file = line, file
        self.rounds = self.training_rounds = self.depth = 0
        self.steps_before = steps
        self.entered = time.process_time()
        self.over_data = False
        self.cut = ""


class Loops:
    """Decides for every loop; ``laggards()`` is true while an optimiser that exists has stepped less than thrice."""

    def __init__(self, recorder: Recorder, seconds: float, steps: int, laggards: Callable[[], bool]) -> None:
        self.recorder, self.seconds, self.laggards = recorder, seconds, laggards
        self.rounds_of_training = max(2, steps)
        self.bounded = True
        """Whether loops are cut; what an assertion calls runs to its end, within its own time."""
        self.started = time.process_time()
        self.stack: list[Entry] = []
        self.seen: dict[tuple[str, int], dict[str, Any]] = {}

    @property
    def used(self) -> float:
        """The part of the time that is spent."""
        return (time.process_time() - self.started) / self.seconds

    def loop_for(self, items: Any, line: int, file: str) -> Iterator[Any]:
        """The items of a for-loop, as many as may be."""
        entry = self.enter(line, file)
        plan = iter([items[0]] if isinstance(items, Anything) else items)
        items = _plain(items)
        entry.over_data = not isinstance(items, range)
        total = _length(items)
        try:
            for item in plan:
                yield item
                if not self.next_round(entry, total):
                    break
            else:
                return
            yield from self._last(items, entry, total)
        finally:
            self.leave(entry, total)

    def _last(self, items: Any, entry: Entry, total: int | None) -> Iterator[Any]:
        if total is None or not isinstance(items, range | list | tuple) or self.used > SHARE_OF_ALL:
            return
        wanted = LAST_ROUNDS if not entry.training_rounds else 1 if self.used < SHARE_OF_TRAINING else 0
        if entry.training_rounds and isinstance(items, list | tuple):
            return
        for place in range(max(entry.rounds, total - wanted), total):
            yield items[place]
            entry.rounds += 1
            self._account(entry)

    def loop_while(self, line: int, file: str) -> Callable[[], bool]:
        """The question that a while-loop asks before each round."""
        entry = self.enter(line, file)
        first = True

        def may_go_on() -> bool:
            nonlocal first
            if first:
                first = False
                return True
            go_on = self.next_round(entry, None)
            if not go_on:
                self.leave(entry, None)
            return go_on

        return may_go_on

    def enter(self, line: int, file: str) -> Entry:
        for place, other in enumerate(self.stack):
            if (other.line, other.file) == (line, file):
                del self.stack[place:]
                break
        entry = Entry(line, file, self.recorder.steps)
        self.stack.append(entry)
        return entry

    def next_round(self, entry: Entry, total: int | None) -> bool:
        """Whether a loop that has finished a round may begin another."""
        if entry in self.stack:
            while self.stack[-1] is not entry:
                self._close(self.stack.pop(), None)
        entry.rounds += 1
        self._account(entry)
        entry.cut = self._why_stop(entry, total) if self.bounded else ""
        return not entry.cut

    def _account(self, entry: Entry) -> None:
        if self.recorder.steps > entry.steps_before:
            entry.training_rounds += 1
            entry.steps_before = self.recorder.steps

    def _why_stop(self, entry: Entry, total: int | None) -> str:
        spent = self.used
        if spent > SHARE_OF_ALL:
            return "time"
        rounds = entry.training_rounds
        if rounds:
            if rounds >= 2 and spent > SHARE_OF_TRAINING:
                return "time"
            if entry.depth:
                return "rounds" if rounds >= ROUNDS_AROUND_TRAINING else ""
            few = total is not None and total <= 8 and not entry.over_data
            if rounds >= self.rounds_of_training and not few:
                waiting = self.laggards() and entry.rounds < MOST_ROUNDS_OF_TRAINING
                return "" if waiting else "steps"
            return ""
        own = (time.process_time() - entry.entered) / self.seconds
        return "time" if own > SHARE_OF_ONE_LOOP and entry.rounds >= 2 else ""

    def leave(self, entry: Entry, total: int | None) -> None:
        """The loop has ended, whether cut short, finished or left by break or an exception."""
        if entry not in self.stack:
            return
        while self.stack:
            last = self.stack.pop()
            self._close(last, total if last is entry else None)
            if last is entry:
                break

    def _close(self, entry: Entry, total: int | None) -> None:
        short = not entry.over_data and not entry.cut and entry.rounds <= 8
        if entry.training_rounds and self.stack and not short:
            self.stack[-1].depth = max(self.stack[-1].depth, entry.depth + 1)
        row = self.seen.setdefault(
            (entry.file, entry.line),
            {"iterations": 0, "of": total, "entries": 0, "training": False, "cut": ""},
        )
        row["iterations"] = max(row["iterations"], entry.rounds)
        row["entries"] += 1
        row["training"] = row["training"] or bool(entry.training_rounds)
        row["cut"] = row["cut"] or entry.cut

    def report(self) -> None:
        """One fact per loop."""
        while self.stack:
            self._close(self.stack.pop(), None)
        for (file, line), row in self.seen.items():
            if file in self.recorder.files:
                self.recorder("run.loop", f"line {line}", row, file=file, line=line)


def _plain(items: Any) -> Any:
    """The range behind a progress bar or ``reversed(…)``, where there is one."""
    behind = getattr(items, "iterable", items)
    if type(behind).__name__ == "range_iterator":
        arguments = behind.__reduce__()[1]
        behind = arguments[0] if arguments and isinstance(arguments[0], range) else behind
    return behind if isinstance(behind, range) else items


def _length(items: Any) -> int | None:
    try:
        return len(items)
    except (TypeError, NotImplementedError):
        return None
