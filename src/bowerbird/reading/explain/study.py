"""A study: everything that is known of a program while its reading is written, and the facts that are derived from it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bowerbird.reading.check import CheckResult
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program
from bowerbird.reading.running.run import Run
from bowerbird.reading.source import Source


@dataclass(frozen=True)
class SavedPicture:
    """A picture file of the run, read before its folder was removed."""

    name: str
    data: bytes = field(repr=False)
    mime: str


@dataclass
class Study:
    """``facts`` grows while the study is made; afterwards it is only read."""

    source: Source
    program: Program
    run: Run
    findings: list[Finding]
    pictures: list[SavedPicture] = field(default_factory=list)
    shown: tuple[str, ...] = ()
    """Files that are read; what merely drives them is not among them.  Empty: all."""

    @classmethod
    def of(cls, result: CheckResult) -> "Study":
        return cls(result.program.source, result.program, result.run, result.findings)

    @property
    def facts(self) -> FactStore:
        return self.run.facts

    @property
    def files(self) -> list[str]:
        return list(self.shown) or list(self.source.texts)

    @property
    def file(self) -> str:
        """The file that is read first."""
        return self.files[0] if self.shown else self.source.main

    def add(self, topic: str, subject: str, value: Any, like: Fact | None = None, **where: Any) -> Fact:
        """Records a derived fact; ``like`` lends its place, its kind and its run."""
        kind = where.pop("kind", like.kind if like is not None else "static")
        file = where.pop("file", like.file if like is not None else self.source.main)
        line = where.pop("line", like.line if like is not None else None)
        run = where.pop("run", like.run if like is not None else None)
        return self.facts.add(kind, topic, subject, value, file=file, line=line, run=run)

    def short(self, file: str) -> str:
        """A file as a reader knows it: its name, or its path below the folder that was named."""
        path = Path(file)
        if self.source.path.is_dir() and path.is_relative_to(self.source.path):
            return path.relative_to(self.source.path).as_posix()
        return path.name

    def text(self, file: str, line: int) -> str:
        lines = self.source.texts.get(file, "").splitlines()
        return lines[line - 1] if 0 < line <= len(lines) else ""

    # ------------------------------------------------------------------------------------------- what is asked often

    @cached_property
    def roots(self) -> list[Fact]:
        """The networks: trees of modules, those that were called first."""
        called = {f.subject: f["calls"] or 0 for f in self.facts.of("module.calls")}
        trees = [f for f in self.facts.of("module.tree") if f["parameters"] or called.get(f.subject)]
        return sorted(trees, key=lambda f: called.get(f.subject, 0) == 0)

    @cached_property
    def optimizers(self) -> list[Fact]:
        """One fact per optimiser, with the name that the program gives it."""
        named = {f.subject: f["name"] for f in self.facts.of("optimizer.steps")}
        steps = {f.subject: f["steps"] for f in self.facts.of("optimizer.steps")}
        return [
            self.add(
                "optimizer.named", str(named.get(f.subject) or f.subject),
                {**f.value, "steps": steps.get(f.subject, 0)}, like=f,
            )
            for f in self.facts.of("optimizer.created")
        ]  # fmt: skip

    @cached_property
    def events(self) -> list[Fact]:
        """What happened in training, in order."""
        found = [f for f in self.facts.of("event.*") if f["seq"] is not None]
        return sorted(found, key=lambda f: f["seq"])

    def first(self, facts: Iterable[Fact], holds: Callable[[Fact], bool]) -> Fact | None:
        return next((fact for fact in facts if holds(fact)), None)
