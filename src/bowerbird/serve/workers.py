"""The threads that draw: one for each run, so that a model is used by one thread alone.

Pictures (and whatever a model makes as a whole): requests that wait, want the same options and are given the same
fields are drawn as one batch.  Texts and music: rows join those that are under way and leave when they have ended.
What nobody waits for any more is dropped: between two evaluations of the network, or between two tokens.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bowerbird import machine
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.generating import Asked, at_once_of, draw_together
from bowerbird.models.base import GenerativeModel
from bowerbird.samplers.continuous import Continuation, ContinuousBatch
from bowerbird.serve.limits import Busy, Closing, Limits, TooLate
from bowerbird.serve.served import LOG, Served

Alternatives = list[tuple[int, float]]
"""Tokens and the natural logarithms of their probabilities, the most probable first."""


class Abandoned(Exception):
    """Nobody waits for this batch any more."""


@dataclass(eq=False)
class Job:
    """One request to a worker.  ``done`` and ``failed`` are called from the worker's thread."""

    asked: Asked
    options: Any
    deadline: float
    """Of time.monotonic()."""
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]
    gone: bool = False
    """Set by whoever no longer waits."""
    work: Callable[[GenerativeModel], Any] | None = None
    """What to do with the model instead of drawing; such a job is done alone."""

    @property
    def wanted(self) -> bool:
        return not self.gone and time.monotonic() < self.deadline

    def alike(self, other: "Job") -> bool:
        """Whether both can be drawn in one batch."""
        drawn = self.work is None and other.work is None
        return drawn and self.options == other.options and self.asked.given.keys() == other.asked.given.keys()


@dataclass(eq=False)
class TextJob(Job):
    """One row that is continued; ``said(token, log_prob, alternatives)`` for every token, then ``done(row)``."""

    said: Callable[[int, float | None, Alternatives], None] | None = None
    n_alternatives: int | None = None
    """How many of the most probable tokens to report beside each (None: no log-probabilities at all)."""
    row: Continuation | None = None


@dataclass
class Tally:
    """What a worker has done so far."""

    batches: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    largest: int = 0
    """Most samples of one batch, or rows under way at once."""
    under_way: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    """Seconds per sample of recent batches."""

    def add(self, samples: int, seconds: float) -> None:
        self.batches, self.samples, self.seconds = self.batches + 1, self.samples + samples, self.seconds + seconds
        self.largest = max(self.largest, samples)
        self.recent.append(seconds / samples)


class Worker(ABC):
    """A queue of bounded length and the thread that serves it."""

    def __init__(self, served: Served, limits: Limits):
        self.served, self.limits, self.tally = served, limits, Tally()
        self._waiting: deque[Job] = deque()
        self._made: list[Job] = []
        """Done, but whoever asked has not taken it in yet: these count as waiting too."""
        self._news = threading.Condition()
        self._closed = self._has_worked = False
        self._thread = threading.Thread(target=self._run, name=f"bowerbird {served.name}", daemon=True)
        self._thread.start()

    def offer(self, jobs: Sequence[Job]) -> None:
        """All of them wait, or none: Busy where too many would."""
        with self._news:
            if self._closed:
                raise Closing
            self._made = [job for job in self._made if job.wanted]
            before = self.waiting + sum(job.asked.n for job in self._made)
            if before and before + sum(job.asked.n for job in jobs) > self.limits.waiting:
                raise Busy(self.retry_after_s())
            self._waiting.extend(jobs)
            self._news.notify()

    @property
    @abstractmethod
    def at_once(self) -> int:
        """Most samples that are drawn together."""

    @property
    def waiting(self) -> int:
        """Samples that wait for their turn."""
        with self._news:
            return sum(job.asked.n for job in self._waiting if not job.gone)

    def retry_after_s(self) -> int:
        """Whole seconds in which half of what waits will have been drawn, as far as recent batches tell."""
        recent = list(self.tally.recent)
        per_sample = sum(recent) / len(recent) if recent else 1.0
        return max(1, min(60, round(self.waiting * per_sample / 2)))

    def close(self) -> None:
        """What waits is refused; what is under way ends at its next step."""
        with self._news:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            self._news.notify_all()
        for job in waiting:
            job.failed(Closing())
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._turn()
            except Exception:  # a defect of ours must not end the thread that all clients wait for
                LOG.exception("a worker failed", extra={"run": self.served.name})
                time.sleep(0.1)

    def _await_work(self) -> None:
        """Until there is some, or a second has passed; one that has nothing to do keeps no memory of what it did."""
        with self._news:
            came = self._news.wait_for(lambda: self._waiting or self._closed, timeout=1.0)
            self._made = [job for job in self._made if job.wanted]
        if came:
            self._has_worked = True
        elif self._has_worked:
            self._has_worked = False
            machine.return_freed_memory()

    @abstractmethod
    def _turn(self) -> None:
        """Waits for work and does some."""

    def _drop_unwanted(self) -> None:
        """Takes out of the queue what nobody waits for, or what is too late."""
        late = [job for job in self._waiting if not job.wanted]
        self._waiting = deque(job for job in self._waiting if job.wanted)
        for job in late:
            job.failed(TooLate(self.limits.seconds))


