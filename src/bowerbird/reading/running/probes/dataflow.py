"""What the program computes and never uses, by where values went while it ran."""

import ast
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.program import Unit, last_name
from bowerbird.reading.running.formula import units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.functions import DRAWS
from bowerbird.reading.running.probes import probe

_FILLED = frozenset(
    "zeros ones full empty zeros_like ones_like full_like empty_like arange linspace eye tensor".split()
)
_ASSERTED = frozenset("manual_seed seed set_rng_state get_rng_state equal allclose is_tensor".split())


@probe("dataflow", cheap=True)
def computed_and_used(live: Live) -> None:
    """Records ``property.dataflow`` for each function (``<module>`` for the top level) whose results were followed."""
    for unit in units(live.files):
        lost = [(line, name) for file, line, name in live.unused if file == unit.file]
        _spoilt(live, unit)
        unused = [row for line, name in sorted(lost) if (row := _unused(live, unit, line, name)) is not None]
        followed = {line for file, line, _ in (*live.used, *live.unused) if file == unit.file}
        for name in sorted({_function(unit, line) for line in followed}):
            own = [row for row in unused if _function(unit, row["line"]) == name]
            first = own[0] if own else None
            said = (
                f"line {first['line']}: `{first['text']}` is computed and never used" if first else "all of it is used"
            )
            value = {"holds": not own, "said": said, "unused": own}
            live.record("property.dataflow", name, value, line=first["line"] if first else None, file=unit.file)


def _spoilt(live: Live, unit: Unit) -> None:
    """Records ``property.in place`` for calls that changed what they were given, where it was used again."""
    found = dict(live.flow.spoilt) if live.flow is not None else {}
    for place in live.flow.replaced if live.flow is not None else ():
        later = _used_after(live, unit, place[1]) if place[0] == unit.file else None
        if later is not None:
            found[place] = later
    for (file, line, name), user in found.items():
        if file == unit.file:
            said = f"{name}, called here, changes its input in place, and line {user} uses that input afterwards"
            live.record("property.in place", name, {"holds": False, "said": said, "used": user}, line=line, file=file)


def _used_after(live: Live, unit: Unit, line: int) -> int | None:
    """Where a name that a call was given is read after the call has given its changed value another name."""
    statement = _statement(unit, line)
    call = statement.value if isinstance(statement, ast.Assign) else None
    if (
        statement is None
        or not isinstance(call, ast.Call)
        or len(call.args) != 1
        or not isinstance(call.args[0], ast.Name)
    ):
        return None
    name, scope = call.args[0].id, unit.scope(statement)
    stores = [
        n.lineno for n in ast.walk(scope) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
    ]
    until = min((n for n in stores if n >= line), default=10**9)
    reads = [
        n.lineno for n in ast.walk(scope) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)
    ]
    reached = live.reached.get(unit.file, set())
    return next((n for n in sorted(reads) if line < n <= until and n in reached), None)


def _unused(live: Live, unit: Unit, line: int, function: str) -> dict[str, Any] | None:
    """How a result is not used: ``discarded`` by its statement, or bound to a name that nothing reads."""
    statement = _statement(unit, line)
    if statement is None or function in _ASSERTED or not _gives(getattr(statement, "value", None), function):
        return None
    text = " ".join(ast.unparse(statement).split())[:90]
    graph = (unit.file, line, function) in live.graphs
    row: dict[str, Any] = {"line": line, "text": text, "function": function, "kind": _kind(function), "graph": graph}
    if isinstance(statement, ast.Expr):
        return row | {"how": "discarded"} if line == statement.lineno else None
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return None
    target = statement.targets[0]
    lent = (unit.file, line, function) in live.lent
    if not isinstance(target, ast.Name) or target.id.startswith("_") or _read(live, unit, statement, target.id, lent):
        return None
    return row | {"how": "never read", "name": target.id}


_OPERATORS: dict[type, str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div truediv", ast.Pow: "pow", ast.MatMult: "matmul",
    ast.USub: "neg", ast.FloorDiv: "floordiv", ast.Mod: "mod remainder",
}  # fmt: skip


def _gives(value: ast.expr | None, function: str) -> bool:
    """Whether what a function of torch gave is the value of an expression, and not a part of it."""
    word = function.strip("_")
    match value:
        case ast.Call():
            return last_name(value) == function or function[:1].isupper()  # of a module its class is known
        case ast.BinOp(op=operator) | ast.UnaryOp(op=operator):
            return word.removeprefix("r") in _OPERATORS.get(type(operator), "").split()
        case ast.Subscript():
            return word == "getitem"
        case _:
            return False


def _read(live: Live, unit: Unit, statement: ast.stmt, name: str, lent: bool) -> bool:
    """Whether the name may be read after all: where the program did not come, by a function inside, or (``lent``) by
    whoever calls this one."""
    if _overwritten(unit, statement, name):
        return False
    scope = unit.scope(statement)
    for node in ast.walk(scope):
        if isinstance(node, ast.Global | ast.Nonlocal) and name in node.names:
            return True
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            at = unit.statement(node)
            if lent and (isinstance(at, ast.Return) or any(isinstance(a, ast.Yield) for a in unit.ancestors(node))):
                return True
            if unit.scope(node) is not scope or at is None or at.lineno not in live.reached.get(unit.file, set()):
                return True
    return False


def _overwritten(unit: Unit, statement: ast.stmt, name: str) -> bool:
    """Whether a later statement of the same block binds the name anew, and none up to there reads it."""
    holder = unit.parents.get(statement)
    blocks = (getattr(holder, field, None) for field in ("body", "orelse", "finalbody"))
    block = next((b for b in blocks if isinstance(b, list) and statement in b), [])
    for later in block[block.index(statement) + 1 :] if block else ():
        if any(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load) for n in ast.walk(later)):
            return False
        if isinstance(later, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in later.targets):
            return True
    return False


def _kind(function: str) -> str:
    if function[:1].isupper():
        return "module"
    return "draw" if function in DRAWS else "filled" if function in _FILLED else "computed"


def _statement(unit: Unit, line: int) -> ast.stmt | None:
    found = [n for n in _simple(unit) if n.lineno <= line <= (n.end_lineno or n.lineno)]
    return max(found, key=lambda n: n.lineno, default=None)


def _simple(unit: Unit) -> Iterator[ast.stmt]:
    yield from unit.all(ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return)


def _function(unit: Unit, line: int) -> str:
    """The innermost function around a line."""
    inside = [
        (node.lineno, name) for name, node in unit.functions.items() if node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(inside)[1] if inside else "<module>"
