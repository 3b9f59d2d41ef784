"""Parameters that a function takes and never reads, although what it calls would take them, or has their usual value
written out.

    def __init__(self, width, bias=False):     nn.Linear takes a ``bias``, and is given none
        self.out = nn.Linear(width, width)
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from bowerbird.reading.program import Function, Unit, dotted
from bowerbird.reading.running.formula import units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.raising import bound_once, called_by, namespace_of

_TRANSPARENT = frozenset("staticmethod classmethod no_grad inference_mode enable_grad autocast".split())
_USUAL = (0, 1, 2, -1, None, "")
"""Values that many things have, so that meeting one of them elsewhere says nothing."""


@probe("handed", cheap=True)
def handed(live: Live) -> None:
    """Records ``probe.handed`` for each parameter that is taken, not read, and missing from a call."""
    for unit in units(live.files):
        names, once = namespace_of(live, unit.file) or {}, bound_once(unit)
        for name, function in unit.functions.items():
            if not _closed(unit, function, names):
                continue
            for parameter, default in _unread(function):
                found = next(_missing(unit, function, parameter, default, names, once), None)
                if found is not None:
                    call, how = found
                    value = {"parameter": parameter, "text": ast.unparse(call)[:80], "how": how}
                    live.record("probe.handed", name, value, line=call.lineno, file=unit.file)


def _closed(unit: Unit, function: Function, names: dict[str, Any]) -> bool:
    """Whether the function does something, is wrapped by nothing, and implements no interface of a class above it."""
    words = {(dotted(d.func if isinstance(d, ast.Call) else d) or "?").rpartition(".")[2]
             for d in function.decorator_list}  # fmt: skip
    asked = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
    if words - _TRANSPARENT or asked & {"locals", "vars", "NotImplementedError"}:
        return False
    owner = unit.parents.get(function)
    if not isinstance(owner, ast.ClassDef):
        return True
    kind, name = names.get(owner.name), function.name
    if not isinstance(kind, type):
        return False
    heirs: list[type] = kind.__subclasses__()
    known = any(hasattr(base, name) for base in kind.__mro__[1:-1]) or any(name in vars(heir) for heir in heirs)
    return name == "__init__" or not (known or name.startswith("__"))


def _unread(function: Function) -> Iterator[tuple[str, ast.expr | None]]:
    """Parameters that nothing in the function reads, with their defaults."""
    read = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
    arguments = function.args
    placed = [*arguments.posonlyargs, *arguments.args]
    defaults = [*[None] * (len(placed) - len(arguments.defaults)), *arguments.defaults]
    for argument, default in (*zip(placed, defaults, strict=True),
                              *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)):  # fmt: skip
        if argument.arg not in read | {"self", "cls", "ctx"} and not argument.arg.startswith("_"):
            yield argument.arg, default


def _missing(
    unit: Unit, function: Function, parameter: str, default: ast.expr | None, names: dict[str, Any], once: set[str]
) -> Iterator[tuple[ast.Call, str]]:
    """Calls that would take the parameter and are given nothing in its place, or that have its default written out."""
    usual = default.value if isinstance(default, ast.Constant) else None
    for call in unit.all(ast.Call, under=function):
        called = called_by(unit, call, names, once)
        if called is not None and _left_out(called, call, parameter):
            yield call, "left out"
        given = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
        if usual not in _USUAL and not isinstance(usual, bool) and any(g is not None and g == usual for g in given):
            yield call, "written out"


def _left_out(called: Callable[..., Any], call: ast.Call, parameter: str) -> bool:
    """Whether what is called takes a parameter of this name, and the call leaves it at its default."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return False
    try:
        signature = inspect.signature(called, follow_wrapped=False)
        given = signature.bind(*call.args, **{k.arg: k.value for k in call.keywords if k.arg is not None})
    except (TypeError, ValueError):
        return False
    wanted = signature.parameters.get(parameter)
    return wanted is not None and parameter not in given.arguments and wanted.default is not inspect.Parameter.empty
