"""Calls that raise as soon as they are reached: what is called takes no such arguments.

What a name stands for is asked of the live program after it has run, so that decorators, subclasses and the installed
version of a library count.  Where a test or a ``try`` stands around a call, the program may know better.
"""

import ast
import inspect
import sys
from collections.abc import Callable
from typing import Any

from bowerbird.reading.program import Unit, dotted
from bowerbird.reading.running.formula import units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe


@probe("binding", cheap=True)
def binding(live: Live) -> None:
    """Records ``probe.binding`` for each call that cannot be, with whether what is called is the program's own."""
    for unit in units(live.files):
        names = _namespace(live, unit.file)
        for call in unit.all(ast.Call):
            if names is None or _guarded(unit, call):
                continue
            called = _called(unit, call, names)
            why = _misfit(called, call) if called is not None else ""
            if why:
                reached = call.lineno in live.reached.get(unit.file, ())
                value = {"why": why, "own": live.line_of(called) is not None, "text": ast.unparse(call), "ran": reached}
                live.record("probe.binding", ast.unparse(call.func), value, line=call.lineno, file=unit.file)


def _namespace(live: Live, file: str) -> dict[str, Any] | None:
    """The names of a file of the program, as they are now; None where it was not loaded."""
    if file == live.main:
        return live.namespace
    return next((vars(m) for m in list(sys.modules.values()) if getattr(m, "__file__", None) == file), None)


def _guarded(unit: Unit, call: ast.Call) -> bool:
    """Whether the call stands in a ``try``, or where a version or an attribute was asked for."""
    around = list(unit.ancestors(call))
    asked = [ast.unparse(n.test) for n in around if isinstance(n, ast.If | ast.IfExp)]
    return any(isinstance(n, ast.Try) for n in around) or any("version" in a or "hasattr" in a for a in asked)


def _called(unit: Unit, call: ast.Call, names: dict[str, Any]) -> Callable[..., Any] | None:
    """What the call's name stands for: reached from a name that the module binds once, or a method by ``self``."""
    path = (dotted(call.func) or "").split(".")
    owner = unit.class_around(call)
    if path[0] == "self" and len(path) == 2 and owner is not None:
        return _method(names.get(owner.name), path[1])
    if not path[0] or path[0] not in names or _rebound(unit, path[0]):
        return None
    found = names[path[0]]
    for name in path[1:]:
        if not (inspect.ismodule(found) or isinstance(found, type)):
            return None
        found = getattr(found, name, None)
    return found if inspect.isroutine(found) or isinstance(found, type) else None


def _method(kind: Any, name: str) -> Callable[..., Any] | None:
    """A method as an object of the class has it; None where a subclass may have another."""
    method = inspect.getattr_static(kind, name, None) if isinstance(kind, type) and not kind.__subclasses__() else None
    return method.__get__(object()) if inspect.isfunction(method) else None


def _rebound(unit: Unit, name: str) -> bool:
    """Whether a name is bound by anything but one import or definition."""
    defined = [n for n in unit.all(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef) if n.name == name]
    imported = [a for n in unit.all(ast.Import, ast.ImportFrom) for a in n.names
                if (a.asname or a.name.partition(".")[0]) == name]  # fmt: skip
    stored = any(n.id == name and not isinstance(n.ctx, ast.Load) for n in unit.all(ast.Name))
    return stored or any(n.arg == name for n in unit.all(ast.arg)) or len(defined) + len(imported) != 1


def _misfit(called: Callable[..., Any], call: ast.Call) -> str:
    """Why the call cannot be; empty where it can, or where nothing tells (a signature may be declared for show)."""
    if hasattr(called, "__signature__"):
        return ""
    try:
        signature = inspect.signature(called, follow_wrapped=False)
    except (TypeError, ValueError):
        return ""
    keywords = {k.arg: None for k in call.keywords if k.arg is not None}
    starred = any(isinstance(a, ast.Starred) for a in call.args)
    open_ended = starred or len(keywords) < len(call.keywords)
    try:
        if open_ended:
            signature.bind_partial(*[] if starred else [None] * len(call.args), **keywords)
        else:
            signature.bind(*[None] * len(call.args), **keywords)
    except TypeError as error:
        return str(error)
    return ""
