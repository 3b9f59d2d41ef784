"""Where in the source something comes from: the line that last bound a name, the line that computes a loss."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.program import Function, Unit, dotted, last_name, receiver, targets_of

_FILLS = frozenset("fill_ zero_ normal_ uniform_ copy_ random_ resize_ clamp_ mul_ add_ sub_".split())


def bindings(unit: Unit, name: str, under: ast.AST | None = None) -> Iterator[tuple[int, ast.expr]]:
    """Every line that binds or refills a name, with what is bound."""
    statements: Iterator[ast.AST] = unit.all(ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, under=under)
    for node in statements:
        if isinstance(node, ast.Expr):
            call = node.value
            if isinstance(call, ast.Call) and last_name(call) in _FILLS:
                if (dotted(receiver(call)) or "").removesuffix(".data") == name:
                    yield node.lineno, call
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            if any(dotted(target) == name for target in targets_of(node)):
                yield node.lineno, node.value


def bound(unit: Unit, name: str, line: int, scope: ast.AST | None = None) -> tuple[int, ast.expr] | None:
    """What was last bound to a name above a line: within ``scope`` first, else anywhere in the file."""
    for under in (scope, None) if scope is not None else (None,):
        found = list(bindings(unit, name, under))
        above = [entry for entry in found if entry[0] < line]
        if above or found:
            return (above or found)[-1]
    return None


def at(unit: Unit, line: int | None) -> ast.AST | None:
    """The innermost statement at a line."""
    inside = [
        n for n in unit.nodes
        if isinstance(n, ast.stmt) and line is not None and n.lineno <= line <= (n.end_lineno or n.lineno)
    ]  # fmt: skip
    return max(inside, key=lambda n: (n.lineno, n.col_offset), default=None)


def function_at(unit: Unit, line: int | None) -> Function | None:
    """The innermost function that holds a line."""
    around = [f for f in unit.functions.values() if line is not None and f.lineno <= line <= (f.end_lineno or f.lineno)]
    return max(around, key=lambda f: f.lineno, default=None)


def calls_at(unit: Unit, line: int | None, pattern: str = "") -> list[ast.Call]:
    """The calls that touch a line and whose last word matches."""
    touching = [c for c in unit.all(ast.Call) if line is not None and c.lineno <= line <= (c.end_lineno or c.lineno)]
    return [call for call in touching if re.search(pattern, last_name(call))]


def loss_line(unit: Unit, backward: int | None) -> int | None:
    """The line that computes what ``backward`` is called on, through one name and one function of the program."""
    call = next((c for c in calls_at(unit, backward) if last_name(c) == "backward"), None)
    if call is None or backward is None:
        return backward
    value: ast.AST | None = receiver(call)
    line = backward
    for _ in range(3):
        name = dotted(value)
        if name is not None:
            found = bound(unit, name, line, unit.function(call) if line == backward else function_at(unit, line))
            if found is None:
                return line
            line, value = found[1].lineno, found[1]
            continue
        told = _returned(unit, value)
        if told is None:
            return line
        line, value = told.lineno, told
    return line


def _returned(unit: Unit, value: ast.AST | None) -> ast.expr | None:
    """What the program's own function returns that a call names."""
    if not isinstance(value, ast.Call):
        return None
    word = last_name(value)
    function = unit.functions.get(word) or next(
        (f for n, f in unit.functions.items() if n.endswith(f".{word}")), None
    )  # fmt: skip
    if function is None:
        return None
    returns = [n.value for n in unit.all(ast.Return, under=function) if n.value is not None]
    told = returns[-1] if returns else None
    return told.elts[0] if isinstance(told, ast.Tuple) and told.elts else told


def argument_line(unit: Unit, line: int | None, position: int, names: tuple[str, ...] = ()) -> int | None:
    """The line at which the argument of a call at ``line`` was last bound: of a loss's target, say."""
    for call in calls_at(unit, line):
        given = call.args[position] if len(call.args) > position else None
        given = next((k.value for k in call.keywords if k.arg in names), given)
        name = dotted(given)
        if name is not None and line is not None:
            found = bound(unit, name, line, unit.function(call))
            return found[0] if found is not None else line
    return line
