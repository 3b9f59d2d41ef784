"""Names that cross: arguments at a call whose names are those of each other's parameters, results unpacked likewise."""

import ast
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Function, Program, Unit, dotted, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run


@rule("X25", "Two arguments, or two results, have changed places", family="general")
def crossed(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``f(x, t)`` called as ``f(t, x)``; ``return mu, logvar`` unpacked as ``logvar, mu = …``."""
    for unit in program:
        for call in unit.all(ast.Call):
            function = _defined(program, unit, call)
            if function is None or any(isinstance(a, ast.Starred) for a in call.args):
                continue
            wanted = [a.arg for a in function.args.args if a.arg not in ("self", "cls")]
            pair = _crossing([last_name(a) for a in call.args], wanted)
            if pair and not _either_way(unit, call, pair):
                yield say("X25", "warning", call.lineno, file=unit.file, name=function.name, pair=pair)
            yield from _unpacked(unit, call, function)


def _unpacked(unit: Unit, call: ast.Call, function: Function) -> Iterator[Finding]:
    statement = unit.parents.get(call)
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    if not isinstance(target, ast.Tuple):
        return
    returned = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and isinstance(n.value, ast.Tuple)]
    pairs = [_crossing([last_name(t) for t in target.elts], [last_name(e) for e in r.elts]) for r in returned]
    if pairs and all(pairs):
        yield say("X25b", "warning", call.lineno, file=unit.file, name=function.name, pair=pairs[0])


def _crossing(given: list[str], wanted: list[str]) -> tuple[str, str] | None:
    """Two names of which each stands in the other's place."""
    for i, name in enumerate(given):
        j = wanted.index(name) if name and name in wanted else i
        if j > i and j < len(given) and i < len(wanted) and given[j] == wanted[i]:
            return name, given[j]
    return None


def _either_way(unit: Unit, call: ast.Call, pair: tuple[str, str]) -> bool:
    """Whether the same function is called near by with the names in order, so that both ways are meant."""
    for other in unit.all(ast.Call, under=unit.function(call) or unit.tree):
        names = [last_name(a) for a in other.args]
        if last_name(other) == last_name(call) and all(name in names for name in pair):
            if names.index(pair[1]) < names.index(pair[0]):
                return True
    return False


def _defined(program: Program, unit: Unit, call: ast.Call) -> Function | None:
    """The function of the program that a call surely runs: of its name there is one; of a module its ``forward``."""
    word, name = last_name(call), dotted(call.func) or ""
    kind = unit.modules.get(name)
    if kind is not None:
        return next((u.functions[f"{kind}.forward"] for u in program if f"{kind}.forward" in u.functions), None)
    named = [f for u in program for key, f in u.functions.items() if key.rpartition(".")[2] == word]
    built = [c.methods.get("__init__") for u in program for c in u.classes.values() if c.name == word]
    found = [f for f in (built or named) if f is not None]
    return found[0] if len(found) == 1 and word not in ("forward", "__init__") else None
