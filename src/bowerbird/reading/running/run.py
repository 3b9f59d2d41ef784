"""A run: what became of a program when it was executed under observation, as rules and readings see it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.patching import Patch


@dataclass(frozen=True)
class StandIn:
    """Something that was missing or out of reach, and what took its place."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass
class Run:
    """``ran`` is False where nothing of the program could be executed; ``facts`` are then the static ones alone."""

    ran: bool = False
    facts: FactStore = field(default_factory=FactStore)
    stand_ins: tuple[StandIn, ...] = ()
    why_not: str = ""
    rerun: Callable[[Patch], FactStore | None] | None = None
    _patched: dict[Patch, FactStore | None] = field(default_factory=dict)

    def patched(self, patch: Patch) -> FactStore | None:
        """The facts of the patched program under the same seed, or None where no further run is possible."""
        if patch not in self._patched:
            self._patched[patch] = self.rerun(patch) if self.ran and self.rerun is not None else None
        return self._patched[patch]

    def exceptions(self) -> list[Fact]:
        """What the program raised and did not catch, in order."""
        return self.facts.of("run.exception")

    @property
    def steps(self) -> int:
        """How many optimiser steps were seen."""
        return len(self.facts.of("event.step"))