# ------------------------------------------------------------------------------------------------ whole samples


class Drawer(Worker):
    """Draws requests that are alike in one batch."""

    def __init__(self, served: Served, limits: Limits):
        self._batch: list[Job] = []
        self._hooked: Any = None
        super().__init__(served, limits)

    def _turn(self) -> None:
        self._await_work()
        if self.served.changed():
            self.served.reload()
        with self._news:
            self._linger()
            self._batch = self._taken()
        if self._batch:
            self._draw(self._batch)
            self._batch = []

    def _linger(self) -> None:
        """Waits a little for more requests, where others came together before."""
        if self._waiting and self.waiting < self.at_once and self.tally.largest > 1:
            until = time.monotonic() + self.limits.linger_ms / 1000
            while (left := until - time.monotonic()) > 0 and self.waiting < self.at_once:
                self._news.wait(left)

    @property
    def at_once(self) -> int:
        """Most samples of one batch."""
        return at_once_of(self.served.spec)

    def _taken(self) -> list[Job]:
        """The first that waits, and those behind it that are alike, as far as they fit into one batch."""
        self._drop_unwanted()
        taken: list[Job] = []
        left: deque[Job] = deque()
        n = 0
        for job in self._waiting:
            if not taken or (job.alike(taken[0]) and n + job.asked.n <= self.at_once):
                taken.append(job)
                n += job.asked.n
            else:
                left.append(job)
        self._waiting = left
        return taken

    def _draw(self, jobs: list[Job]) -> None:
        began = time.monotonic()
        self.tally.under_way = sum(job.asked.n for job in jobs)
        try:
            self._watch(self.served.model.sampling_network)
            results = self._results(jobs)
        except Abandoned:
            for job in jobs:
                job.failed(TooLate(self.limits.seconds))
        except Exception as error:
            self._explain(jobs, error)
        else:
            self.tally.add(self.tally.under_way, time.monotonic() - began)
            for job, result in zip(jobs, results, strict=True):
                job.done(result)
        finally:
            self.tally.under_way = 0

    def _results(self, jobs: list[Job]) -> list[Any]:
        if (work := jobs[0].work) is not None:
            return [work(self.served.model)]
        return draw_together(self.served.model, [job.asked for job in jobs], jobs[0].options)

    def _explain(self, jobs: list[Job], error: Exception) -> None:
        """Of several, only those get an error that have one alone."""
        if len(jobs) > 1:
            for job in jobs:
                self._draw([job])
            return
        if not isinstance(error, BowerbirdError):
            LOG.error("sampling failed", exc_info=error, extra={"run": self.served.name})
        jobs[0].failed(error)

    def _watch(self, network: torch.nn.Module) -> None:
        """Stops a batch at its next evaluation of the network once nobody waits for it."""
        if self._hooked is not network:
            network.register_forward_pre_hook(self._check)
            self._hooked = network

    def _check(self, *_: Any) -> None:
        if self._closed or not any(job.wanted for job in self._batch):
            raise Abandoned


