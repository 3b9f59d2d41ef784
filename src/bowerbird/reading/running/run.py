"""A run: what became of a program when it was executed under observation, as rules and readings see it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.patching import Patch
from bowerbird.reading.running.request import Driver

_IN_PASSING = (
    "there is no GPU", "a progress bar", "a logger", "pictures are", "what is written outside", "a loader gives",
)  # fmt: skip


@dataclass(frozen=True)
class StandIn:
    """Something that was missing or out of reach, and what took its place."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    @property
    def made_up(self) -> bool:
        """Whether it gives the program values of ours, rather than taking away a device, a window or a log."""
        return not self.reason.startswith(_IN_PASSING)


@dataclass
class Run:
    """``executed`` is False where no statement of the program could be; ``facts`` are then the static ones alone."""

    executed: bool = False
    facts: FactStore = field(default_factory=FactStore)
    stand_ins: tuple[StandIn, ...] = ()
    why_not: str = ""
    drivers: tuple[Driver, ...] = ()
    defining: bool = False
    """Whether the program was only read in, because it came to no end by itself, and a driver used it."""
    rerun: Callable[[Patch], FactStore | None] | None = None
    _patched: dict[Patch, FactStore | None] = field(default_factory=dict)

    def patched(self, patch: Patch) -> FactStore | None:
        """The facts of the patched program under the same seed, or None where no further run is possible."""
        if patch not in self._patched:
            self._patched[patch] = self.rerun(patch) if self.executed and self.rerun is not None else None
        return self._patched[patch]

    def exceptions(self) -> list[Fact]:
        """What the program raised and did not catch, in order."""
        return self.facts.of("run.exception")

    @property
    def shrunk(self) -> list[str]:
        """What was made smaller so that it ran within its time: ``batch_size 128 → 8``."""
        return [s.name for s in self.stand_ins if s.reason.startswith("smaller")]

    @property
    def driven(self) -> list[tuple[Driver, Fact]]:
        """The drivers that called something that had not run before, and what became of them."""
        told = {fact.subject: fact for fact in self.facts.of("run.driver") if fact["kept"]}
        return [(driver, told[driver.place]) for driver in self.drivers if driver.place in told]

    @property
    def steps(self) -> int:
        """How many optimiser steps were seen."""
        return len(self.facts.of("event.step"))
