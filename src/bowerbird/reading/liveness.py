"""Values that a function computes and that no way through it reads: backward liveness over Python's own bytecode.

    live before an instruction = (live after it - what it stores) | what it loads

Nothing runs, so it holds also for code that nothing calls.
"""

import ast
import dis
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

from bowerbird.reading.program import Function, Unit, names_in
from bowerbird.reading.undefined import compiled

_OPAQUE = frozenset("locals vars eval exec".split())
_PART = re.compile(r"(LOAD|STORE|DELETE)_FAST")


@dataclass(frozen=True)
class Lost:
    """A value that is assigned to ``name`` and read on no way on; ``again`` says that the name is a parameter, or is
    read where it holds something else."""

    line: int
    name: str
    text: str
    again: bool


def lost_values(unit: Unit) -> Iterator[Lost]:
    """Every computed value of a function of the file that nothing can read."""
    statements = {(s.lineno, _target(s)): s for s in unit.all(ast.Assign)}
    for code in compiled(unit.text, unit.file):
        if _OPAQUE & set(code.co_names):
            continue
        for line, name in _dead(code):
            statement = statements.get((line, name))
            function = unit.function(statement) if statement is not None else None
            if statement is None or function is None or name.startswith("_") or not _computed(statement.value):
                continue
            text = " ".join(ast.unparse(statement).split())[:80]
            yield Lost(line, name, text, _known(function, name))


def _target(statement: ast.Assign) -> str:
    """The one plain name that a statement binds; empty where it binds anything else."""
    target = statement.targets[0] if len(statement.targets) == 1 else None
    return target.id if isinstance(target, ast.Name) else ""


def _computed(value: ast.expr) -> bool:
    """Whether something is computed from names, and not only set to begin with."""
    return bool(names_in(value)) and any(isinstance(n, ast.Call | ast.BinOp) for n in ast.walk(value))


def _known(function: Function, name: str) -> bool:
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    read = (n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return any(a.arg == name for a in given) or any(n.id == name for n in read)


def _dead(code: CodeType) -> Iterator[tuple[int, str]]:
    """Stores into local names that no path reads, with their lines."""
    steps = list(dis.get_instructions(code))
    place = {step.offset: number for number, step in enumerate(steps)}
    follows = [_following(step, number, place) for number, step in enumerate(steps)]
    for entry in getattr(dis.Bytecode(code), "exception_entries", ()):
        for number, step in enumerate(steps):
            if entry.start <= step.offset < entry.end:
                follows[number].append(place[entry.target])
    before: list[frozenset[str]] = [frozenset()] * len(steps)
    after = list(before)
    changed = True
    while changed:
        changed = False
        for number in range(len(steps) - 1, -1, -1):
            after[number] = frozenset().union(*(before[n] for n in follows[number] if n < len(steps)))
            new = _before(steps[number], after[number])
            changed, before[number] = changed or new != before[number], new
    for number, step in enumerate(steps):
        if step.opname == "STORE_FAST" and step.argval not in after[number] and step.positions is not None:
            if step.positions.lineno is not None:
                yield step.positions.lineno, step.argval


def _before(step: dis.Instruction, live: frozenset[str]) -> frozenset[str]:
    parts = _PART.findall(step.opname)
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,) * len(parts)
    for part, name in reversed(list(zip(parts, names, strict=False))):
        live = live - {name} if part == "STORE" else live | {name}
    return live


_ENDS = ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE",
         "JUMP_BACKWARD_NO_INTERRUPT")  # fmt: skip


def _following(step: dis.Instruction, number: int, place: dict[int, int]) -> list[int]:
    jumps = [place[step.argval]] if step.opcode in {*dis.hasjrel, *dis.hasjabs} else []
    return jumps if step.opname in _ENDS else [*jumps, number + 1]