# ------------------------------------------------------------------------------------------------ rows of tokens


class Writer(Worker):
    """Continues rows of tokens, which join and leave."""

    def __init__(self, served: Served, limits: Limits):
        self._jobs: dict[Continuation, TextJob] = {}
        self._together: ContinuousBatch | None = None
        self._outdated = False
        super().__init__(served, limits)

    @property
    def at_once(self) -> int:
        return self.limits.together

    def _turn(self) -> None:
        if not self._jobs:
            self._await_work()
        self._outdated = self._outdated or self.served.changed()
        if self._outdated and not self._jobs:
            self.served.reload()
            self._together, self._outdated = None, False
        if not self._outdated:  # rows under way keep the model that they began with; others wait for the new one
            self._admit()
        if self._jobs:
            self._step()

    def _admit(self) -> None:
        """Rows that wait join, as many as there is room for."""
        if self._together is None:
            self._together = self.served.model.batch()  # type: ignore[operator]
        with self._news:
            self._drop_unwanted()
            room = self.limits.together - len(self._jobs)
            joining = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        for job in joining:
            self._join(job)

    def _join(self, job: Any) -> None:
        try:
            draws = Draws(job.asked.seed, job.asked.first)
            job.row = self.served.model.row(job.asked.given, job.options, draws)  # type: ignore[operator]
            self._together.join(job.row)  # type: ignore[union-attr]
            self._jobs[job.row] = job
        except Exception as error:
            job.failed(error)

    def _step(self) -> None:
        began = time.monotonic()
        assert self._together is not None, "rows have joined"
        n = self.tally.under_way = len(self._jobs)
        try:
            added = self._together.step()
        except Exception as error:
            self._give_up(error)
            return
        for row, token, logits in added:
            job = self._jobs[row]
            if job.said is not None and not job.gone:
                job.said(token, *_log_probs(logits, token, job.n_alternatives))
        self._dismiss()
        self.tally.tokens += n
        self.tally.largest = max(self.tally.largest, n)
        self.tally.seconds += time.monotonic() - began
        self.tally.under_way = len(self._jobs)

    def _dismiss(self) -> None:
        """Rows that have ended or failed, that nobody waits for, or whose time is up."""
        leaving = [row for row, job in self._jobs.items() if row.ended or row.failure or not job.wanted or self._closed]
        assert self._together is not None, "rows have joined"
        self._together.leave(leaving)
        for row in leaving:
            job = self._jobs.pop(row)
            if row.failure is not None:
                job.failed(row.failure)
            elif row.ended:
                self.tally.samples += 1
                self._made.append(job)
                job.done(row)
            else:
                job.failed(Closing() if self._closed else TooLate(self.limits.seconds))

    def _give_up(self, error: Exception) -> None:
        """After a failed step nothing is known of any row."""
        if not isinstance(error, BowerbirdError):
            LOG.error("sampling failed", exc_info=error, extra={"run": self.served.name})
        jobs, self._jobs, self._together = list(self._jobs.values()), {}, None
        for job in jobs:
            job.failed(error)


def _log_probs(logits: Tensor, token: int, n: int | None) -> tuple[float | None, Alternatives]:
    """The log-probability of a token in the model's own distribution, and the n most probable."""
    if n is None:
        return None, []
    log_prob = logits.log_softmax(-1)
    best = log_prob.topk(min(n, len(log_prob)))
    return float(log_prob[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def worker_for(served: Served, limits: Limits) -> Worker:
    return (Writer if served.joins else Drawer)(served, limits)
