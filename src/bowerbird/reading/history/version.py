"""A version of a program: its source, and what it did when it was executed for comparison."""

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from bowerbird.reading.defaults import found
from bowerbird.reading.drivers import likely
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.history import normal
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.observation import attempts, execute
from bowerbird.reading.running.request import Request
from bowerbird.reading.source import Source

SESSION = "bowerbird.reading.history.session:Traced"
THROUGHOUT = "bowerbird.reading.history.session:TracedThroughout"
SECONDS = 20.0


@dataclass
class Version:
    """``request`` is how it was executed; ``roles`` maps its root modules to numbers that both versions share."""

    source: Source
    facts: FactStore
    request: Request
    why: str = ""
    roles: dict[str, int] = field(default_factory=dict)

    @property
    def ran(self) -> bool:
        program = self.facts.first("run.program")
        return bool(program and program["ran"] and self.facts.of("event.forward"))

    @cached_property
    def executed(self) -> set[int]:
        """The lines of the main file that ran."""
        found = [f for f in self.facts.of("run.reached") if f.file == self.source.main]
        return set(found[-1].value) if found else set()

    def ran_at(self, found: tuple[normal.Statement, ...]) -> bool:
        return any(s.first <= line <= s.last for s in found for line in self.executed)

    @cached_property
    def roots(self) -> list[Fact]:
        """The state of each root module at the end, in the order of creation."""
        return [f for f in self.facts.of("history.state") if f["parameters"] or f["buffers"]]

    def role(self, name: str) -> int:
        """The number of a root module, by the name of the root or of a module in it; -1 where there is none."""
        while name and name not in self.roles:
            name = name.rpartition(".")[0]
        return self.roles.get(name, -1)

    def part(self, name: str) -> str:
        """What of a root module a name means: ``.fc3`` of ``model.fc3``; empty for the root itself."""
        root = name
        while root and root not in self.roles:
            root = root.rpartition(".")[0]
        return name[len(root) :]

    def named(self, role: int) -> str:
        return next((name for name, number in self.roles.items() if number == role), "")


def run(source: Source, child: Child, like: Request | None = None, **settings: Any) -> Version:
    """Executes a version; ``like`` is the request of the other one, whose settings, stand-ins and sizes it shares."""
    if like is not None:
        request = replace(like, main=source.main, texts=dict(source.texts), **settings)
        facts, why = execute(child, request)
        return Version(source, facts, request, why)
    facts, used, why = attempts(child, replace(request_of(source), **settings))
    return Version(source, facts, used, why)


def request_of(source: Source) -> Request:
    """How a version is executed by itself."""
    return Request(
        source.main, dict(source.texts), str(source.root), "", "", seconds=SECONDS, probes=False, session=SESSION,
        wanted=source.wanted, project=str(source.project), drivers=tuple(likely(source)), settings=found(source),
    )  # fmt: skip


def kept_state(child: Child) -> str:
    """Where the last execution left the weights that its modules started with."""
    path = child.folder / f"scratch-{child._count}" / "state.pt"
    return str(path) if path.is_file() else ""


def assign_roles(a: Version, b: Version) -> None:
    """Matches root modules: equal names with equal shapes, then equal shapes in order, then equal names, then order."""
    left, right = list(a.roots), list(b.roots)
    pairs: list[tuple[Fact, Fact]] = []
    tests = (
        lambda x, y: x.subject == y.subject and shapes(x) == shapes(y),
        lambda x, y: shapes(x) == shapes(y) and x["class"] == y["class"],
        lambda x, y: shapes(x) == shapes(y),
        lambda x, y: x.subject == y.subject,
        lambda x, y: bool(x["parameters"]) == bool(y["parameters"]),
    )
    for fits in tests:
        for one in list(left):
            other = next((y for y in right if fits(one, y)), None)
            if other is not None:
                pairs.append((one, other))
                left.remove(one)
                right.remove(other)
    order = {fact.subject: place for place, fact in enumerate(a.roots)}
    pairs.sort(key=lambda pair: order[pair[0].subject])
    a.roles = {one.subject: number for number, (one, _) in enumerate(pairs)}
    b.roles = {other.subject: number for number, (_, other) in enumerate(pairs)}
    a.roles |= {fact.subject: len(pairs) + n for n, fact in enumerate(left)}
    b.roles |= {fact.subject: 1000 + n for n, fact in enumerate(right)}


def shapes(root: Fact) -> list[list[int]]:
    return sorted(row["shape"] for row in root["parameters"] or [])


def short(text: str, most: int = 90) -> str:
    """A text on one line."""
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= most else line[: most - 1] + "…"
