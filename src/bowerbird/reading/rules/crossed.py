"""Names that cross: arguments at a call whose names are those of each other's parameters, results unpacked likewise.

The names only say where to ask.  The program runs again with the two exchanged: where that fails, they stand as they
must; where a property that failed now holds, they stood wrong; else it is a remark.
"""

import ast
from collections.abc import Iterator
from dataclasses import replace

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Edit, Patch
from bowerbird.reading.program import Function, Program, Unit, dotted, last_name
from bowerbird.reading.properties import broken, mended, properties
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run

MOST_ASKED = 3
Pair = tuple[ast.expr, ast.expr]


@rule("X25", "Two arguments, or two results, may have changed places", family="general")
def crossed(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``f(x, t)`` called as ``f(t, x)``; ``return mu, logvar`` unpacked as ``logvar, mu = …``."""
    asked = 0
    for unit in program:
        ran = {line for fact in facts.of("run.reached", "own") if fact.file == unit.file for line in fact.value}
        for unpacked, call, function, pair in _crossings(program, unit):
            statement = unit.statement(call)
            if asked < MOST_ASKED and statement is not None and statement.lineno in ran:
                asked += 1
                names = last_name(pair[0]), last_name(pair[1])
                found = say(
                    "X25b" if unpacked else "X25", "info", call.lineno, file=unit.file, name=function.name, pair=names
                )
                yield from _tried(found, unit, pair, facts, run)


def _tried(found: Finding, unit: Unit, pair: Pair, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The finding as far as running the program with the two exchanged bears it out."""
    patch = _exchange(unit, pair)
    after = run.patched(patch) if patch is not None else None
    if after is None:
        yield found
        return
    said = "Exchanged, the program runs as well"
    if after.first("run.program") is None or len(after.of("run.exception")) > len(run.exceptions()):
        return
    one, other = properties(facts), properties(after)
    better = mended(one, other) if not broken(one, other) else []
    if better or len(after.of("run.exception")) < len(run.exceptions()):
        said = f"Exchanged, {better[0].after.said}" if better else "Exchanged, the program no longer fails"
        facts_of = tuple(identity for turned in better for identity in turned.before.facts)
        found = replace(found, severity="warning", facts=facts_of, patch=patch)
    yield replace(found, evidence=f"{found.evidence} {said}.")


def _exchange(unit: Unit, pair: Pair) -> Patch | None:
    """The patch that exchanges two expressions of one line."""
    (a, b), line = pair, pair[0].lineno
    text = unit.lines[line - 1].encode()
    if {a.end_lineno, b.lineno, b.end_lineno} != {line} or a.end_col_offset is None or b.end_col_offset is None:
        return None
    first, between = text[a.col_offset : a.end_col_offset], text[a.end_col_offset : b.col_offset]
    second = text[b.col_offset : b.end_col_offset]
    new = text[: a.col_offset] + second + between + first + text[b.end_col_offset :]
    return Patch("X25: exchange", (Edit(unit.file, line, line, (new.decode(),)),))


def _crossings(program: Program, unit: Unit) -> Iterator[tuple[bool, ast.Call, Function, Pair]]:
    """Calls at which names cross: whether where the results are unpacked, the function, and the two expressions."""
    for call in unit.all(ast.Call):
        function = _defined(program, unit, call)
        if function is None or any(isinstance(a, ast.Starred) for a in call.args):
            continue
        pair = _crossing(call.args, [a.arg for a in function.args.args if a.arg not in ("self", "cls")])
        if pair and not _either_way(unit, call, pair):
            yield False, call, function, pair
        statement = unit.parents.get(call)
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        returned = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and isinstance(n.value, ast.Tuple)]
        if isinstance(target, ast.Tuple) and returned:
            pairs = [_crossing(target.elts, [last_name(e) for e in r.elts]) for r in returned]
            if all(pairs) and pairs[0] is not None:
                yield True, call, function, pairs[0]


def _crossing(given: list[ast.expr], wanted: list[str]) -> Pair | None:
    """Two expressions of which each has the name of the other's place."""
    for i, node in enumerate(given):
        name = last_name(node)
        j = wanted.index(name) if name and name in wanted else i
        if j > i and j < len(given) and i < len(wanted) and last_name(given[j]) == wanted[i]:
            return node, given[j]
    return None


def _either_way(unit: Unit, call: ast.Call, pair: Pair) -> bool:
    """Whether the same function is called near by with the names in order, so that both ways are meant."""
    one, two = map(last_name, pair)
    for other in unit.all(ast.Call, under=unit.function(call) or unit.tree):
        names = [last_name(a) for a in other.args]
        if last_name(other) == last_name(call) and one in names and two in names:
            if names.index(two) < names.index(one):
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
