"""What both questions to a model share: the program with its line numbers, and what is said of answers."""

import ast
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import CheckResult
from bowerbird.reading.exercised import Exercised
from bowerbird.reading.program import Unit
from bowerbird.reading.proposing.beside import beside
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.naming import names_of
from bowerbird.reading.running.request import Request
from bowerbird.reading.source import Source
from bowerbird.reading.tutor.endpoint import Message, tokens
from bowerbird.reading.tutor.prompt import mark_of

EXECUTIONS = 10
"""All executions together have this many times the processor time of one."""
MARKS = 60
"""Tokens of the marks and titles around the material."""


@dataclass
class Budget:
    """The processor time of a child within which a model's proposals are tried, counted from now."""

    child: Child
    cpu_s: float

    def __post_init__(self) -> None:
        self.end = self.child.cpu_s + self.cpu_s

    def over(self, share: float = 1.0, *, needs: float | None = None) -> bool:
        """Whether another execution, as long as the last one or as ``needs`` says, would go beyond this share of it."""
        needs = self.child.last_cpu_s if needs is None else needs
        return self.child.cpu_s + needs > self.end - (1 - share) * self.cpu_s

    def __str__(self) -> str:
        return f"the {self.cpu_s:.0f} s of processor time for all executions were used up; --seconds gives more"


class Malformed(ValueError):
    """An answer, or a part of it, that is not in form; ``str()`` completes a sentence."""


def numbered(unit: Unit, room: int, focus: Iterable[tuple[int, int]]) -> str:
    """The program with its line numbers; one that does not fit into ``room`` tokens is shown by its imports, settings
    and signatures, and in full as far as there is room where its ``focus`` lies."""
    rows = {number: f"{number:>5}| {line}" for number, line in enumerate(unit.lines, 1)}
    kept = set(rows)
    if tokens("\n".join(rows.values())) > room:
        kept = set(_outline(unit.tree)) & set(rows)
        left = room - tokens("\n".join(rows[n] for n in kept)) - 4 * len(kept)
        if left < 0:
            raise BowerbirdError(
                f"The program does not fit into the {max(room, 0):,} tokens that the model's context leaves for it; "
                "see --context."
            )
        for number in (n for first, last in focus for n in range(first, last + 1) if n not in kept):
            left -= tokens(rows[number]) + 1
            if left < 0:
                break
            kept.add(number)
    return "\n".join(rows[n] if n - 1 in kept or n == 1 else f"    …\n{rows[n]}" for n in sorted(kept))


def _outline(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from range(node.lineno, max(node.body[0].lineno, node.lineno + 1))
        elif isinstance(node, ast.Import | ast.ImportFrom) or (node in tree.body and isinstance(node, ast.Assign)):
            yield node.lineno


def told(
    result: CheckResult, facts: Iterable[str], room: int, focus: Sequence[tuple[int, int]] = ()
) -> Message:  # fmt: skip
    """The program, what running it showed, and, as far as there is room, what lies beside it."""
    mark, showed = mark_of(result.program.main.text), "\n".join(facts)
    file = numbered(result.program.main, room - tokens(showed) - MARKS, focus)
    around = beside(result.program, room - tokens(file + showed) - MARKS)
    rows = (mark, file, *(["Beside it lie:", around] if around else []), mark, "What running it showed:", showed)
    return {"role": "user", "content": "\n".join(rows)}


def known(result: CheckResult) -> Iterator[str]:
    """What running the program showed, a line for each thing."""
    exercised = result.exercised
    ran = [name for name, was in exercised.parts.items() if was]
    yield f"- it took {exercised.steps} optimiser steps; {exercised.kind}s that ran: {', '.join(ran[:30]) or 'none'}"
    if exercised.guessed:
        yield f"- of these ran with arguments that the checker made up: {', '.join(exercised.guessed[:30])}"
    yield from unreached(exercised)
    for fact in result.run.exceptions()[:6]:
        who = "the checker's own attempt to use it" if fact["phase"] == "exercise" else "the program"
        yield f"- line {fact.line}: {who} raised {fact.subject}: {' '.join(str(fact['message']).split())[:200]}"
    if exercised.limits:
        yield f"- {'; '.join(exercised.limits)}"
    absent = [s for s in result.run.stand_ins if not s.name.endswith(")") and not s.name.startswith("input of ")]
    yield from (f"- not here: {stand_in}" for stand_in in absent[:12])


def importable(source: Source) -> list[str]:
    """The dotted names under which a program can be imported."""
    return names_of(Request(source.main, dict(source.texts), str(source.root), "", "", project=str(source.project)))


def windows(result: CheckResult, room: int) -> list[tuple[int, int]]:
    """The stretches of a program that can be shown in full one at a time, cut where a definition begins."""
    unit = result.program.main
    starts = sorted({n.lineno for n in ast.walk(unit.tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)} | {1})
    whole = tokens("\n".join(unit.lines)) + 2 * len(unit.lines)
    most = len(unit.lines) if whole <= room else max(len(unit.lines) * room // (2 * whole), 1)
    found: list[tuple[int, int]] = []
    first = 1
    for start, after in itertools.pairwise([*starts, len(unit.lines) + 1]):
        if after - first > most and start > first:
            found.append((first, start - 1))
            first = start
    return [*found, (first, len(unit.lines))]


def unreached(exercised: Exercised) -> Iterator[str]:
    if exercised.never:
        yield f"- {exercised.kind}s that never ran: {', '.join(exercised.never[:30])}"
    own = [(first, last) for file, first, last in exercised.missed if file == exercised.program.file]
    if own:
        yield f"- lines that never ran: {', '.join(f'{a}-{b}' if b > a else str(a) for a, b in own[:40])}"


def with_left_out(result: CheckResult, sentences: Iterable[str]) -> CheckResult:
    return replace(result, left_out=(*result.left_out, *sentences))
