"""What raises as soon as it is reached: calls of what takes no such arguments, attributes that nothing gives.

What a name stands for is asked of the live program after it has run, so that decorators, subclasses and the installed
version of a library count.  Where a test or a ``try`` stands around a call, the program may know better.
"""

import ast
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

from bowerbird.reading.program import Unit, dotted
from bowerbird.reading.running.formula import units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe


@probe("binding", cheap=True)
def binding(live: Live) -> None:
    """Records ``probe.binding`` for each call that cannot be, with whether what is called is the program's own."""
    for unit in units(live.files):
        names, once = namespace_of(live, unit.file) or {}, bound_once(unit)
        for call in unit.all(ast.Call):
            called = called_by(unit, call, names, once)
            why = _misfit(called, call) if called is not None else ""
            if why and not _guarded(unit, call):
                reached = call.lineno in live.reached.get(unit.file, ())
                value = {"why": why, "own": live.line_of(called) is not None, "text": ast.unparse(call), "ran": reached}
                live.record("probe.binding", ast.unparse(call.func), value, line=call.lineno, file=unit.file)


@probe("ungiven", cheap=True)
def ungiven(live: Live) -> None:
    """Records ``probe.ungiven`` for each attribute of ``self`` that no class and no line of the program gives."""
    every = units(live.files)
    given = {name for unit in every for name in unit.given}
    for unit in every:
        names = namespace_of(live, unit.file) or {}
        for info in unit.classes.values():
            kind = names.get(info.name)
            if not isinstance(kind, type) or not _closed(kind):
                continue
            read = _own_reads(unit, info.node)
            for name, line in read.items():
                if name not in given and not hasattr(kind, name) and not _inherits(kind, name):
                    has, ran = sorted(given & read.keys()), line in live.reached.get(unit.file, ())
                    value = {"name": name, "of": info.name, "has": has, "ran": ran}
                    live.record("probe.ungiven", f"{info.name}.{name}", value, line=line, file=unit.file)


def _own_reads(unit: Unit, kind: ast.ClassDef) -> dict[str, int]:
    """The attributes of ``self`` that a class reads, with a line of each."""
    return {
        node.attr: node.lineno
        for node in unit.all(ast.Attribute, under=kind)
        if isinstance(node.value, ast.Name) and node.value.id == "self" and unit.class_around(node) is kind
    }


def _closed(kind: type) -> bool:
    """Whether all is known that an object of a class has: its bases can be read and are no stand-ins, PyTorch's alone
    make attributes up, it has no subclass, and it is made by an ``__init__`` of its own."""
    bases = [base for base in kind.__mro__ if base is not object]
    ours = any(base.__module__.startswith("bowerbird.reading") for base in bases)
    made_up = any({"__getattr__", "__getattribute__"} & vars(b).keys() and b is not nn.Module for b in bases)
    own = "__init__" in vars(kind) and not kind.__subclasses__()
    return own and not ours and not made_up and all(_read(base) is not None for base in bases[1:])


def _inherits(kind: type, name: str) -> bool:
    """Whether a file in which a base is defined gives an attribute."""
    read = [_read(base) for base in kind.__mro__[1:] if base is not object]
    return any(unit is not None and name in unit.given for unit in read)


def _read(kind: type) -> Unit | None:
    try:
        return _unit(inspect.getfile(kind))
    except (OSError, TypeError):
        return None


@cache
def _unit(file: str) -> Unit | None:
    """A file as a static model; None where it is no Python that can be read."""
    return next(iter(units({file})), None) if file.endswith(".py") else None


def namespace_of(live: Live, file: str) -> dict[str, Any] | None:
    """The names of a file of the program, as they are now; None where it was not loaded."""
    if file == live.main:
        return live.namespace
    return next((vars(m) for m in list(sys.modules.values()) if getattr(m, "__file__", None) == file), None)


def _guarded(unit: Unit, call: ast.Call) -> bool:
    """Whether the call stands in a ``try``, or where a version or an attribute was asked for."""
    around = list(unit.ancestors(call))
    asked = [ast.unparse(n.test) for n in around if isinstance(n, ast.If | ast.IfExp)]
    return any(isinstance(n, ast.Try) for n in around) or any("version" in a or "hasattr" in a for a in asked)


def called_by(unit: Unit, call: ast.Call, names: dict[str, Any], once: set[str]) -> Callable[..., Any] | None:
    """What the call's name stands for: reached from a name that the module binds once, or a method by ``self``."""
    path = (dotted(call.func) or "").split(".")
    owner = unit.class_around(call)
    if path[0] == "self" and len(path) == 2 and owner is not None:
        return _method(names.get(owner.name), path[1])
    if path[0] not in names or path[0] not in once:
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


def bound_once(unit: Unit) -> set[str]:
    """The names of a file that one import or one definition binds, and nothing else."""
    defined = [n.name for n in unit.all(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)]
    aliases = [a for n in unit.all(ast.Import, ast.ImportFrom) for a in n.names]
    bound = Counter([*defined, *(a.asname or a.name.partition(".")[0] for a in aliases)])
    stored = {n.id for n in unit.all(ast.Name) if not isinstance(n.ctx, ast.Load)}
    return {name for name, times in bound.items() if times == 1} - stored - {n.arg for n in unit.all(ast.arg)}


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
