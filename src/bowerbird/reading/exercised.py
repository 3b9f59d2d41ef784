"""How far a program was exercised: which of its modules ran, how many steps it took, which lines were never reached.

A verdict on a program holds for what ran.  So "nothing was found" is said only of a program that came to its end, by
itself within its limits, with its own modules; of any other it is said why it could not be judged.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.program import Program, Unit
from bowerbird.reading.running.rewrite import does_something
from bowerbird.reading.running.run import Run
from bowerbird.reading.source import python2

MOST_NAMES = 6
CONTAINERS = ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict")
"""What holds modules and cannot be called."""


@dataclass(frozen=True)
class Exercised:
    """What of a program ran.  ``parts`` are its modules; where it has none, its functions."""

    program: Program
    run: Run

    @cached_property
    def modules(self) -> dict[str, bool]:
        """Every module class that the program defines and every other network that it builds: whether a call of it
        returned."""
        facts, wanted = self.run.facts, self.program.source.wanted
        ran = {f.subject for f in facts.of("module.class") if f["ran"]}
        own = {
            info.name: info.name in ran or self._answered(unit, info.node)
            for unit in self.program
            for info in unit.classes.values()
            if info.is_module and wanted in (None, info.name)
        }
        if wanted is not None:
            return own
        called = {f.subject: bool(f["returned"]) for f in facts.of("module.calls")}
        built = [
            t for t in facts.of("module.tree")
            if t["parameters"] and t.line and t.file in self.program.units and t["class"] not in CONTAINERS
        ]  # fmt: skip  # one without a line is made up
        known = {info.name for unit in self.program for info in unit.classes.values()}
        return own | {t.subject: called.get(t.subject, False) for t in built if t["class"] not in known}

    @cached_property
    def functions(self) -> dict[str, bool]:
        """Every function of the program: whether a line of it ran."""
        return {
            name: self._any_ran(unit, node) for unit in self.program for name, node in unit.functions.items()
        }  # fmt: skip

    @property
    def parts(self) -> dict[str, bool]:
        return self.modules or self.functions

    @property
    def kind(self) -> str:
        return "module" if self.modules or not self.functions else "function"

    @property
    def ran(self) -> bool:
        """Whether modules of the program ran (functions, where it has no module; lines, where it has neither)."""
        return any(self.parts.values()) if self.parts else self.run.executed

    @property
    def never(self) -> list[str]:
        return [name for name, ran in self.parts.items() if not ran]

    @property
    def guessed(self) -> list[str]:
        """What ran only with arguments that were made up."""
        program = self.run.facts.first("run.program")
        waited = set(program["guessed"] or ()) if program is not None else set()
        return [name for name, ran in self.parts.items() if ran and name in waited]

    @property
    def passed(self) -> list[str]:
        """What ran to its end only because statements of it that failed were passed over."""
        told = {fact.subject for fact in self.run.facts.of("run.tried") if fact["passed"]}
        return [name for name, ran in self.parts.items() if ran and name in told]

    @property
    def steps(self) -> int:
        """Optimiser steps that were taken."""
        return self.run.steps

    @property
    def own_steps(self) -> int:
        """Those that the program took by itself, before anything was called with made-up arguments."""
        program = self.run.facts.first("run.program")
        return int(program["own_steps"] or 0) if program is not None else 0

    @cached_property
    def lines(self) -> dict[str, tuple[set[int], set[int]]]:
        """Of each file: the lines that ran, and all that can run."""
        return {unit.file: (self._reached(unit.file) & (own := set(_lines(unit.tree))), own) for unit in self.program}

    @property
    def covered(self) -> tuple[int, int]:
        return sum(len(ran) for ran, _ in self.lines.values()), sum(len(own) for _, own in self.lines.values())

    @property
    def extent(self) -> tuple[int, int, bool, int]:
        """How far it was exercised, to compare runs of one program: lines that ran, parts that came to their end,
        whether an optimiser stepped, and, negative, how often a driver failed."""
        failed = sum(fact["phase"] == "driver" for fact in self.run.exceptions())
        return self.covered[0], sum(self.parts.values()), self.steps > 0, -failed

    @property
    def missed(self) -> list[tuple[str, int, int]]:
        """Stretches of lines that never ran: file, first and last line."""
        return [(file, *stretch) for file, (ran, own) in self.lines.items() for stretch in _stretches(ran, own)]

    @property
    def exceptions(self) -> list[Fact]:
        """What the program itself raised; not what follows from that, nor what calls with made-up arguments raised."""
        return [f for f in self.run.exceptions() if f["phase"] == "program" and not f["follows"]]

    @property
    def limits(self) -> list[str]:
        """Limits that the program ran into."""
        cut = [f for f in self.run.facts.of("run.cut") if f["phase"] == "program"]
        spent = [f"it used up its {float(f['seconds']):g} s of processor time (--seconds gives more)" for f in cut[:1]]
        return [*([self.run.why_not] if self.run.why_not else []), *spent]

    @property
    def not_judged(self) -> str:
        """Why nothing can be said of the program as a whole, empty where it was judged."""
        if old := python2(self.program.main.tree):
            return f"it is Python 2 ({old})"
        if not self.run.executed:
            return f"it could not be run: {self.run.why_not or self._first_exception() or 'nothing of it executes'}"
        if self.exceptions:
            return f"it raised {self._first_exception()}"
        if self.limits:
            return "; ".join(self.limits)
        if not self.ran:
            return f"none of its {self.kind}s ran ({_listed(list(self.parts))})"
        if self.never and not self.own_steps:
            late = any(fact["phase"] == "exercise" for fact in self.run.facts.of("run.cut"))
            said = f"{len(self.never)} of its {len(self.parts)} {self.kind}s never ran ({_listed(self.never)})"
            return f"{said}; the time for trying them was over" if late else said
        if self.passed and not self.own_steps:
            said = f"in {len(self.passed)} of its {len(self.parts)} {self.kind}s"
            return f"{said} statements failed on made-up values and were passed over ({_listed(self.passed)})"
        return ""

    def _first_exception(self) -> str:
        first = next(iter(self.exceptions or self.run.exceptions()), None)
        if first is None:
            return ""
        where = f" at {self.program.source.where(first.line)}" if first.line else ""
        return f"{first.subject}{where}: {' '.join(str(first['message']).split())[:160]}"

    def _answered(self, unit: Unit, node: ast.ClassDef) -> bool:
        """A class that is used without ``forward`` ran when another method of it did (a Lightning module), to its
        ``return`` where there is a ``forward`` too and it computes (a flow's ``log_prob``)."""
        methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef) and n.name != "__init__"}
        if "forward" not in methods:
            return any(self._any_ran(unit, method) for method in methods.values())
        ends = [m.body[-1].lineno for name, m in methods.items() if name[0] != "_" and _computes(m)]
        return not self._reached(unit.file).isdisjoint(ends)

    def _any_ran(self, unit: Unit, node: ast.AST) -> bool:
        return not self._reached(unit.file).isdisjoint(_lines(node))

    def _reached(self, file: str) -> set[int]:
        found = [f for f in self.run.facts.of("run.reached") if f.file == file]
        return set(found[-1].value) if found else set()

    def to_json(self) -> dict[str, Any]:
        covered, of = self.covered
        return {
            "ran": self.ran,
            "judged": not self.not_judged,
            "not_judged": self.not_judged,
            self.kind + "s": {"ran": [n for n, ran in self.parts.items() if ran], "never": self.never},
            "steps": self.steps,
            "own_steps": self.own_steps,
            "lines": {"ran": covered, "of": of, "never": [list(stretch) for stretch in self.missed]},
            "exceptions": [
                {"kind": f.subject, "file": f.file, "line": f.line, "message": f["message"], "phase": f["phase"]}
                for f in self.run.exceptions()
            ],
            "limits": self.limits,
            "made_smaller": self.run.shrunk,
            "drivers": [
                {"place": driver.place, "ran": fact["ran"], "lines": fact["lines"], "text": driver.text}
                for driver, fact in self.run.driven
            ],
            "guessed": self.guessed,
            "passed": self.passed,
        }


def _computes(method: ast.FunctionDef) -> bool:
    """Whether a method makes something of what it is given, in more than one statement, and returns it: a count of
    parameters or a state to begin with is no run of a module."""
    statements = [s for s in method.body if does_something(s)]
    return len(method.args.args) > 1 and len(statements) > 1 and isinstance(method.body[-1], ast.Return)


def _lines(node: ast.AST) -> Iterator[int]:
    """The first lines of the statements of a node's blocks that do something."""
    for holder in ast.walk(node):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(holder, field, None)
            yield from (s.lineno for s in block if does_something(s)) if isinstance(block, list) else ()


def _stretches(ran: set[int], own: set[int]) -> Iterator[tuple[int, int]]:
    """Runs of lines of ``own`` with none of ``ran`` between them."""
    first = last = None
    for line in sorted(own):
        if line in ran:
            if first is not None:
                yield first, last  # type: ignore[misc]
            first = None
        else:
            first, last = first or line, line
    if first is not None:
        yield first, last  # type: ignore[misc]


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "") or "it has none"
